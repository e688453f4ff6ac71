// The dashboard as a person uses it: in a real browser, of a real daemon, over real services.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Daemon, browser, pictures, root, until } from "./daemon.js";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const demo = join(root, "target/debug/examples/demo-service");
const sleeper = { command: "sleep", args: ["100000"] };

const services = {
  database: { name: "Database", description: "What everything is kept in", critical: true, priority: 1, command: "sh", args: ["-c", "while :; do echo a line of the log $$; sleep 1; done"],
    resource_limits: { max_memory_mb: 64, max_cpu_percent: 50 } },
  shop: { ...sleeper, name: "Shop", dependencies: ["database"], resource_limits: { max_memory_mb: 32 } },
  reports: { ...sleeper, name: "Reports", enabled: false },
  mailer: { name: "Mailer", critical: true, command: "sh", args: ["-c", "echo no such host >&2; exit 3"], restart_policy: { retry_delay: 30, max_retries: 5 } },
  newsletter: { ...sleeper, name: "Newsletter", dependencies: ["mailer"] },
  pharmacy: { name: "Pharmacy", command: demo, args: ["--name", "Pharmacy", "--port", "0"] },
};
delete services.pharmacy;

let [daemon, chrome] = [null, null];
const faults = [];

before(async () => {
  daemon = await new Daemon({ groups: { front: { services: ["shop", "newsletter"] } }, services }).start();
  chrome = await browser();
  await until("services", async () => (await daemon.api("/status")).services.database.state === "running");
});

after(async () => {
  await chrome?.close();
  await daemon?.stop();
});

// A page that is logged in. What it logs as an error fails the test.
async function open({ hash = "#/", of = daemon, token = of.token(), width = 1360, height = 900, scheme = "light" } = {}) {
  const context = await chrome.newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().includes("Failed to load resource") && !message.text().includes("ERR_")) faults.push(message.text());
  });
  await page.goto(of.url(token ? `#token=${token}` : ""));
  if (token) {
    await page.locator("#link[data-link=live]").waitFor();
    assert.ok(!page.url().includes(token), "the token does not stay in the address");
    if (hash !== "#/") await page.evaluate((to) => (location.hash = to), hash);
  }
  return page;
}

async function done(page) {
  await page.context().close();
  assert.deepEqual(faults.splice(0), [], "errors in the page");
}

async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run());
  const told = violations.map((one) => `${one.id}: ${one.help} ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160))}`);
  assert.deepEqual(told, [], `axe-core on ${what}`);
}

const row = (page, id) => page.locator(`tr[data-id="${id}"]`);
const VIEWS = { overview: "#/", service: "#/service/database", failing: "#/service/mailer", events: "#/events", alerts: "#/alerts", config: "#/config" };

for (const scheme of ["light", "dark"]) {
  for (const [device, width, height] of [["desktop", 1360, 900], ["phone", 360, 740]]) {
    test(`every view, ${scheme}, ${device}`, async () => {
      const page = await open({ scheme, width, height });
      for (const [name, hash] of Object.entries(VIEWS)) {
        await page.evaluate((to) => (location.hash = to), hash);
        await page.locator("h1").first().waitFor({ state: "attached" });
        if (name === "overview") await row(page, "mailer").waitFor();
        if (name === "service") await page.locator(".entry").first().waitFor();
        if (name === "failing") await page.locator(".events tbody tr").first().waitFor();
        if (name === "events") await page.locator(".events tbody tr").first().waitFor();
        if (name === "alerts") await page.locator(".alert").first().waitFor();
        await page.screenshot({ path: join(pictures, `${name}-${scheme}-${device}.png`), fullPage: name !== "events" });
        const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wider <= 0, `${name} is ${wider} px wider than the ${device}`);
        await accessible(page, `${name}, ${scheme}, ${device}`);
      }
      await done(page);
    });
  }
}

test("trouble is on top and says why", async () => {
  const page = await open();
  const trouble = page.locator(".trouble").first();
  await trouble.waitFor();
  assert.match(await trouble.innerText(), /Mailer[\s\S]*backoff[\s\S]*exited with status 3/);
  assert.match(await row(page, "mailer").locator(".why").innerText(), /exited with status 3; attempt \d of 5, restart in \d+ s/);
  assert.match(await row(page, "newsletter").locator(".why").innerText(), /waits for mailer/);
  assert.equal(await page.locator("tbody tr").first().getAttribute("data-id"), "mailer");
  await done(page);
});

