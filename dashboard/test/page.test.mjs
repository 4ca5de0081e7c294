// The dashboard in Debian's Chromium, against a real coordinator and real workers, one of them
// behind a link that is really cut.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { accessible, fits, launch, open, shot } from "./browser.mjs";
import { BIN, Stage, sleep, until } from "./stage.mjs";

const EVIL = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`;
const stage = new Stage();
let browser;
let page;
let link;
const keys = {};

const at = (path) => `${stage.url}/dashboard#/${path}`;
const see = (text, options = {}) => page.getByText(text, options).first().waitFor({ timeout: 15_000 });

before(async () => {
  for (const role of ["worker", "submit", "operate"]) {
    const told = await stage.run("keys", "--data-dir", stage.data, "add", role, "--role", role);
    keys[role] = told.match(/olk_\w+/)[0];
  }
  stage.key = keys.worker;
  stage.admin = keys.operate;
  await stage.coordinator();
  link = await stage.proxy("remote-link");
  stage.worker("steady", stage.url, "--slots", "2", "--label", `evil=${EVIL}`);
  stage.worker("remote", link.url, "--slots", "1");
  await until("both workers are there", async () => (await stage.api("fleet")).totals.connected === 2);
  browser = await launch();
  page = await open(browser);
});

after(async () => {
  await browser?.close();
  await stage.stop();
});

async function logIn(on, key) {
  await on.getByLabel("API key").fill(key);
  await on.keyboard.press("Enter");
}

test("one logs in by key, and is told when it is wrong", async () => {
  await page.goto(at(""));
  await page.getByLabel("API key").waitFor();
  await shot(page, "login");
  await accessible(page, "login");
  await logIn(page, "olk_000000000000_wrong");
  await see("this API key is not valid");
  await logIn(page, keys.worker);
  await see("this API key is for workers");
  await logIn(page, keys.operate);
  await page.getByRole("heading", { name: "All workers" }).waitFor();
  assert.equal(await page.evaluate(() => document.cookie), "", "no script can read the session");
});

test("the overview shows the fleet, live", async () => {
  const table = page.getByRole("table", { name: "Workers" });
  await table.getByRole("link", { name: "remote" }).waitFor();
  assert.equal(await table.getByText("connected").count(), 2);
  const tasks = Array.from({ length: 30 }, (_, n) => ({ id: `quick-${n}`, shell: `sleep 0.${n % 10}` }));
  await stage.api("tasks", [...tasks, { id: "broken", shell: "echo no such disk >&2; exit 3" }]);
  await page.getByRole("region", { name: "Tasks" }).getByText("30").waitFor({ timeout: 15_000 });
  await page.getByRole("img", { name: /Tasks per second from/ }).waitFor();
  await accessible(page, "overview");
  await page.getByPlaceholder("Filter by name or cause").fill("stead");
  await table.getByRole("link", { name: "remote" }).waitFor({ state: "detached" });
  await page.getByPlaceholder("Filter by name or cause").fill("");
  await shot(page, "overview-light");
});

test("a worker's link is seen to go, and to come back, with the cause", async () => {
  const script = `for i in 1 2 3 4 5 6 7 8; do echo $i > point; ${BIN} task checkpoint point --meta "{\\"epoch\\": $i}"; ${BIN} task progress 0.$i --data "{\\"epoch\\": $i}" >/dev/null; sleep 1; done`;
  await stage.api("tasks", [{ id: "train", shell: script, requires: { worker: "remote" }, labels: { run: "nightly" } }]);
  await until("it runs", async () => (await stage.api("tasks/train")).started_at);
  await sleep(1500);
  await page.goto(at("fleet"));
  const row = page.getByRole("row").filter({ hasText: "remote" });
  await row.getByText("connected").waitFor();
  link.do("cut");
  await row.getByText("suspect").waitFor({ timeout: 10_000 });
  await shot(page, "overview-cut");
  await row.getByRole("link", { name: "remote" }).click();
  await page.getByRole("heading", { name: "remote" }).waitFor();
  await page.locator(".track .bar.suspect").first().waitFor({ state: "attached" });
  await see(/the link broke/);
  await shot(page, "worker-during-cut");
  await accessible(page, "worker during the cut");
  await sleep(3000);
  link.do("heal");
  await page.locator(".sub .badge", { hasText: "connected" }).waitFor({ timeout: 15_000 });
  const states = page.getByRole("group", { name: "States of the link in words" });
  await states.getByText("resync").first().waitFor({ timeout: 10_000 });
  await until("the cut is told with its cause", async () => /suspect.*network/s.test(await states.innerText()));
  await sleep(2500);
  await shot(page, "worker-after-cut");
  await accessible(page, "worker after the cut");
});

