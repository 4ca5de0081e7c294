// One task: its state, its history, its attempts over time, and actions.

import { useEffect } from "preact/hooks";
import { get, readResult, seg, type TextResult } from "../api";
import { type AnyRun, bytes, count, duration, ms, percent, time, what, words } from "../format";
import { useLoad } from "../load";
import { to } from "../route";
import { Legend, type Lane, Timeline } from "../timeline";
import type { Checkpoint, Explanation, HistoryEvent, Interval, Task, TaskSpec, TaskStateView, WorkerTimeline } from "../types";
import { type Action, Actions, Await, Badge, type Column, Facts, Panel, Progress, Table, Trouble, useKnown } from "../ui";
import { type Attempt, attempts, lanes, LEGEND } from "./attempts";
import { Kept, Log } from "./outputs";
import { standing } from "./tasks";

interface All {
  task: Task;
  story: Explanation;
  events: HistoryEvent[];
  checkpoints: Checkpoint[];
  artifacts: Checkpoint[];
  state: TaskStateView;
  result: TextResult | null;
}

const over = (task: Task): boolean => ["succeeded", "failed", "cancelled"].includes(task.state);

async function all(id: string, signal: AbortSignal): Promise<All> {
  const at = `api/v1/tasks/${seg(id)}`;
  const task = await get<Task>(at, signal);
  const [story, history, checkpoints, artifacts, state, result] = await Promise.all([
    get<Explanation>(`${at}/explain`, signal),
    get<{ events: HistoryEvent[] }>(`${at}/history`, signal),
    get<{ checkpoints: Checkpoint[] }>(`${at}/checkpoints`, signal),
    get<{ artifacts: Checkpoint[] }>(`${at}/artifacts`, signal),
    get<TaskStateView>(`${at}/state`, signal),
    over(task) && task.has_result ? get(`${at}/result`, signal, readResult) : null,
  ]);
  const { events } = history;
  return { task, story, events, checkpoints: checkpoints.checkpoints, artifacts: artifacts.artifacts, state, result };
}

export function TaskPage({ id }: { id: string }) {
  useEffect(() => {
    document.title = `${id} · Outlast`;
  }, [id]);
  const loaded = useLoad(`task ${id}`, (signal) => all(id, signal), { every: 10_000, events: ["task", "worker"] });
  return (
    <Await of={loaded}>
      {(data) => (
        <>
          {loaded.error && <Trouble error={loaded.error} again={loaded.again} />}
          <Head task={data.task} again={loaded.again} />
          <div class="columns">
            <div class="stack">
              <Story story={data.story} />
              <Log task={data.task} />
            </div>
            <About task={data.task} state={data.state} result={data.result} />
          </div>
          <Attempts data={data} />
          <Kept title="Checkpoints" of={data.checkpoints} task={id} />
          <Kept title="Artifacts" of={data.artifacts} task={id} />
          <Events of={data.events} />
        </>
      )}
    </Await>
  );
}

function Head({ task, again }: { task: Task; again: () => void }) {
  const at = `api/v1/tasks/${seg(task.id)}`;
  const actions: Action[] = [];
  if (!over(task)) {
    if (task.paused) actions.push({ label: "Resume", path: `${at}/resume`, done: "The task resumes.", needs: "submit" });
    else actions.push({ label: "Pause", path: `${at}/pause`, done: "The task is being paused.", needs: "submit" });
    if (task.state === "assigned") {
      actions.push({ label: "Checkpoint", path: `${at}/checkpoint`, done: "A checkpoint was requested.", needs: "submit" });
      actions.push({
        label: "Move",
        path: `${at}/move`,
        done: "The task is being moved.",
        needs: "submit",
        confirm: `Move ${task.id} to another worker? It resumes there from its newest checkpoint; work since then is repeated.`,
      });
    }
    if (!task.cancelling) {
      actions.push({
        label: "Cancel",
        path: `${at}/cancel`,
        done: "The task is being cancelled.",
        needs: "submit",
        danger: true,
        confirm: `Cancel ${task.id}? Its work is lost, except for its checkpoints.`,
      });
    }
  } else if (task.state !== "succeeded") {
    actions.push({ label: "Retry", path: `${at}/retry`, done: "The task will run again.", needs: "submit" });
  }
  return (
    <div class="head">
      <div>
        <p class="crumb">
          <a href={to("tasks")}>Tasks</a>
        </p>
        <h1 class="id">{task.id}</h1>
        <p class="sub">
          <Badge state={standing(task)} />
          {task.worker && (
            <span>
              {over(task) ? "was on" : "on"} <a href={to("worker", task.worker)}>{task.worker}</a>
            </span>
          )}
          {task.attempt > 0 && <span>attempt {task.attempt}</span>}
          {task.progress !== undefined && !over(task) && (
            <span class="inline-progress wide">
              <Progress share={task.progress} label="Progress" /> {percent(task.progress)}
            </span>
          )}
        </p>
      </div>
      <Actions of={actions} then={again} />
    </div>
  );
}

