// Formatting of numbers and times.

import type { Browser, Call } from "./types";

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (n: number): string => number.format(n);
/** 12,345 in full; compact from a hundred thousand on. */
export const short = (n: number): string => (n < 100_000 ? number.format(n) : compact.format(n));

export function bytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) {
    n /= 1024;
    at++;
  }
  return `${n.toFixed(at > 0 && n < 10 && n % 1 !== 0 ? 1 : 0)} ${units[at]}`;
}

export const rate = (n: number): string => `${bytes(n)}/s`;

export function ms(n: number): string {
  if (n < 1) return n === 0 ? "0 ms" : "<1 ms";
  return n < 10 ? `${n.toFixed(1)} ms` : n < 10_000 ? `${Math.round(n)} ms` : duration(n);
}

/** 850 ms, 12.3 s, 4 min 05 s, 3 h 12 min, 2 d 5 h. */
export function duration(n: number): string {
  const s = Math.max(0, n) / 1000;
  const two = (v: number) => String(v).padStart(2, "0");
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 59.95) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  const whole = Math.round(s);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const min = Math.round(s / 60);
  if (min < 1440) return `${Math.floor(min / 60)} h ${two(min % 60)} min`;
  const h = Math.round(s / 3600);
  return `${Math.floor(h / 24)} d ${h % 24} h`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dated = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Time of day; with the date unless it is today's. */
export function time(at: number | string): string {
  const then = new Date(at);
  const today = then.toDateString() === new Date().toDateString();
  return (today ? clock : dated).format(then);
}

export function ago(at: number | string, now = Date.now()): string {
  const n = now - new Date(at).getTime();
  return n < 2000 ? "just now" : `${coarse(n)} ago`;
}

/** Duration in a single unit. */
export function coarse(n: number): string {
  const s = Math.max(0, Math.round(n / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172_800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86_400)} d`;
}

export const percent = (n: number): string => `${n > 0.9995 || n === 0 ? Math.round(n * 100) : (n * 100).toFixed(n < 0.1 ? 1 : 0)}%`;

/** out_of_memory → out of memory. */
export const words = (word: string): string => word.replaceAll("_", " ");

/** Alternatives of what a task runs; a task has one of them. */
export interface AnyRun {
  command?: string[];
  shell?: string;
  call?: Call;
  browser?: Browser;
}

/** Command of a task in one line. */
export function what(spec: AnyRun): string {
  if (spec.command) return spec.command.map((a) => (/^[\w@%+=:,./-]+$/.test(a) ? a : JSON.stringify(a))).join(" ");
  if (spec.shell !== undefined) return spec.shell;
  return spec.call ? `${spec.call.function}(…)` : "";
}