test("what was done about a link is told", async () => {
  // Made up: links on one machine give no reason to adapt.
  const why = `a silence of 16.2 s ended by itself ${EVIL}`;
  const [from, to] = ["every 5 s, silent after 15 s", "every 5 s, silent after 24.3 s"];
  const add = async (route, more) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...(await response.json()), ...more() } });
  };
  const adaptation = [
    { side: "coordinator", setting: "heartbeat", from, to, why, at: new Date(Date.now() - 90_000).toISOString() },
    { side: "worker", setting: "compression", from: "level 3", to: "level 9", why: "the link is slow: 12 KiB/s", at: new Date().toISOString() },
  ];
  const notes = () => [
    { at: Date.now() - 90_000, text: `heartbeat (coordinator): ${from} → ${to}: ${why}` },
    { at: Date.now() - 20_000, text: "compression (worker): level 3 → level 9: the link is slow: 12 KiB/s" },
  ];
  const own = [/workers\/remote\/metrics/, /workers\/remote\/timeline/];
  await page.route(own[0], (route) => add(route, () => ({ adaptation })));
  await page.route(own[1], (route) => add(route, () => ({ notes: notes(), intervals: [{ state: "connected", from: Date.now() - 300_000, to: null, cause: "", reason: "" }] })));
  await page.goto(at("fleet"));
  await page.goto(at("worker/remote"));
  const panel = page.getByRole("region", { name: "Adapted to the link" });
  await panel.getByText("the link is slow: 12 KiB/s").waitFor();
  assert.equal(await panel.locator("tbody tr").count(), 2);
  assert.match(await panel.innerText(), /heartbeat\s+coordinator\s+every 5 s, silent after 15 s →\s*became\s*every 5 s, silent after 24.3 s\s+a silence of 16.2 s ended by itself/);
  assert.equal(await page.locator(".track .mark-sign.adapted").count(), 2);
  const strip = page.getByRole("img", { name: /2 marks, the last: .* compression \(worker\): level 3 → level 9/ });
  await strip.waitFor();
  const rows = page.getByRole("group", { name: "States of the link in words" }).locator("tbody tr");
  await rows.filter({ hasText: "adapted" }).filter({ hasText: "heartbeat (coordinator)" }).waitFor();
  assert.equal(await page.locator("#app img, #app script").count(), 0, "what it says stays text");
  for (const [scheme, width] of [["light", 1280], ["dark", 1280], ["light", 375]]) {
    await page.setViewportSize({ width, height: 900 });
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    await sleep(400);
    await shot(page, `worker-adapted-${scheme}${width === 375 ? "-phone" : ""}`);
    await fits(page, `an adapted link at ${width} px`);
    await accessible(page, `an adapted link, ${scheme}, ${width} px`);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  for (const path of own) await page.unroute(path);
  // What is as it was configured is not mentioned.
  await panel.waitFor({ state: "detached" });
});

test("a task's attempts, checkpoints and story are shown", async () => {
  await until("it ended", async () => (await stage.api("tasks/train")).state === "succeeded");
  await page.goto(at("task/train"));
  await page.locator(".sub .badge", { hasText: "succeeded" }).waitFor();
  await page.locator(".track .bar.good").waitFor({ state: "attached" });
  await page.locator(".track .bar.outage").waitFor({ state: "attached" });
  assert.ok((await page.locator(".track .mark-sign.checkpoint").count()) >= 5);
  await see(/attempt 1 ran on remote/);
  assert.equal(await page.getByRole("link", { name: /Download/ }).count(), 3, "those that are kept");
  await shot(page, "task-light");
  await accessible(page, "task");
});

