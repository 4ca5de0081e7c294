// One worker: its link over time with causes, its quality, its tasks.

import { useEffect, useMemo, useState } from "preact/hooks";
import { get, seg } from "../api";
import { Chart } from "../chart";
import { ago, bytes, count, duration, ms, percent, rate, time, words } from "../format";
import { useLoad } from "../load";
import { to } from "../route";
import { Legend, Timeline } from "../timeline";
import type { Adaptation, Interval, LinkNote, TaskList, Worker, WorkerEvent, WorkerMetrics, WorkerTimeline } from "../types";
import { type Action, Actions, Await, Badge, Choice, type Column, Facts, Panel, Table, Trouble, useKnown } from "../ui";
import { TaskTable } from "./tasks";

export function WorkerPage({ name }: { name: string }) {
  useEffect(() => {
    document.title = `${name} · Outlast`;
  }, [name]);
  const at = `api/v1/workers/${seg(name)}`;
  const matters = (data: unknown) => (data as WorkerEvent).name === name;
  const loaded = useLoad<Worker>(`worker ${name}`, (signal) => get(at, signal), { every: 3000, events: ["worker"], matters });
  return (
    <Await of={loaded}>
      {(worker) => (
        <>
          {loaded.error && <Trouble error={loaded.error} again={loaded.again} />}
          <Head worker={worker} again={loaded.again} />
          <Link name={name} />
          <Quality worker={worker} />
          <Tasks name={name} />
        </>
      )}
    </Await>
  );
}

function Head({ worker, again }: { worker: Worker; again: () => void }) {
  const at = `api/v1/workers/${seg(worker.name)}`;
  const actions: Action[] = [];
  if (worker.drained) actions.push({ label: "Resume", path: `${at}/undrain`, done: "The worker gets tasks again.", needs: "operate" });
  else actions.push({ label: "Drain", path: `${at}/drain`, done: "The worker gets no new tasks.", needs: "operate" });
  if (worker.state === "suspect" || worker.state === "away") {
    actions.push({
      label: "Forget",
      method: "DELETE",
      path: at,
      done: "The worker was removed; its tasks are reassigned.",
      needs: "operate",
      danger: true,
      confirm: `Forget ${worker.name}? The ${count(worker.held)} attempts that it holds are reassigned at once. If it returns, it is a new worker.`,
    });
  }
  return (
    <div class="head">
      <div>
        <p class="crumb">
          <a href={to("fleet")}>Fleet</a>
        </p>
        <h1 class="id">{worker.name}</h1>
        <p class="sub">
          <Badge state={worker.state} />
          {worker.gone_at && (
            <span>
              since {time(worker.gone_at)} ({ago(worker.gone_at)}): {worker.gone_reason || words(worker.gone_cause)}
              {worker.gone_reason && worker.gone_cause && <span class="muted cause">{words(worker.gone_cause)}</span>}
            </span>
          )}
          {worker.unfit && !worker.gone_at && (
            <span class="bad-text">
              {worker.unfit}
              {worker.unfit_since && <span class="muted"> since {time(worker.unfit_since)} ({ago(worker.unfit_since)})</span>}
            </span>
          )}
          {worker.drained && worker.state !== "draining" && <span>drained by an operator</span>}
        </p>
      </div>
      <Actions of={actions} then={again} />
    </div>
  );
}

const SPANS = [
  ["10", "10 min"],
  ["60", "1 h"],
  ["1440", "1 day"],
  ["10080", "1 week"],
] as const;
type Span = (typeof SPANS)[number][0];

const LEGEND: [string, string][] = [
  ["connected", "connected"],
  ["resync", "delivering unacknowledged results"],
  ["suspect", "suspect: away, holding tasks"],
  ["away", "away"],
  ["unknown", "unknown"],
];

const STATE_WORDS: Record<string, string> = { resync: "reconnected, delivering unacknowledged results", unknown: "unknown: the coordinator was not running" };

