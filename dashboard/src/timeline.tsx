// Timelines: bars on lanes, for a worker's link or a task's attempts.

import type { ComponentChildren } from "preact";
import { duration } from "./format";

export interface Bar {
  from: number;
  to: number;
  /** Style of the bar. */
  kind: string;
  /** Description, for tooltips and screen readers. */
  title: string;
}

export interface Mark {
  at: number;
  sign: string;
  title: string;
  kind: string;
}

export interface Lane {
  key: string;
  label: ComponentChildren;
  bars: Bar[];
  marks?: Mark[];
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800];
const pad = (n: number) => String(n).padStart(2, "0");

/** Round times within a range, about `wanted` of them. */
function ticks(from: number, to: number, wanted: number): number[] {
  const step = (STEPS.find((s) => s * 1000 >= (to - from) / wanted) ?? 604_800) * 1000;
  const shift = new Date(from).getTimezoneOffset() * 60_000;
  const all: number[] = [];
  // One at the very end would be cut off.
  const last = to - (to - from) * 0.06;
  for (let at = Math.ceil((from - shift) / step) * step + shift; at <= last; at += step) all.push(at);
  return all;
}

function label(at: number, span: number): string {
  const d = new Date(at);
  const hm = `${pad(d.getHours())}:${pad(d.getMinutes())}`;
  if (span > 2 * 86_400_000) return `${d.getDate()}.${d.getMonth() + 1}. ${hm}`;
  return span >= 600_000 ? hm : `${hm}:${pad(d.getSeconds())}`;
}

export function Timeline({ from, to, lanes, title }: { from: number; to: number; lanes: Lane[]; title: string }) {
  const span = Math.max(1, to - from);
  const x = (at: number) => `${((Math.min(to, Math.max(from, at)) - from) / span) * 100}%`;
  const width = (bar: Bar) => `${((Math.min(to, bar.to) - Math.max(from, bar.from)) / span) * 100}%`;
  return (
    <div class={lanes.some((l) => l.label) ? "timeline labelled" : "timeline"} role="group" aria-label={title}>
      {lanes.map((lane) => (
        <div class="lane" key={lane.key}>
          {lane.label && <div class="lane-label">{lane.label}</div>}
          <div class="track" role="img" aria-label={inWords(lane)}>
            {lane.bars
              .filter((b) => b.to >= from && b.from <= to)
              .map((b) => (
                <span key={`${b.kind}${b.from}`} class={`bar ${b.kind}`} style={{ left: x(b.from), width: width(b) }} title={b.title} />
              ))}
            {(lane.marks ?? []).filter((m) => m.at >= from && m.at <= to).map((m) => (
              <span key={`${m.kind}${m.at}${m.title}`} class={`mark-sign ${m.kind}`} style={{ left: x(m.at) }} title={m.title}>
                {m.sign}
              </span>
            ))}
          </div>
        </div>
      ))}
      <div class="axis" aria-hidden="true">
        <div class="axis-track">
          {ticks(from, to, 6).map((at) => (
            <span key={at} style={{ left: x(at) }}>
              {label(at, span)}
            </span>
          ))}
        </div>
      </div>
    </div>
  );
}

function inWords(lane: Lane): string {
  const parts = lane.bars.slice(-12).map((b) => b.title);
  const all = lane.marks ?? [];
  const marks = all.length ? `${all.length} ${all.length === 1 ? "mark" : "marks, the last"}: ${all.at(-1)?.title}` : "";
  return [...parts, marks].filter(Boolean).join("; ") || "no data";
}

export const lasting = (from: number, to: number): string => duration(to - from);

/** Legend of colours and signs. */
export function Legend({ of, marks = [] }: { of: [kind: string, text: string][]; marks?: [kind: string, sign: string, text: string][] }) {
  return (
    <ul class="legend">
      {of.map(([kind, text]) => (
        <li key={kind}>
          <i class={`bar ${kind}`} aria-hidden="true" />
          {text}
        </li>
      ))}
      {marks.map(([kind, sign, text]) => (
        <li key={kind}>
          <span class={`mark-sign ${kind}`} aria-hidden="true">
            {sign}
          </span>
          {text}
        </li>
      ))}
    </ul>
  );
}
