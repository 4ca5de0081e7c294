// Real processes for the tests of the page: a coordinator, workers, and proxies that cut links.
// All are ended with the test, by their own handles.

import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { mkdtempSync, openSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
export const BIN = process.env.OUTLAST_BIN ?? join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "release/outlast");

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits until `check` gives something, for `ms` at most. */
export async function until(what, check, ms = 20_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(50);
  }
}

/** A free port, below those of outgoing connections: one of them could occupy it while its server is down. */
export function freePort(tries = 100) {
  return new Promise((done, failed) => {
    const again = (error) => (tries > 1 ? done(freePort(tries - 1)) : failed(error));
    const server = createServer().once("error", again);
    server.listen(randomInt(15_000, 32_000), "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

export class Stage {
  dir = mkdtempSync(join(tmpdir(), "outlast-page-"));
  processes = [];
  key = "";

  /** Starts `outlast` with these arguments. */
  start(name, args, env = {}) {
    const log = openSync(join(this.dir, `${name.replace(/\W/g, "_")}.log`), "a");
    const own = Object.fromEntries(Object.entries(process.env).filter(([k]) => !k.startsWith("OUTLAST_")));
    const child = spawn(BIN, args, {
      stdio: ["pipe", log, log],
      env: { ...own, OUTLAST_CONFIG: "/dev/null", OUTLAST_NO_KEYS: "1", ...env },
    });
    child.on("error", (error) => {
      child.failed = error;
    });
    child.stdin.on("error", () => {});
    this.processes.push(child);
    return child;
  }

  /** Runs `outlast` to its end; what it wrote. */
  run(...args) {
    return new Promise((done, failed) => {
      const child = spawn(BIN, args, { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, OUTLAST_CONFIG: "/dev/null" } });
      let text = "";
      child.stdout.on("data", (data) => (text += data));
      child.on("error", failed);
      child.on("exit", (code) => (code === 0 ? done(text.trim()) : failed(new Error(`${args.join(" ")}: ${code}`))));
    });
  }

  get data() {
    return join(this.dir, "coordinator");
  }

  async coordinator(...more) {
    this.port ??= await freePort();
    this.url = `http://127.0.0.1:${this.port}`;
    const args = ["coordinator", "--listen", `127.0.0.1:${this.port}`, "--data-dir", this.data];
    this.hub = this.start("coordinator", [...args, "--heartbeat-interval", "500ms", "--heartbeat-timeout", "2s", ...more]);
    await until("the coordinator answers", () => fetch(`${this.url}/readyz`).then((r) => r.ok, () => false));
  }

  /** A proxy in front of the coordinator that does what is written to it: cut, heal, delay=50ms. */
  async proxy(name) {
    const port = await freePort();
    const child = this.start(name, ["chaos", "--upstream", `127.0.0.1:${this.port}`, "--listen", `127.0.0.1:${port}`]);
    const url = `http://127.0.0.1:${port}`;
    await until("the proxy answers", () => fetch(`${url}/healthz`).then((r) => r.ok, () => false));
    return { url, do: (what) => child.stdin.write(`${what}\n`) };
  }

  worker(name, via = this.url, ...more) {
    const args = ["worker", "--name", name, "--coordinator", via, "--state-dir", join(this.dir, `worker-${this.processes.length}`)];
    const env = this.key ? { OUTLAST_API_KEY: this.key } : {};
    const paces = ["--heartbeat-interval", "500ms", "--heartbeat-timeout", "2s", "--initial-reconnect-delay", "300ms", "--max-reconnect-delay", "1s"];
    return this.start(name, [...args, "--on-term", "stop", ...paces, ...more], env);
  }

  async api(path, body, method = body === undefined ? "GET" : "POST") {
    const headers = this.key ? { authorization: `Bearer ${this.admin ?? this.key}` } : {};
    const response = await fetch(`${this.url}/api/v1/${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Error(`${path}: ${text}`);
    return text ? JSON.parse(text) : null;
  }

  async stop() {
    for (const child of this.processes) child.kill("SIGTERM");
    const gone = (child) => child.exitCode !== null || child.signalCode !== null || child.failed;
    await until("all ended", () => this.processes.every(gone), 8000).catch(() => {
      for (const child of this.processes) if (!gone(child)) child.kill("SIGKILL");
    });
    rmSync(this.dir, { recursive: true, force: true });
  }
}
