// Summaries of all workers, kept up to date by the event stream. Ten thousand of them should cost a few
// milliseconds per second: rows are changed in place, and a version number is incremented with each change.

import { get } from "../api";
import { on } from "../live";
import { Store } from "../store";
import type { FleetColumns, FleetEvent, FleetPage, FleetTotals, LinkCause, WorkerState, WorstSeverity } from "../types";

export interface Row {
  id: string;
  name: string;
  state: WorkerState;
  slots: number;
  running: number;
  held: number;
  rtt: number | null;
  suspicion: number | null;
  stability: number;
  reconnects: number;
  goodput: number;
  alert: WorstSeverity;
  since: number | null;
  cause: LinkCause;
  /** Position in the order of names. */
  rank: number;
  /** Text that filters search. */
  text: string;
  /** Version of the fleet at the row's last change. */
  changed: number;
}

const byName = new Intl.Collator("en", { numeric: true });

export class Fleet {
  /** Rows in the order of names. */
  rows: Row[] = [];
  totals: FleetTotals | null = null;
  /** Incremented with each change. */
  readonly version = new Store(0);
  #byId = new Map<string, Row>();
  #tick = -1;
  /** Events that arrived while the fleet was being loaded. */
  #early: FleetEvent[] | null = [];

  /** Subscribes to the stream; the returned function unsubscribes. */
  start(): () => void {
    return on("fleet", (data) => {
      const event = data as FleetEvent;
      if (this.#early) this.#early.push(event);
      else this.#apply(event);
    });
  }

  /** Reloads the whole fleet. */
  async load(signal: AbortSignal): Promise<void> {
    this.#early = [];
    const pages: FleetPage[] = [];
    let cursor = "";
    do {
      const page: FleetPage = await get(`api/v1/fleet?limit=20000${cursor}`, signal);
      pages.push(page);
      cursor = page.next ? `&cursor=${encodeURIComponent(page.next)}` : "";
    } while (cursor);
    const early = this.#early;
    this.#early = null;
    this.#byId.clear();
    for (const page of pages) this.#put(page.workers);
    this.#sort();
    // Pages are loaded at different times: the events since the first one make them consistent.
    this.#tick = pages[0]?.tick ?? -1;
    this.totals = pages.at(-1)?.totals ?? null;
    for (const event of early) this.#apply(event);
    this.version.set(this.version.get() + 1);
  }

  #apply(event: FleetEvent): void {
    if (event.tick <= this.#tick) return;
    this.#tick = event.tick;
    this.totals = event.totals;
    let moved = this.#put(event.workers);
    for (const id of event.gone) moved = this.#byId.delete(id) || moved;
    if (moved) this.#sort();
    this.version.set(this.version.get() + 1);
  }

  /** True if the order by name changed. */
  #put(c: FleetColumns): boolean {
    let moved = false;
    for (let n = 0; n < c.id.length; n++) {
      const id = c.id[n] as string;
      const name = c.name[n] as string;
      let row = this.#byId.get(id);
      if (!row || row.name !== name) {
        moved = true;
        row = { id, name, text: name.toLowerCase(), rank: 0 } as Row;
        this.#byId.set(id, row);
      }
      row.state = c.state[n] as WorkerState;
      row.slots = c.slots[n] as number;
      row.running = c.running[n] as number;
      row.held = c.held[n] as number;
      row.rtt = c.rtt_ms[n] ?? null;
      row.suspicion = c.suspicion[n] ?? null;
      row.stability = c.stability[n] as number;
      row.reconnects = c.reconnects_per_minute[n] as number;
      row.goodput = c.goodput[n] as number;
      row.alert = c.alert[n] as WorstSeverity;
      row.since = c.since[n] ?? null;
      row.cause = c.cause[n] as LinkCause;
      row.changed = this.version.get() + 1;
    }
    return moved;
  }

  #sort(): void {
    this.rows = [...this.#byId.values()].sort((a, b) => byName.compare(a.name, b.name));
    for (const [rank, row] of this.rows.entries()) row.rank = rank;
  }
}

export type Column = "name" | "state" | "load" | "held" | "rtt" | "stability" | "reconnects" | "goodput" | "since";

/** Sort keys; rows that need attention come first. */
const URGENCY: Record<WorkerState, number> = { unfit: 0, suspect: 0, away: 1, draining: 2, connected: 3 };
const ALERTS: Record<WorstSeverity, number> = { critical: 0, warning: 1, info: 2, "": 3 };

const KEYS: Record<Column, (row: Row) => number> = {
  name: (r) => r.rank,
  state: (r) => ALERTS[r.alert] + 4 * URGENCY[r.state],
  load: (r) => -r.running / Math.max(1, r.slots),
  held: (r) => -r.held,
  rtt: (r) => -(r.rtt ?? -1),
  stability: (r) => r.stability,
  reconnects: (r) => -r.reconnects,
  goodput: (r) => -r.goodput,
  since: (r) => -(r.since ?? 0),
};

/** Key of rows that do not match, different from all others. */
const NONE = Number.POSITIVE_INFINITY;

/** Finds matching rows, in order. Returns the same array until the result changes. */
export class Chooser {
  #asked = "";
  #rows: Row[] = [];
  #keys = new Float64Array();
  #shown: Row[] = [];

  /** `rows` is in the order of names, and a new array once that order changes. */
  choose(rows: Row[], text: string, states: Set<string>, by: Column, reverse: boolean): Row[] {
    const wanted = text.trim().toLowerCase();
    const matches = (r: Row) => (!states.size || states.has(r.state)) && (!wanted || r.text.includes(wanted) || r.cause.includes(wanted));
    const key = KEYS[by];
    const keys = new Float64Array(rows.length);
    for (const [n, row] of rows.entries()) keys[n] = matches(row) ? key(row) : NONE;
    const asked = JSON.stringify([wanted, [...states], by, reverse]);
    if (rows === this.#rows && asked === this.#asked && keys.every((k, n) => k === this.#keys[n])) return this.#shown;
    const order: number[] = [];
    for (const [n, k] of keys.entries()) if (k !== NONE) order.push(n);
    order.sort((a, b) => (keys[a] as number) - (keys[b] as number) || a - b);
    if (reverse) order.reverse();
    this.#asked = asked;
    this.#rows = rows;
    this.#keys = keys;
    this.#shown = order.map((n) => rows[n] as Row);
    return this.#shown;
  }
}