function Link({ name }: { name: string }) {
  const [span, setSpan] = useState<Span>("10");
  const now = useKnown(1000);
  const loaded = useLoad<WorkerTimeline>(
    `timeline ${name} ${span}`,
    (signal) => get(`api/v1/workers/${seg(name)}/timeline?from=${Date.now() - Number(span) * 60_000}`, signal),
    { every: 2000, events: ["worker"], matters: (data) => (data as WorkerEvent).name === name, pace: 400 },
  );
  const aside = <Choice label="Time shown" of={SPANS} value={span} set={setSpan} />;
  return (
    <Panel title="Link" aside={aside}>
      <Await of={loaded}>
        {(timeline) => (
          <>
            <Timeline
              title="States of the link over time"
              from={begin(timeline.intervals, now, Number(span) * 60_000)}
              to={now}
              lanes={[{ key: "link", label: null, bars: timeline.intervals.map((i) => bar(i, now)), marks: timeline.notes.map(mark) }]}
            />
            <Legend of={LEGEND} marks={timeline.notes.length ? [["adapted", "▾", "adapted to the link"]] : []} />
            <Losses of={timeline} now={now} />
          </>
        )}
      </Await>
    </Panel>
  );
}

/** The timeline of a young worker begins with its first interval. */
function begin(of: Interval[], now: number, span: number): number {
  const first = of[0]?.from ?? now - span;
  return Math.max(now - span, Math.min(first, now - 60_000));
}

function bar(i: Interval, now: number) {
  const end = i.to ?? now;
  const why = [i.cause && words(i.cause), i.reason].filter(Boolean).join(": ");
  return { from: i.from, to: end, kind: i.state, title: `${time(i.from)} ${STATE_WORDS[i.state] ?? i.state} for ${duration(end - i.from)}${why ? ` (${why})` : ""}` };
}

const mark = (note: LinkNote) => ({ at: note.at, sign: "▾", kind: "adapted", title: `${time(note.at)} ${note.text}` });

/** The reason of a resync is its duration, which has a column of its own. */
const why = (i: Interval): string => (i.state === "resync" ? `unacknowledged results ${i.to === null ? "are being" : "were"} delivered` : i.reason || (i.cause ? words(i.cause) : "–"));

/** Round-trip times come with heartbeats: each one applies until the next, while the link is up. */
function held(values: (number | null)[], connected: (number | null)[]): (number | null)[] {
  let last: number | null = null;
  let age = 0;
  return values.map((value, n) => {
    if (value !== null) [last, age] = [value, 0];
    else if (!connected[n] || ++age > 20) last = null;
    return last;
  });
}

/** Events of the link and adaptations to it. */
type Story = { at: number; state: Interval } | { at: number; note: LinkNote };

/** Newest first; the number of notes is limited, so that states stay visible. */
function story({ intervals, notes }: WorkerTimeline): Story[] {
  const states: Story[] = intervals.slice(-12).map((state) => ({ at: state.from, state }));
  const told: Story[] = notes.slice(-12).map((note) => ({ at: note.at, note }));
  return [...states, ...told].sort((a, b) => b.at - a.at);
}

function Losses({ of, now }: { of: WorkerTimeline; now: number }) {
  const lasted = (i: Interval) => (i.to === null ? `${duration(now - i.from)} so far` : duration(i.to - i.from));
  const columns: Column<Story>[] = [
    { label: "From", set: "when", of: (s) => time(s.at) },
    { label: "State", of: (s) => <Badge state={"state" in s ? s.state.state : "adapted"} /> },
    { label: "Duration", set: "num", of: (s) => ("state" in s ? lasted(s.state) : "–") },
    { label: "Cause", blank: (s) => "state" in s && s.state.state === "connected", of: (s) => ("state" in s ? <Why of={s.state} /> : s.note.text) },
  ];
  return <Table label="States of the link in words" rows={story(of)} id={(s, n) => ("state" in s ? `${s.at}${s.state.state}` : `${s.at}${s.note.text}${n}`)} columns={columns} />;
}

function Why({ of: i }: { of: Interval }) {
  return (
    <>
      {why(i)}
      {i.reason && i.cause && <span class="muted cause">{words(i.cause)}</span>}
    </>
  );
}

