// Tasks, with filters. The address keeps the filters, so that a list can be shared.

import { useEffect, useState } from "preact/hooks";
import { get } from "../api";
import { Badge, type Column, Panel, Progress, Table, Trouble } from "../ui";
import { ago, count, duration, percent, what, words } from "../format";
import { type Loaded, useLoad } from "../load";
import { requery, route, to } from "../route";
import { useStore } from "../store";
import type { CountsView, Task, TaskList } from "../types";

const STATES = ["pending", "assigned", "succeeded", "failed", "cancelled"] as const;
const PAGE = 100;
const FILTERS = ["prefix", "worker", "queue", "label"] as const;
const NAMES: Record<(typeof FILTERS)[number], [label: string, hint: string]> = {
  prefix: ["Id prefix", "train-"],
  worker: ["Worker", "name"],
  queue: ["Queue", "default"],
  label: ["Label", "key=value"],
};

export function TasksPage() {
  const { query } = useStore(route);
  const chosen = new Set((query.get("state") ?? "").split(",").filter(Boolean));
  const filter: Record<string, string> = {};
  for (const name of ["state", "paused", ...FILTERS]) filter[name] = query.get(name) ?? "";
  const paused = filter["paused"] === "true";
  const [cursors, setCursors] = useState<string[]>([]);
  const cursor = cursors.at(-1) ?? "";
  useEffect(() => {
    document.title = "Tasks · Outlast";
  }, []);

  const change = (name: string, value: string) => {
    setCursors([]);
    requery("tasks", "", { ...filter, [name]: value });
  };
  const toggle = (state: string) => {
    const next = new Set(chosen);
    if (!next.delete(state)) next.add(state);
    change("state", STATES.filter((s) => next.has(s)).join(","));
  };
  const wanted = new URLSearchParams(Object.entries({ ...filter, cursor, limit: String(PAGE) }).filter(([, v]) => v));
  const list = useLoad<TaskList>(`tasks?${wanted}`, (signal) => get(`api/v1/tasks?${wanted}`, signal), { every: cursor ? 0 : 3000 });
  const counts = useLoad<CountsView>("counts", (signal) => get("api/v1/counts", signal), { every: 3000 });

  return (
    <>
      <h1>Tasks</h1>
      <div class="toolbar" role="search">
        <div class="chips" role="group" aria-label="States">
          {STATES.map((state) => (
            <button type="button" key={state} class="chip" aria-pressed={chosen.has(state)} onClick={() => toggle(state)}>
              <Badge state={state} label={state} />
              <b>{counts.data ? count(counts.data[state]) : "–"}</b>
            </button>
          ))}
          <button type="button" class="chip apart" aria-pressed={paused} title="Paused tasks that are pending or assigned" onClick={() => change("paused", paused ? "" : "true")}>
            <Badge state="paused" />
            <b>{counts.data ? count(counts.data.paused) : "–"}</b>
          </button>
        </div>
        <div class="fields">
          {FILTERS.map((name) => (
            <Field key={name} label={NAMES[name][0]} hint={NAMES[name][1]} value={filter[name] ?? ""} set={(v) => change(name, v)} />
          ))}
        </div>
      </div>
      <Panel title={heading(chosen, paused)} class="flush">
        {list.error && <Trouble error={list.error} again={list.again} />}
        <TaskTable of={list} />
        <div class="pager">
          <button type="button" disabled={cursors.length === 0} onClick={() => setCursors(cursors.slice(0, -1))}>
            ← Newer
          </button>
          <button type="button" disabled={!list.data?.next} onClick={() => setCursors([...cursors, list.data?.next ?? ""])}>
            Older →
          </button>
        </div>
      </Panel>
    </>
  );
}

function heading(chosen: Set<string>, paused: boolean): string {
  if (chosen.size === 1 || (chosen.size === 0 && paused)) return `${[...(paused ? ["paused"] : []), ...chosen].join(" ")} tasks`;
  return paused ? "Paused, newest first" : "Newest first";
}

function Field({ label, hint, value, set }: { label: string; hint: string; value: string; set: (v: string) => void }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  // A filter that is still being typed matches nothing.
  useEffect(() => {
    if (text === value) return;
    const timer = window.setTimeout(() => set(text.trim()), 400);
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <label class="field">
      <span>{label}</span>
      <input type="search" value={text} placeholder={hint} spellcheck={false} onInput={(e) => setText(e.currentTarget.value)} />
    </label>
  );
}

/** State of a task in one word. */
export function standing(task: Task): string {
  if (task.cancelling) return "cancelling";
  if (task.paused && (task.state === "pending" || task.state === "assigned")) return "paused";
  return task.state === "assigned" && task.started_at ? "running" : task.state;
}

const took = (task: Task): string => {
  if (!task.started_at) return "";
  const end = task.ended_at ? Date.parse(task.ended_at) : Date.now();
  return duration(end - Date.parse(task.started_at));
};

export function TaskTable({ of, here }: { of: Loaded<TaskList>; here?: string }) {
  const tasks = of.data?.tasks;
  if (!tasks) return of.error ? null : <p class="loading">Loading…</p>;
  if (tasks.length === 0) return <p class="none">No tasks{here ? "" : " match"}.</p>;
  const columns: (Column<Task> | null)[] = [
    { label: "State", of: (t) => <Standing task={t} /> },
    { label: "Task", class: "id", of: (t) => <a href={to("task", t.id)}>{t.id}</a> },
    { label: "Command", class: "cut mono", title: (t) => what(t.spec), of: (t) => what(t.spec) },
    here ? null : { label: "Worker", of: (t) => (t.worker ? <a href={to("worker", t.worker)}>{t.worker}</a> : "–") },
    { label: "Attempt", set: "num", of: (t) => t.attempt || "–" },
    { label: "Duration", set: "num", of: (t) => took(t) || "–" },
    {
      label: "Submitted",
      set: "num",
      of: (t) => (
        <time datetime={t.submitted_at} title={t.submitted_at}>
          {ago(t.submitted_at)}
        </time>
      ),
    },
  ];
  return <Table label="Tasks" rows={tasks} id={(t) => t.id} columns={columns} />;
}

function Standing({ task }: { task: Task }) {
  return (
    <>
      <Badge state={standing(task)} />
      {task.state === "failed" && task.cause && <span class="muted cause">{words(task.cause)}</span>}
      {task.progress !== undefined && task.state === "assigned" && (
        <span class="inline-progress">
          <Progress share={task.progress} label={`Progress of ${task.id}`} /> {percent(task.progress)}
        </span>
      )}
    </>
  );
}