test("actions work, and ask before what cannot be undone", async () => {
  await stage.api("tasks", [{ id: "long", shell: "seq 20000; echo begun; sleep 600", requires: { worker: "steady" } }]);
  await page.goto(at("task/long"));
  const badge = page.locator(".sub .badge");
  await badge.filter({ hasText: "running" }).waitFor({ timeout: 15_000 });
  // Only the end of a long log is fetched.
  await page.locator(".log", { hasText: "begun" }).waitFor();
  await see(/The first 74 KiB are not shown/);
  assert.ok((await page.locator(".log").innerText()).length <= 32_768);
  await page.getByRole("button", { name: "Pause" }).click();
  await badge.filter({ hasText: "paused" }).waitFor();
  // The overview counts it, and leads to it.
  await page.goto(at("fleet"));
  await page.getByRole("region", { name: "Tasks" }).getByRole("link", { name: "1 paused" }).click();
  await page.getByRole("button", { name: "paused 1" }).waitFor();
  const listed = () => page.getByRole("group", { name: "Tasks" }).getByRole("link").allInnerTexts();
  await until("only it is listed", async () => (await listed()).join() === "long,steady");
  await shot(page, "tasks-paused");
  await accessible(page, "paused tasks");
  await page.getByRole("button", { name: "paused 1" }).click();
  await until("all are listed", async () => (await listed()).includes("train"));
  await page.goto(at("task/long"));
  await page.getByRole("button", { name: "Resume" }).click();
  await badge.filter({ hasText: "running" }).waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").waitFor();
  await accessible(page, "dialog");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  assert.equal((await stage.api("tasks/long")).state, "assigned");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await badge.filter({ hasText: "cancelled" }).waitFor({ timeout: 10_000 });
  await page.getByRole("button", { name: "Retry" }).click();
  await badge.filter({ hasText: "running" }).waitFor({ timeout: 10_000 });
  await stage.api("tasks/long/cancel", {});
  await page.goto(at("worker/steady"));
  await page.getByRole("button", { name: "Drain" }).click();
  await page.locator(".sub .badge", { hasText: "draining" }).waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.locator(".sub .badge", { hasText: "connected" }).waitFor();
});

test("whatever tasks say stays text", async () => {
  const quoted = EVIL.replaceAll('"', '\\"');
  const script = `printf '%s' '${EVIL}'; printf '%s' '${EVIL}' >&2; ${BIN} task progress 0.5 --data "{\\"say\\": \\"${quoted.replaceAll("\\", "\\\\")}\\"}"; exit 7`;
  await stage.api("tasks", [{ id: "evil", shell: script, labels: { evil: EVIL }, queue: "q" }]);
  await until("it ended", async () => (await stage.api("tasks/evil")).state === "failed");
  await stage.api("tasks", [{ id: "evil-2", command: ["/bin/echo", EVIL] }]);
  for (const where of ["task/evil", "task/evil-2", "tasks", "worker/steady", "fleet", `worker/${encodeURIComponent(EVIL)}`]) {
    await page.goto(at(where));
    await sleep(700);
    assert.equal(await page.evaluate(() => window.hacked), undefined, where);
    assert.equal(await page.locator("#app img, #app script").count(), 0, where);
  }
  await page.goto(at("task/evil"));
  await see("<img src=x onerror=", { exact: false });
  const log = page.locator(".log");
  await log.filter({ hasText: "<script>window.hacked=1</script>" }).waitFor();
});

test("the keyboard reaches everything", async () => {
  await page.goto(at("fleet"));
  await page.getByRole("link", { name: "steady" }).waitFor();
  await page.reload();
  await page.getByRole("link", { name: "steady" }).waitFor();
  await page.keyboard.press("Tab");
  const focused = () => page.evaluate(() => document.activeElement?.textContent);
  assert.equal(await focused(), "Skip to content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "main");
  const seen = new Set();
  for (let n = 0; n < 60 && !seen.has("remote"); n++) {
    await page.keyboard.press("Tab");
    seen.add(await focused());
    const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(ring, "none", `focus is seen on ${await focused()}`);
  }
  assert.ok(seen.has("remote"), [...seen].join(", "));
  await page.keyboard.press("ArrowDown");
  await until("the next row has the focus", async () => (await focused()) === "steady");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "steady" }).waitFor();
  const id = () => page.evaluate(() => document.activeElement?.id);
  await until("a new page begins at its top", async () => (await id()) === "main");
});