function Story({ story }: { story: Explanation }) {
  return (
    <Panel title="Summary" aside={<span class="muted">times in UTC</span>}>
      <ol class="story">
        {story.sentences.map((sentence, n) => (
          <li key={n}>{sentence}</li>
        ))}
      </ol>
      <p class="now">
        <strong>Now:</strong> {story.now}
      </p>
      {story.hint && (
        <p class="hint">
          <strong>Possible action:</strong> {story.hint}
        </p>
      )}
    </Panel>
  );
}

function About({ task, state, result }: { task: Task; state: TaskStateView; result: TextResult | null }) {
  const { command, shell, call, labels, requires, queue, env, ...more }: TaskSpec & AnyRun = task.spec;
  const pairs = (of: Record<string, unknown> | undefined) =>
    Object.entries(of ?? {}).map(([k, v]) => (
      <span class="tag" key={k}>
        {k} {String(v)}
      </span>
    ));
  const facts: [string, preact.ComponentChildren][] = [["Command", <code class="wrap long" tabIndex={0}>{what(task.spec)}</code>]];
  if (call?.args !== undefined) facts.push(["Arguments", <code class="wrap">{JSON.stringify(call.args)}</code>]);
  facts.push(["Submitted", time(task.submitted_at)]);
  if (task.started_at) facts.push(["Started", time(task.started_at)]);
  if (task.ended_at) facts.push(["Ended", time(task.ended_at)]);
  if (task.retries) facts.push(["Losses", count(task.retries)]);
  if (queue) facts.push(["Queue", queue]);
  if (labels) facts.push(["Labels", pairs(labels)]);
  if (requires) facts.push(["Requires", pairs(requires)]);
  if (env) facts.push(["Environment", pairs(env)]);
  if (Object.keys(more).length) facts.push(["Options", pairs(Object.fromEntries(Object.entries(more).map(([k, v]) => [k, typeof v === "object" ? JSON.stringify(v) : v])))]);
  if (result) {
    if (result.exit_code !== null) facts.push(["Exit code", count(result.exit_code)]);
    if (result.signal !== null) facts.push(["Signal", count(result.signal)]);
    if (result.message) facts.push(["Says", result.message]);
    if (result.duration_ms !== null) facts.push(["Took", duration(result.duration_ms)]);
    if (result.cpu_ms) facts.push(["Processor time", ms(result.cpu_ms)]);
    if (result.max_rss_bytes) facts.push(["Peak memory", bytes(result.max_rss_bytes)]);
    if (result.value !== null) facts.push(["Value", <code class="wrap">{result.value}</code>]);
  }
  const entries = Object.entries(state.state);
  return (
    <Panel title={result ? "Result" : "Task"}>
      <Facts of={facts} />
      {entries.length > 0 && (
        <>
          <h3>
            State <span class="muted">reported by attempt {state.attempt}{state.at ? ` at ${time(state.at)}` : ""}</span>
          </h3>
          <Facts of={entries.map(([k, v]) => [k, <code class="wrap">{typeof v === "string" ? v : JSON.stringify(v)}</code>])} />
        </>
      )}
    </Panel>
  );
}

/** Causes that add nothing to their event. */
const PLAIN = new Set(["", "done", "cancelled", "superseded"]);