test("a kill is seen within a second, and the restart too", async () => {
  const page = await open();
  const before = (await daemon.api("/status")).services.shop.pid;
  await page.evaluate(() => {
    const cell = document.querySelector('tr[data-id="shop"] .state');
    window.seen = null;
    new MutationObserver(() => (window.seen ??= Date.now())).observe(cell, { subtree: true, childList: true, characterData: true, attributes: true });
  });
  const at = Date.now();
  process.kill(before, "SIGKILL");
  const seen = await until("the change", () => page.evaluate(() => window.seen));
  assert.ok(seen - at < 1000, `${seen - at} ms`);
  console.log(`    a kill was on the page after ${seen - at} ms`);
  await daemon.ctl("wait", "shop", "--timeout", "30");
  await until("running", async () => (await row(page, "shop").locator(".state").innerText()).startsWith("running"));
  await done(page);
});

test("orders are given, asked about, and answered truthfully", async () => {
  const page = await open();
  await row(page, "shop").locator("[data-verb=stop]").click();
  await page.locator(".toast", { hasText: "shop" }).first().waitFor();
  await until("stopped", async () => (await daemon.api("/status")).services.shop.state === "stopped");
  await row(page, "shop").locator("[data-verb=start]").click();
  await until("running", async () => (await daemon.api("/status")).services.shop.state === "running");

  // A critical one is not stopped by a slip.
  await row(page, "database").locator("[data-verb=restart]").click();
  const dialog = page.locator("dialog[open]");
  await dialog.waitFor();
  assert.match(await dialog.innerText(), /database[\s\S]*critical[\s\S]*Needed by: shop/i);
  await accessible(page, "the question");
  const pid = (await daemon.api("/status")).services.database.pid;
  await dialog.getByRole("button", { name: "Cancel" }).click();
  assert.equal((await daemon.api("/status")).services.database.pid, pid);
  await row(page, "database").locator("[data-verb=restart]").click();
  await dialog.getByRole("button", { name: "Restart" }).click();
  await until("another process", async () => ![pid, null].includes((await daemon.api("/status")).services.database.pid));

  // One that cannot come up says so in the supervisor's words.
  await row(page, "mailer").locator("[data-verb=restart]").click();
  await dialog.getByRole("button", { name: "Restart" }).click();
  await page.locator('.toast[data-tone="bad"]', { hasText: "exited with status 3" }).first().waitFor();
  await done(page);
});