test("dark, and on a phone", async () => {
  for (const [scheme, width] of [["dark", 1280], ["light", 375], ["dark", 375]]) {
    const small = width === 375;
    await page.setViewportSize({ width, height: small ? 800 : 900 });
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    for (const [name, where] of [["overview", "fleet"], ["worker", "worker/remote"], ["task", "task/train"], ["tasks", "tasks"]]) {
      await page.goto(at(where));
      await sleep(1300);
      await shot(page, `${name}-${scheme}${small ? "-phone" : ""}`);
      await fits(page, `${where} at ${width} px`);
      await accessible(page, `${where}, ${scheme}, ${width} px`);
    }
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background();
  await page.getByRole("button", { name: /Colours/ }).click();
  await page.getByRole("button", { name: /Colours/ }).click();
  assert.notEqual(await background(), light, "dark was chosen");
  await page.reload();
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  assert.notEqual(await background(), light, "and stays");
  await page.getByRole("button", { name: /Colours/ }).click();
});

test("a page whose own link is lost says so, and catches up", async () => {
  const own = await stage.proxy("page-link");
  const far = await open(browser);
  await far.goto(`${own.url}/dashboard#/worker/steady`);
  await logIn(far, keys.operate);
  await far.getByText("Live", { exact: true }).waitFor();
  // What it is to show while the link is away must be there first.
  await far.getByRole("button", { name: /Drain|Resume/ }).waitFor();
  const lost = far.getByText("Connection to the coordinator lost, retrying.");
  for (const fault of ["cut", "half-open"]) {
    own.do(fault);
    await lost.waitFor({ timeout: 20_000 });
    assert.ok(await far.locator("main.stale").count(), "what is old looks so");
    assert.ok(await far.getByRole("button", { name: /Drain|Resume/ }).isDisabled());
    await far.getByText(/Showing data of/).waitFor();
    await shot(far, `lost-${fault}`, { fullPage: false });
    await accessible(far, `lost by ${fault}`);
    // What happens meanwhile is seen once the link is back.
    await stage.api(`workers/steady/${fault === "cut" ? "drain" : "undrain"}`, {});
    await sleep(1000);
    own.do("heal");
    await lost.waitFor({ state: "detached", timeout: 20_000 });
    await far.locator(".sub .badge", { hasText: fault === "cut" ? "draining" : "connected" }).waitFor({ timeout: 10_000 });
  }
  assert.deepEqual(far.wrong, []);
  await far.context().close();
});

test("a key of role submit sees no actions on workers, and is refused them", async () => {
  const other = await open(browser);
  await other.goto(at("worker/steady"));
  await logIn(other, keys.submit);
  await other.getByRole("heading", { name: "steady" }).waitFor();
  assert.equal(await other.getByRole("button", { name: "Drain" }).count(), 0);
  const refused = await other.evaluate(() =>
    fetch("api/v1/workers/steady/drain", { method: "POST", headers: { "outlast-dashboard": "1" } }).then((r) => r.status),
  );
  assert.equal(refused, 403);
  await other.goto(at("task/long"));
  await other.getByRole("button", { name: "Retry" }).waitFor();
  await other.context().close();
});

test("a page of another site can do nothing with the session", async () => {
  // Another port of the same host: browsers send it the cookie, so only the origin tells.
  const site = createServer((_, response) => response.setHeader("content-type", "text/html").end("<h1>Strange</h1>"));
  await new Promise((done) => site.listen(0, "127.0.0.1", done));
  const strange = await page.context().newPage();
  await strange.goto(`http://127.0.0.1:${site.address().port}/`);
  const tried = await strange.evaluate(async (hub) => {
    const body = JSON.stringify({ id: "planted", command: ["true"] });
    const plain = { method: "POST", credentials: "include", body };
    await fetch(`${hub}/api/v1/tasks`, { ...plain, mode: "no-cors" }).catch(() => {});
    const ours = { ...plain, headers: { "outlast-dashboard": "1" } };
    const asked = await fetch(`${hub}/api/v1/tasks`, ours).then((r) => r.status, () => "kept from asking");
    const read = await fetch(`${hub}/api/v1/tasks`, { credentials: "include" }).then((r) => r.text(), () => "kept from reading");
    const frame = document.createElement("iframe");
    frame.src = `${hub}/dashboard`;
    document.body.append(frame);
    return [asked, read];
  }, stage.url);
  assert.deepEqual(tried, ["kept from asking", "kept from reading"]);
  await strange.setContent(`<form method="post" enctype="text/plain" action="${stage.url}/api/v1/tasks"><input name='{"id":"planted","command":["true"],"env":{"x":"' value='"}}'></form>`);
  const answer = strange.waitForResponse(/api\/v1\/tasks/);
  await strange.evaluate(() => document.forms[0].submit());
  assert.equal((await answer).status(), 403);
  await assert.rejects(stage.api("tasks/planted"), /no such task/);
  await strange.close();
  site.close();
});

test("a coordinator that restarts logs out, and one logs in again", async () => {
  await page.goto(at("fleet"));
  await page.getByRole("link", { name: "steady" }).waitFor();
  stage.hub.kill("SIGKILL");
  await see("Connection to the coordinator lost, retrying.");
  await stage.coordinator();
  await see("Your session has ended");
  await logIn(page, keys.operate);
  await page.getByRole("link", { name: "steady" }).waitFor();
});

test("one logs out", async () => {
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByLabel("API key").waitFor();
  assert.equal(await page.evaluate(() => fetch("api/v1/tasks").then((r) => r.status)), 401);
  await page.reload();
  await page.getByLabel("API key").waitFor();
  assert.deepEqual(page.wrong, []);
});
