// A task's attempts, made from its history.

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
  /** How it ended; none while it goes on. */
  end: { at: number; event: string; reason: string; cause: string } | null;
}

const ENDS = new Set(["requeued", "succeeded", "failed", "cancelled", "superseded"]);

/** In the order in which they were given out. */
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
    // What came after it was given up is told as a remark of its own.
    if (ENDS.has(e.event) && (!attempt.end || attempt.end.event !== "succeeded")) {
      const first = attempt.end;
      attempt.end = { at: first && e.event === "superseded" ? first.at : at, event: e.event, reason: e.reason, cause: e.cause };
    }
  }
  return [...all.values()];
}

export const LEGEND: [string, string][] = [
  ["waiting", "waits for its turn"],
  ["running", "runs"],
  ["good", "succeeded"],
  ["bad", "failed"],
  ["given-up", "given up"],
  ["outage", "its worker could not be reached"],
  ["idle", "cancelled or superseded"],
];

const KINDS: Record<string, string> = { succeeded: "good", failed: "bad", requeued: "given-up", cancelled: "idle", superseded: "idle" };

interface Told {
  checkpoints: Checkpoint[];
  events: HistoryEvent[];
}

/** A lane each. `outages`: when each worker could not be reached. */
export function lanes(tries: Attempt[], { checkpoints, events }: Told, outages: Map<string, Interval[]>, now: number): Lane[] {
  return tries.map((a) => {
    const end = a.end?.at ?? Math.max(now, a.assigned);
    const began = a.started ?? (a.end ? a.assigned : end);
    const bars: Bar[] = [];
    if (began > a.assigned) {
      bars.push({ from: a.assigned, to: Math.min(began, end), kind: "waiting", title: `attempt ${a.epoch} waited ${lasting(a.assigned, began)} on ${a.worker ?? "its worker"}` });
    }
    if (end > began || a.end) {
      const how = a.end ? (a.end.event === "requeued" ? "was given up" : words(a.end.event)) : "runs";
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
      if (to > from) bars.push({ from, to, kind: "outage", title: `${a.worker} could not be reached for ${lasting(from, to)}${o.cause ? ` (${words(o.cause)})` : ""}` });
    }
    const marks: Mark[] = checkpoints
      .filter((c) => c.attempt === a.epoch && !c.dropped)
      .map((c) => ({ at: Date.parse(c.recorded_at), sign: "◆", kind: "checkpoint", title: `checkpoint ${c.id} at ${time(c.recorded_at)}` }));
    for (const e of events) {
      // Given up, and yet it ended otherwise.
      const revised = e.event === "requeued" && a.end?.event !== "requeued";
      const known = !revised && (e.event === "assigned" || e.event === "started" || e.event === "checkpoint" || ENDS.has(e.event));
      if (e.attempt === a.epoch && !known) {
        marks.push({ at: Date.parse(e.at), sign: "▾", kind: "remark", title: `${revised ? "given up" : words(e.event)} at ${time(e.at)}${e.reason ? `: ${e.reason}` : ""}` });
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