type Resolution = "1s" | "1m" | "1h";

function Quality({ worker }: { worker: Worker }) {
  const [resolution, setResolution] = useState<Resolution>("1s");
  const loaded = useLoad<WorkerMetrics>(
    `metrics ${worker.name} ${resolution}`,
    (signal) => get(`api/v1/workers/${seg(worker.name)}/metrics?resolution=${resolution}`, signal),
    { every: resolution === "1s" ? 1000 : 10_000, pace: 900 },
  );
  const aside = (
    <Choice
      label="Resolution"
      of={[
        ["1s", "seconds"],
        ["1m", "minutes"],
        ["1h", "hours"],
      ]}
      value={resolution}
      set={setResolution}
    />
  );
  return (
    <>
      <Adapted to={loaded.data?.adaptation ?? []} />
      <Panel title="Quality" aside={aside}>
        <Await of={loaded}>{(metrics) => <Measured worker={worker} metrics={metrics} />}</Await>
      </Panel>
    </>
  );
}

const ADAPTED: Column<Adaptation>[] = [
  { label: "Setting", set: "when", of: (a) => words(a.setting) },
  { label: "Side", set: "when", of: (a) => a.side },
  {
    label: "Change",
    of: (a) => (
      <>
        {a.from} <span aria-hidden="true">→</span>
        <span class="sr">became</span> <b>{a.to}</b>
      </>
    ),
  },
  { label: "Why", of: (a) => a.why },
  {
    label: "Since",
    set: "num",
    of: (a) => (
      <time datetime={a.at} title={a.at}>
        {ago(a.at)}
      </time>
    ),
  },
];

/** Settings that currently differ from the configuration because of the link. */
function Adapted({ to: all }: { to: Adaptation[] }) {
  if (all.length === 0) return null;
  return (
    <Panel title="Adapted to the link" class="flush" aside={<span class="muted">currently different from the configuration</span>}>
      <Table label="Adapted settings" rows={all} id={(a) => `${a.side} ${a.setting}`} columns={ADAPTED} />
    </Panel>
  );
}

function Measured({ worker, metrics: m }: { worker: Worker; metrics: WorkerMetrics }) {
  const s = m.series;
  const l = m.link;
  const charts = useMemo(
    () => [
      {
        title: "Round-trip time",
        lines: [
          { label: "mean", ink: "--accent", values: held(s.rtt_ms, s.connected), area: true },
          { label: "longest", ink: "--muted", values: held(s.rtt_max_ms, s.connected), dashed: true },
        ],
        say: ms,
        least: 5,
        whole: false,
      },
      {
        title: "Goodput",
        lines: [
          { label: "from worker", ink: "--good", values: s.goodput_up, area: true },
          { label: "to worker", ink: "--note", values: s.goodput_down },
        ],
        say: rate,
        least: 1024,
        whole: false,
      },
      { title: "Suspicion (φ)", lines: [{ label: "highest", ink: "--warn", values: s.suspicion, area: true }], say: (v: number) => v.toFixed(1), least: 3, whole: false },
      { title: "Running tasks", lines: [{ label: "running", ink: "--accent", values: s.running, area: true }], say: (v: number) => v.toFixed(0), least: Math.max(1, worker.slots), whole: true },
    ],
    [s, worker.slots],
  );
  return (
    <>
      <div class="figures spread">
        <Value name="RTT median" value={l.rtt ? ms(l.rtt.median) : "–"} />
        <Value name="p95" value={l.rtt ? ms(l.rtt.p95) : "–"} />
        <Value name="jitter" value={l.rtt ? ms(l.rtt.jitter) : "–"} />
        <Value name="stability" value={percent(m.connection_stability)} />
        <Value name="heartbeats lost" value={l.loss === null ? "–" : percent(l.loss)} />
        <Value name="reconnects in the last minute" value={count(l.reconnects_per_minute)} />
        <Value name="connections accepted" value={percent(l.connection_success_rate)} />
        <Value name="resync time" value={l.resync_ms === null ? "–" : duration(l.resync_ms)} />
      </div>
      <div class="charts">
        {charts.map((c) => (
          <Chart key={c.title} title={c.title} at={s.at} lines={c.lines} say={c.say} least={c.least} whole={c.whole} height={120} empty="Measured every second while this page is open." />
        ))}
      </div>
      <div class="columns">
        <div>
          <h3>Worker</h3>
          <Facts of={about(worker)} />
        </div>
        <div>
          <h3>Totals</h3>
          <Facts of={counted(m)} />
        </div>
      </div>
    </>
  );
}

