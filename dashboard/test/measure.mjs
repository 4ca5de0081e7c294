// What the overview costs with many workers: first paint, the page's main thread, and the
// coordinator's processor time for one open page. `make bench-dashboard` runs it.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { launch, open, shot } from "./browser.mjs";
import { sleep } from "./stage.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const bench = process.env.OUTLAST_BENCH ?? join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "release/outlast-bench");
const workers = Number(process.argv[2] ?? 10_000);
/** Seconds over which is measured, each time. */
const SPAN = 30;

/** Processor time of a process so far, in seconds. */
function cpu(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").replace(/^.*\) /, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function over(seconds, of) {
  const before = await of();
  const start = performance.now();
  await sleep(seconds * 1000);
  const after = await of();
  return (after - before) / ((performance.now() - start) / 1000);
}

const fleet = spawn(bench, ["fleet", String(workers), "300"], { stdio: ["ignore", "pipe", "inherit"] });
let browser;
try {
  const [line] = await Promise.race([
    new Promise((done) => createInterface({ input: fleet.stdout }).once("line", (text) => done([text]))),
    new Promise((_, failed) => fleet.once("exit", () => failed(new Error("the fleet did not start")))),
  ]);
  const [url, pid] = line.split(" ");
  // Until all have sent their first heartbeats.
  await sleep(15_000);
  const idle = await over(SPAN, () => cpu(pid));

  browser = await launch();
  const page = await open(browser);
  // The browser itself has started.
  await page.goto("about:blank");
  await page.goto(`${url}/dashboard`);
  await page.waitForFunction((n) => document.querySelector("[role=table]")?.getAttribute("aria-rowcount") === String(n + 1), workers);
  const shown = await page.evaluate(() => performance.now());
  await page.waitForTimeout(500);
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable");
  const metric = async (name) => (await session.send("Performance.getMetrics")).metrics.find((m) => m.name === name).value;
  await sleep(3000);
  const cpuBefore = cpu(pid);
  const start = performance.now();
  const busy = await over(SPAN, () => metric("TaskDuration"));
  const open_ = (cpu(pid) - cpuBefore) / ((performance.now() - start) / 1000);
  const script = await over(5, () => metric("ScriptDuration"));
  // Scrolling through all of it, and filtering.
  const scroll = await page.evaluate(async () => {
    const table = document.querySelector("[role=table]");
    let worst = 0;
    for (let n = 0; n < 60; n++) {
      table.scrollTop = (table.scrollHeight * n) / 60;
      const from = performance.now();
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      worst = Math.max(worst, performance.now() - from);
    }
    table.scrollTop = 0;
    return worst;
  });
  await page.evaluate(() => document.querySelector("[role=table]").scrollTo(0, 0));
  await shot(page, "overview-10000", { fullPage: false });
  await page.emulateMedia({ colorScheme: "dark" });
  await sleep(500);
  await shot(page, "overview-10000-dark", { fullPage: false });
  const heap = await metric("JSHeapUsedSize");

  const rows = [
    [`first paint with ${workers} workers`, `${paint.toFixed(0)} ms`, "1000"],
    ["  all workers in the table", `${shown.toFixed(0)} ms`, ""],
    ["main thread per second, live", `${(busy * 1000).toFixed(0)} ms`, "50"],
    ["  of that, script", `${(script * 1000).toFixed(0)} ms`, ""],
    ["worst two frames while scrolling through all", `${scroll.toFixed(0)} ms`, ""],
    ["memory of the page's script", `${(heap / 1e6).toFixed(0)} MB`, ""],
    ["coordinator, of one core, no page", `${(idle * 100).toFixed(1)} %`, ""],
    ["  more for one open page", `${((open_ - idle) * 100).toFixed(1)} %`, "5"],
  ];
  console.log("| figure | value | target |\n|---|---|---|");
  for (const row of rows) console.log(`| ${row.join(" | ")} |`);
  if (page.wrong.length) throw new Error(page.wrong.join("; "));
} finally {
  await browser?.close();
  fleet.kill("SIGTERM");
}
