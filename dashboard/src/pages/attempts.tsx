// Attempts of a task, derived from its history.

import { time, words } from "../format";
import type { Bar, Lane, Mark } from "../timeline";
import { lasting } from "../timeline";
import type { Checkpoint, HistoryEvent, Interval } from "../types";

export interface Attempt {
  epoch: number;
  worker: string | null;
  /** Unix milliseconds. */
  assigned: number;
  started: number | null;
  /** End of the attempt; none while it continues. */
  end: { at: number; event: string; reason: string; cause: string } | null;
}

const ENDS = new Set(["requeued", "succeeded", "failed", "cancelled", "superseded"]);

/** Attempts in the order of their assignment. */
export function attempts(events: HistoryEvent[]): Attempt[] {
  const all = new Map<number, Attempt>();
  for (const e of events) {
    const at = Date.parse(e.at);
    if (e.event === "assigned") {
      all.set(e.attempt, { epoch: e.attempt, worker: e.worker, assigned: at, started: null, end: null });
      continue;
    }
    const attempt = all.get(e.attempt);
    if (!attempt) continue;
    // A start carries the worker's clock, which may be off.
    if (e.event === "started") attempt.started = Math.max(at, attempt.assigned);
    // An end after the attempt was abandoned is shown as a separate mark.
    if (ENDS.has(e.event) && (!attempt.end || attempt.end.event !== "succeeded")) {
      const first = attempt.end;
      attempt.end = { at: first && e.event === "superseded" ? first.at : at, event: e.event, reason: e.reason, cause: e.cause };
    }
  }
  return [...all.values()];
}

export const LEGEND: [string, string][] = [
  ["waiting", "waiting on its worker"],
  ["running", "running"],
  ["good", "succeeded"],
  ["bad", "failed"],
  ["given-up", "abandoned"],
  ["outage", "worker unreachable"],
  ["idle", "cancelled or superseded"],
];

const KINDS: Record<string, string> = { succeeded: "good", failed: "bad", requeued: "given-up", cancelled: "idle", superseded: "idle" };

interface Told {
  checkpoints: Checkpoint[];
  events: HistoryEvent[];
}

/** One lane per attempt. `outages`: the intervals in which each worker was unreachable. */
export function lanes(tries: Attempt[], { checkpoints, events }: Told, outages: Map<string, Interval[]>, now: number): Lane[] {
  return tries.map((a) => {
    const end = a.end?.at ?? Math.max(now, a.assigned);
    const began = a.started ?? (a.end ? a.assigned : end);
    const bars: Bar[] = [];
    if (began > a.assigned) {
      bars.push({ from: a.assigned, to: Math.min(began, end), kind: "waiting", title: `attempt ${a.epoch} waited ${lasting(a.assigned, began)} on ${a.worker ?? "its worker"}` });
    }
    if (end > began || a.end) {
      const how = a.end ? (a.end.event === "requeued" ? "was abandoned" : words(a.end.event)) : "running";
      const why = a.end?.reason || words(a.end?.cause ?? "");
      bars.push({
        from: began,
        to: end,
        kind: a.end ? (KINDS[a.end.event] ?? "idle") : "running",
        title: `attempt ${a.epoch} on ${a.worker ?? "its worker"}: ${how} after ${lasting(began, end)}${why ? ` (${why})` : ""}`,
      });
    }
    for (const o of outages.get(a.worker ?? "") ?? []) {
      const [from, to] = [Math.max(o.from, a.assigned), Math.min(o.to ?? now, end)];
      if (to > from) bars.push({ from, to, kind: "outage", title: `${a.worker} was unreachable for ${lasting(from, to)}${o.cause ? ` (${words(o.cause)})` : ""}` });
    }
    const marks: Mark[] = checkpoints
      .filter((c) => c.attempt === a.epoch && !c.dropped)
      .map((c) => ({ at: Date.parse(c.recorded_at), sign: "◆", kind: "checkpoint", title: `checkpoint ${c.id} at ${time(c.recorded_at)}` }));
    for (const e of events) {
      // Abandoned, although it ended otherwise later.
      const revised = e.event === "requeued" && a.end?.event !== "requeued";
      const known = !revised && (e.event === "assigned" || e.event === "started" || ENDS.has(e.event));
      if (e.attempt === a.epoch && !known) {
        marks.push({ at: Date.parse(e.at), sign: "▾", kind: "remark", title: `${revised ? "abandoned" : words(e.event)} at ${time(e.at)}${e.reason ? `: ${e.reason}` : ""}` });
      }
    }
    const label = (
      <>
        <b>{a.epoch}</b> {a.worker ?? ""}
      </>
    );
    return { key: String(a.epoch), label, bars, marks };
  });
}