function Value({ name, value }: { name: string; value: string }) {
  return (
    <div class="figure">
      <b>{value}</b>
      <span>{name}</span>
    </div>
  );
}

function tags(of: Record<string, unknown>) {
  return Object.entries(of).map(([k, v]) => (
    <span class="tag" key={k}>
      {k} {typeof v === "object" ? JSON.stringify(v) : String(v)}
    </span>
  ));
}

function about(w: Worker): [string, preact.ComponentChildren][] {
  const facts: [string, preact.ComponentChildren][] = [
    ["Slots", `${count(w.running)} of ${count(w.slots)} in use`],
    ["Queued tasks", count(w.queued)],
    ["Unacknowledged results", count(w.unacked)],
    ["Version", w.version || "–"],
    ["Incarnation", `${count(w.incarnation)}, connection ${count(w.connection)}`],
  ];
  if (w.seen_at) facts.push(["Last handshake", time(w.seen_at)]);
  if (w.disk) facts.push(["Blob storage", `${bytes(w.disk.used)}${w.disk.budget ? ` of ${bytes(w.disk.budget)}` : ""}${w.disk.refused ? `, ${count(w.disk.refused)} refused` : ""}`]);
  if (Object.keys(w.labels).length) facts.push(["Labels", tags(w.labels)]);
  if (Object.keys(w.capabilities ?? {}).length) facts.push(["Has", tags(w.capabilities)]);
  return facts;
}

function counted(m: WorkerMetrics): [string, preact.ComponentChildren][] {
  const l = m.link;
  const facts: [string, preact.ComponentChildren][] = [
    ["Connections", `${count(m.successful_connections)} of ${count(m.connection_attempts)} attempts, ${count(l.reconnects)} reconnects`],
    ["Reconnect time", m.avg_reconnect_time === null ? "–" : `${duration(m.avg_reconnect_time * 1000)} on average, ${duration((m.max_reconnect_time ?? 0) * 1000)} at most`],
    ["Messages", `${count(m.messages_received)} from the worker, ${count(m.messages_sent)} to the worker, ${count(m.message_errors)} errors`],
    ["Bytes", `${bytes(l.bytes_up)} from the worker, ${bytes(l.bytes_down)} to the worker`],
    ["Tasks", `${count(m.tasks_executed)} executed${m.task_success_rate === null ? "" : `, ${percent(m.task_success_rate)} succeeded`}`],
    ["Task duration", m.avg_task_execution_time_ms === null ? "–" : `${duration(m.avg_task_execution_time_ms)} on average`],
    ["Checkpoints", `${count(m.checkpoints_created)} created, ${count(m.checkpoints_restored)} restored`],
  ];
  const ends = Object.entries(l.disconnects);
  if (ends.length) facts.push(["Disconnect causes", ends.map(([cause, n]) => <span class="tag" key={cause}>{words(cause) || "unknown"} {count(n)}</span>)]);
  if (m.compression_ratio !== null) facts.push(["Compression", `${m.compression_ratio.toFixed(2)} to 1`]);
  return facts;
}

function Tasks({ name }: { name: string }) {
  const list = useLoad<TaskList>(`tasks of ${name}`, (signal) => get(`api/v1/tasks?worker=${encodeURIComponent(name)}&limit=50`, signal), { every: 3000 });
  const aside = <a href={to("tasks", "", { worker: name })}>All tasks</a>;
  return (
    <Panel title="Tasks" class="flush" aside={aside}>
      {list.error && <Trouble error={list.error} again={list.again} />}
      <TaskTable of={list} here={name} />
    </Panel>
  );
}
