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

/** How much each of them grows by the second. */
async function rates(seconds, looks) {
  const all = async () => Promise.all(Object.values(looks).map((look) => look()));
  const before = await all();
  const start = performance.now();
  await sleep(seconds * 1000);
  const after = await all();
  const took = (performance.now() - start) / 1000;
  return Object.fromEntries(Object.keys(looks).map((name, n) => [name, (after[n] - before[n]) / took]));
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
  const { idle } = await rates(SPAN, { idle: () => cpu(pid) });

  browser = await launch();
  const page = await open(browser);
  const network = await page.context().newCDPSession(page);
  await network.send("Network.enable");
  let heard = 0;
  network.on("Network.dataReceived", ({ dataLength }) => (heard += dataLength));
  // The browser itself has started.
  await page.goto("about:blank");
  await page.goto(`${url}/dashboard`);
  await page.waitForFunction((n) => document.querySelector("[role=table]")?.getAttribute("aria-rowcount") === String(n + 1), workers);
  const shown = await page.evaluate(() => performance.now());
  await page.waitForTimeout(500);
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
  // By the clock of the wall, a task that waits for a core counts as if it worked; by that of the
  // thread only its own processor time does.
  const meter = async (timeDomain) => {
    const session = await page.context().newCDPSession(page);
    await session.send("Performance.enable", { timeDomain });
    return async (name) => (await session.send("Performance.getMetrics")).metrics.find((m) => m.name === name).value;
  };
  const [byThread, byWall] = [await meter("threadTicks"), await meter("timeTicks")];
  // All of the main thread, tasks or not: it is the first of its process.
  const whole = await browser.newBrowserCDPSession();
  const { processInfo } = await whole.send("SystemInfo.getProcessInfo");
  const renderers = processInfo.filter((p) => p.type === "renderer").map((p) => p.id);
  const main = () => renderers.reduce((sum, id) => sum + cpu(`${id}/task/${id}`), 0);
  await sleep(3000);
  const looks = {
    main,
    tasks: () => byThread("TaskDuration"),
    script: () => byThread("ScriptDuration"),
    style: () => byThread("RecalcStyleDuration"),
    layout: () => byThread("LayoutDuration"),
    wall: () => byWall("TaskDuration"),
    hub: () => cpu(pid),
    heard: () => heard,
  };
  const per = await rates(SPAN, looks);
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
  const heap = await byWall("JSHeapUsedSize");

  const time = (share) => `${(share * 1000).toFixed(0)} ms`;
  const rows = [
    [`first paint with ${workers} workers`, `${paint.toFixed(0)} ms`, "1000"],
    ["  all workers in the table", `${shown.toFixed(0)} ms`, ""],
    ["main thread per second while live, its own processor time", time(per.main), "50"],
    ["  of that, in tasks", time(per.tasks), ""],
    ["    in script, in style, in layout", [per.script, per.style, per.layout].map(time).join(", "), ""],
    ["  the same tasks by the clock on the wall, waiting for a core too", time(per.wall), ""],
    ["  events of the stream per second", `${(per.heard / 1024).toFixed(1)} KiB`, ""],
    ["worst two frames while scrolling through all", `${scroll.toFixed(0)} ms`, ""],
    ["memory of the page's script", `${(heap / 1e6).toFixed(0)} MB`, ""],
    ["coordinator, of one core, no page", `${(idle * 100).toFixed(1)} %`, ""],
    ["  more for one open page", `${((per.hub - idle) * 100).toFixed(1)} %`, "5"],
  ];
  console.log("| figure | value | target |\n|---|---|---|");
  for (const row of rows) console.log(`| ${row.join(" | ")} |`);
  console.log(`load of the machine: ${readFileSync("/proc/loadavg", "utf8").split(" ")[0]}`);
  if (page.wrong.length) throw new Error(page.wrong.join("; "));
} finally {
  await browser?.close();
  fleet.kill("SIGTERM");
}
