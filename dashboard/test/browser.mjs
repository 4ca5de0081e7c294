// Debian's Chromium, steered by playwright-core, and the checks that every page has to pass.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Where screenshots go; not part of the repository. */
export const SHOTS = process.env.SHOTS ?? fileURLToPath(new URL("../shots", import.meta.url));

export async function launch() {
  mkdirSync(SHOTS, { recursive: true });
  const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
}

/** A page in a context of its own. What it logs as an error, or asks of another host, fails. */
export async function open(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.wrong = [];
  page.on("pageerror", (error) => page.wrong.push(`error: ${error.message}`));
  page.on("console", (message) => {
    // A link that is cut on purpose, and a login that is refused, are told to the console.
    const expected = /net::ERR_|status of (401|403|404|409|503)/.test(message.text());
    if (message.type() === "error" && !expected) page.wrong.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const { hostname, protocol } = new URL(request.url());
    if (protocol !== "data:" && hostname !== "127.0.0.1") page.wrong.push(`asked of ${hostname}`);
  });
  return page;
}

export async function shot(page, name, options = {}) {
  await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true, ...options });
}

/** No violation of WCAG 2 A and AA that axe-core knows of. */
export async function accessible(page, where) {
  // The policy of the page keeps strange scripts out; the debugger may run one.
  const session = await page.context().newCDPSession(page);
  const run = async (expression) => {
    const { result, exceptionDetails } = await session.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    assert.ok(!exceptionDetails, `axe failed: ${exceptionDetails?.exception?.description}`);
    return result.value;
  };
  await run(AXE);
  const found = await run(
    `axe.run(document, { resultTypes: ["violations"] }).then((r) => r.violations.map((v) => v.id + ": " + v.nodes.map((n) => n.target.join(" ") + " " + n.failureSummary).slice(0, 4).join(" | ")))`,
  );
  await session.detach();
  assert.deepEqual(found, [], `accessibility of ${where}`);
}

/** Nothing is wider than the window. */
export async function fits(page, where) {
  const { wide, by } = await page.evaluate(() => ({
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    by: [...document.querySelectorAll("main *")]
      .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, .fleet-table, pre, .plot, .track, .axis-track"))
      .map((e) => `${e.tagName}.${e.className}`)
      .slice(0, 5),
  }));
  assert.ok(wide <= 0, `${where} is ${wide} px too wide because of ${by.join(", ")}`);
}