/** True if there is neither a reason nor a cause that adds anything. */
function silent(of: { reason: string; cause: string } | null): boolean {
  return !of?.reason && PLAIN.has(of?.cause ?? "");
}

function Why({ of }: { of: { reason: string; cause: string } | null }) {
  const cause = of && !PLAIN.has(of.cause) ? words(of.cause) : "";
  if (!of?.reason) return <>{cause || "–"}</>;
  return (
    <>
      {of.reason}
      {cause && <span class="muted cause">{cause}</span>}
    </>
  );
}

/** Intervals in which each worker was unreachable; unknown for forgotten workers. */
async function outagesOf(workers: string[], from: number, signal: AbortSignal): Promise<Map<string, Interval[]>> {
  const one = async (name: string): Promise<[string, Interval[]]> => {
    const line = await get<WorkerTimeline>(`api/v1/workers/${seg(name)}/timeline?from=${from}`, signal).catch(() => null);
    return [name, (line?.intervals ?? []).filter((i) => i.state === "suspect" || i.state === "away")];
  };
  return new Map(await Promise.all(workers.map(one)));
}

function Attempts({ data }: { data: All }) {
  const now = useKnown(1000);
  const tries = attempts(data.events);
  const workers = [...new Set(tries.map((a) => a.worker).filter((w) => w !== null))].slice(-8);
  const outages = useLoad(
    `outages ${data.task.id} ${workers.join()}`,
    (signal) => outagesOf(workers, Date.parse(data.task.submitted_at), signal),
    { every: over(data.task) ? 0 : 5000, events: ["task"], pace: 1000 },
  );
  if (tries.length === 0) return null;
  const to_ = over(data.task) && data.task.ended_at ? Date.parse(data.task.ended_at) : now;
  const from = Date.parse(data.task.submitted_at);
  const pad = Math.max(500, (to_ - from) * 0.02);
  const columns: Column<Attempt>[] = [
    { label: "Attempt", set: "when", of: (a) => a.epoch },
    { label: "Worker", of: (a) => (a.worker ? <a href={to("worker", a.worker)}>{a.worker}</a> : "–") },
    {
      label: "Ended",
      of: ({ end }) => (end?.event === "requeued" ? <Badge state="superseded" label="abandoned" /> : <Badge state={end?.event ?? standing(data.task)} />),
    },
    { label: "Why", blank: (a) => silent(a.end), of: (a) => <Why of={a.end} /> },
    { label: "Assigned", set: "num", of: (a) => time(a.assigned) },
    { label: "Duration", set: "num", of: (a) => duration((a.end?.at ?? now) - a.assigned) },
    { label: "Checkpoints", set: "num", of: (a) => data.checkpoints.filter((c) => c.attempt === a.epoch).length || "–" },
  ];
  const drawn: Lane[] = lanes(tries, data, outages.data ?? new Map(), to_);
  return (
    <Panel title="Attempts">
      <Timeline title="Attempts over time" from={from} to={to_ + pad} lanes={drawn} />
      <Legend of={LEGEND} />
      <Table label="Attempts in words" rows={tries} id={(a) => a.epoch} columns={columns} />
    </Panel>
  );
}

const EVENTS: Column<HistoryEvent>[] = [
  {
    label: "At",
    set: "when",
    of: (e) => (
      <time datetime={e.at} title={e.at}>
        {time(e.at)}
      </time>
    ),
  },
  { label: "What", of: (e) => words(e.event) },
  { label: "Attempt", set: "num", of: (e) => e.attempt || "–" },
  { label: "Worker", of: (e) => (e.worker ? <a href={to("worker", e.worker)}>{e.worker}</a> : "–") },
  { label: "Why", blank: silent, of: (e) => <Why of={e} /> },
];

function Events({ of }: { of: HistoryEvent[] }) {
  const shown = [...of].reverse().slice(0, 200);
  return (
    <Panel title="History" class="flush" aside={<span class="muted">newest first</span>}>
      <Table label="History" rows={shown} id={(_, n) => of.length - n} columns={EVENTS} />
    </Panel>
  );
}
