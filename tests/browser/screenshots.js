// The pictures of the README: the example, after a while with some trouble. `make screenshots`.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Daemon, browser, root, until } from "./daemon.js";

const example = JSON.parse(readFileSync(join(root, "config/supervisor_config.json"), "utf8"));
for (const service of Object.values(example.services)) {
  if (service.command === "demo-service") service.command = join(root, "target/debug/examples/demo-service");
}
example.supervisor = { ...example.supervisor, metrics_interval: 1 };
example.services.mailer = { name: "Mailer", description: "Sends what the apps write", critical: true, command: "sh",
  args: ["-c", "sleep 1; echo cannot reach smtp.example.com >&2; exit 3"], restart_policy: { retry_delay: 20, max_retries: 5 } };

const daemon = await new Daemon(example).start();
const chrome = await browser();
try {
  await until("the example", async () => (await daemon.api("/status")).services["architect-prod"].health === "healthy", 60000);
  const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
  for (let n = 0; n < 100; n += 1) {
    await fetch("http://127.0.0.1:8080/").then((answer) => answer.text(), () => {});
    if (n === 20 || n === 40) await fetch("http://127.0.0.1:5063/crash", { method: "POST" }).catch(() => {});
    if (n === 30) await fetch("http://127.0.0.1:7085/leak", { method: "POST" }).catch(() => {});
    await pause(1);
  }
  for (const [name, hash, scheme, height] of [["overview", "#/", "light", 520], ["service", "#/service/pharma", "dark", 760]]) {
    const context = await chrome.newContext({ viewport: { width: 1320, height }, colorScheme: scheme, reducedMotion: "reduce" });
    const page = await context.newPage();
    await page.goto(daemon.url(`#token=${daemon.token()}`));
    await page.locator("#link[data-link=live]").waitFor();
    await page.evaluate((to) => (location.hash = to), hash);
    if (name === "service") await page.getByRole("button", { name: "Last 10 minutes" }).click();
    await pause(3);
    await page.screenshot({ path: join(root, "docs", `${name}.png`) });
    await context.close();
  }
} finally {
  await chrome.close();
  await daemon.stop();
}