test("the keyboard is enough", async () => {
  const page = await open();
  await page.keyboard.press("/");
  await page.keyboard.type("shop");
  await until("one row", async () => (await page.locator("tbody tr").count()) === 1);
  await page.keyboard.press("Escape");
  await page.keyboard.press("j");
  assert.equal(await row(page, "shop").getAttribute("aria-current"), "true");
  await page.keyboard.press("x");
  await page.locator("dialog[open]").waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("?");
  await page.locator("dialog[open] .keys").waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("Enter");
  await page.waitForURL(/#\/service\/shop/);
  await done(page);
});

test("logs follow, stop for the reader, and are searched", async () => {
  const page = await open({ hash: "#/service/database" });
  const lines = page.locator(".entry", { hasText: "a line of the log" });
  await lines.first().waitFor();
  const count = await lines.count();
  await until("a new line", async () => (await lines.count()) > count);
  await page.getByRole("button", { name: "Pause" }).click();
  const held = await lines.count();
  await page.getByText(/^[1-9]\d* new$/).waitFor();
  assert.equal(await lines.count(), held);
  await page.getByRole("button", { name: "Go on" }).click();
  await until("what was held", async () => (await lines.count()) > held);
  await page.getByLabel("Search the log").fill("no such line");
  await page.getByText("no line has that").waitFor();
  await done(page);
});

test("charts say their values, and what happened is marked", async () => {
  const page = await open({ hash: "#/service/mailer" });
  const chart = page.locator("figure", { hasText: "State" }).locator("svg");
  await until("states", async () => /backoff \d/.test(await chart.getAttribute("aria-label") ?? ""));
  await page.evaluate(() => (location.hash = "#/service/database"));
  const memory = page.locator("figure", { hasText: "Memory" });
  await until("a line", async () => (await memory.locator(".line").count()) > 0);
  await memory.locator("svg").hover();
  assert.match(await memory.locator(".readout").innerText(), /\d\d:\d\d:\d\d\s+[\d.]+ MiB/);
  await done(page);
});

test("alerts are acknowledged", async () => {
  const page = await open({ hash: "#/alerts" });
  const alert = page.locator(".alert", { hasText: "mailer" }).first();
  await alert.getByRole("button", { name: "Acknowledge" }).click();
  await alert.getByText("seen").waitFor();
  await done(page);
});

test("a reload is shown before it is done", async () => {
  const page = await open({ hash: "#/config" });
  daemon.config.services.added = sleeper;
  daemon.write();
  await page.getByRole("button", { name: "What would change?" }).click();
  await page.locator("section", { hasText: "Added (1)" }).waitFor();
  assert.equal((await daemon.api("/status")).services.added, undefined);
  await page.getByRole("button", { name: "Reload" }).click();
  await page.locator("dialog[open]").getByRole("button", { name: "Reload" }).click();
  await until("the service", async () => (await daemon.api("/status")).services.added?.state === "running");
  daemon.config.services.added = { ...sleeper, comand: "x" };
  daemon.write();
  await page.getByRole("button", { name: "What would change?" }).click();
  await page.locator("section", { hasText: "comand" }).waitFor();
  delete daemon.config.services.added;
  daemon.write();
  daemon.ctl("reload");
  await done(page);
});

test("without a token there is a way in", async () => {
  const page = await open({ token: null });
  await page.getByLabel("Token").waitFor();
  await accessible(page, "the login");
  await page.screenshot({ path: join(pictures, "login-light-desktop.png") });
  await page.getByLabel("Token").fill("wrong");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.locator("#token-error", { hasText: "not right" }).waitFor();
  assert.match(await page.locator("#token-error").innerText(), /token/);
  await page.getByLabel("Token").fill(daemon.token());
  await page.getByRole("button", { name: "Log in" }).click();
  await row(page, "shop").waitFor();
  await done(page);
  assert.equal(daemon.ctl("dashboard").trim(), daemon.url(`#token=${daemon.token()}`));
});

test("who may only read sees no button that works", async () => {
  const page = await open({ token: daemon.token("token-viewer") });
  await row(page, "shop").waitFor();
  await page.locator("#link", { hasText: "read only" }).waitFor();
  assert.equal(await page.locator("tbody button:enabled").count(), 0);
  await page.screenshot({ path: join(pictures, "viewer-light-desktop.png") });
  await done(page);
});

test("a supervisor that is away is said to be, and comes back", async () => {
  const page = await open();
  await row(page, "shop").waitFor();
  const pid = (await daemon.api("/status")).services.shop.pid;
  await daemon.leave();
  await page.locator("#banner", { hasText: "Disconnected" }).waitFor();
  assert.equal(await page.locator("tbody button:enabled").count(), 0);
  await page.screenshot({ path: join(pictures, "disconnected-light-desktop.png") });
  await accessible(page, "disconnected");
  await daemon.start();
  await page.locator("#link[data-link=live]").waitFor();
  assert.equal(await page.locator("#banner").innerText(), "");
  assert.equal((await daemon.api("/status")).services.shop.pid, pid, "services did not notice");
  await done(page);
});

test("names and messages are text, whatever is in them", async () => {
  daemon.config.services.evil = { ...sleeper, name: "<img src=x onerror=alert(1)>", description: "\"><script>alert(1)</script>" };
  daemon.write();
  daemon.ctl("reload");
  const page = await open();
  await row(page, "evil").waitFor();
  assert.match(await row(page, "evil").innerText(), /<img src=x/);
  assert.equal(await page.locator("tbody img, tbody script").count(), 0);
  delete daemon.config.services.evil;
  daemon.write();
  daemon.ctl("reload");
  await until("it is gone from the page", async () => (await row(page, "evil").count()) === 0);
  await done(page);
});

test("500 services", async () => {
  const many = Object.fromEntries(Array.from({ length: 500 }, (_, n) => [`service-${n}`, { ...sleeper, enabled: n % 10 !== 0 }]));
  const fleet = await new Daemon({ supervisor: { metrics_interval: 5 }, services: many }).start();
  try {
    await until("all are up", async () => Object.values((await fleet.api("/status")).services).filter((one) => one.state === "running").length === 450, 60000);
    const begun = Date.now();
    const page = await open({ of: fleet });
    await until("every row", async () => (await page.locator("tbody tr").count()) === 500);
    const ready = Date.now() - begun;
    await page.evaluate(() => {
      window.long = [];
      new PerformanceObserver((list) => window.long.push(...list.getEntries().map((entry) => entry.duration))).observe({ entryTypes: ["longtask"] });
    });
    for (let n = 0; n < 20; n += 1) await page.mouse.wheel(0, 1200);
    await page.waitForTimeout(6000);
    const long = await page.evaluate(() => window.long);
    const worst = Math.max(0, ...long);
    console.log(`    500 rows after ${ready} ms; longest task while scrolling and measuring ${worst.toFixed(0)} ms`);
    assert.ok(ready < 10000 && worst < 1000, `${ready} ms, ${worst} ms`);
    await page.screenshot({ path: join(pictures, "fleet-light-desktop.png") });
    await done(page);
  } finally {
    await fleet.stop();
  }
});
