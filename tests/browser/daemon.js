// A daemon with services in the private systemd that this runs in, and a browser that looks at it.

import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
export const pictures = join(root, "target/browser");

if (!process.env.SUPERVISOR_SANDBOX) throw new Error("run `make test-browser`: this needs a private systemd");
mkdirSync(pictures, { recursive: true });

async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

// Waits for a condition, and says what did not come.
export async function until(what, test, limit = 20000) {
  const end = Date.now() + limit;
  for (;;) {
    const found = await test();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what} did not come in ${limit} ms`);
    await new Promise((done) => setTimeout(done, 25));
  }
}

export class Daemon {
  constructor(config) {
    this.folder = mkdtempSync(join(tmpdir(), "browser-"));
    this.config = config;
  }

  write() {
    const listen = [`127.0.0.1:${this.port}`];
    const supervisor = { metrics_interval: 1, ...this.config.supervisor, listen };
    writeFileSync(join(this.folder, "supervisor_config.json"), JSON.stringify({ ...this.config, supervisor }));
  }

  async start() {
    this.port ??= await freePort();
    this.write();
    const env = { ...process.env, STATE_DIRECTORY: join(this.folder, "state"), RUNTIME_DIRECTORY: join(this.folder, "run") };
    this.child = spawn(join(root, "target/debug/process-supervisor"), ["--config", join(this.folder, "supervisor_config.json")], { env, stdio: "ignore" });
    await until("the API", () => fetch(this.url("")).then((answer) => answer.ok, () => false));
    return this;
  }

  url(hash = "#/") {
    return `http://127.0.0.1:${this.port}/${hash}`;
  }

  token(name = "token") {
    return readFileSync(join(this.folder, "state", name), "utf8").trim();
  }

  ctl(...words) {
    return execFileSync(join(root, "target/debug/supervisorctl"), ["--socket", join(this.folder, "run/supervisor.sock"), ...words], { encoding: "utf8" });
  }

  async api(path) {
    const answer = await fetch(`http://127.0.0.1:${this.port}/api/supervisor${path}`, { headers: { Authorization: `Bearer ${this.token()}` } });
    return answer.json();
  }

  async ended() {
    if (this.child.exitCode === null && this.child.signalCode === null) await new Promise((done) => this.child.once("exit", done));
  }

  // Services go on.
  async leave() {
    this.child.kill("SIGTERM");
    await this.ended();
  }

  async stop() {
    this.child.kill("SIGINT");
    await this.ended();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function browser() {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
}
