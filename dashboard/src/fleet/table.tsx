// A table that only renders its visible rows.

import { Component } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { coarse, ms, percent, rate, words } from "../format";
import { to } from "../route";
import { Badge } from "../ui";
import type { Column, Row } from "./store";

const HEADS: [Column, string, string, boolean][] = [
  ["state", "State", "By urgency", false],
  ["name", "Worker", "By name", false],
  ["load", "Load", "Running tasks and slots", true],
  ["held", "Held", "Attempts assigned to the worker", true],
  ["rtt", "RTT", "Newest round-trip time", true],
  ["stability", "Stability", "Share of time with a link", true],
  ["reconnects", "Reconnects", "Reconnects within the last minute", true],
  ["goodput", "Traffic", "Bytes per second, both directions", true],
  ["since", "Since", "Time in this state", true],
];

interface Props {
  rows: Row[];
  by: Column;
  reverse: boolean;
  sort: (by: Column) => void;
  now: number;
}

/** Additional rows before and after the visible ones. */
const SPARE = 6;

export function FleetTable({ rows, by, reverse, sort, now }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 480, row: 34 });
  const wantFocus = useRef<number | null>(null);

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = () => {
      const row = Number.parseFloat(getComputedStyle(element).getPropertyValue("--row")) || 34;
      setView((v) => (v.height === element.clientHeight && v.row === row ? v : { ...v, height: element.clientHeight, row }));
    };
    const sizes = new ResizeObserver(measure);
    sizes.observe(element);
    measure();
    return () => sizes.disconnect();
  }, []);

  const from = Math.max(0, Math.floor(view.top / view.row) - SPARE);
  const till = Math.min(rows.length, Math.ceil((view.top + view.height) / view.row) + SPARE);

  // The arrow keys may lead to a row that was not rendered before.
  useLayoutEffect(() => {
    const wanted = wantFocus.current;
    if (wanted === null) return;
    const link = box.current?.querySelector<HTMLElement>(`[aria-rowindex="${wanted + 2}"] a`);
    if (link) {
      wantFocus.current = null;
      link.focus({ preventScroll: true });
    }
  });

  const onKey = (event: KeyboardEvent) => {
    const element = box.current;
    const row = (event.target as HTMLElement).closest<HTMLElement>("[aria-rowindex]");
    if (!element || !row) return;
    const page = Math.max(1, Math.floor(view.height / view.row) - 2);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -rows.length, End: rows.length }[event.key];
    const here = Number(row.getAttribute("aria-rowindex")) - 2;
    if (step === undefined || here < 0) return;
    event.preventDefault();
    const next = Math.min(rows.length - 1, Math.max(0, here + step));
    wantFocus.current = next;
    const top = next * view.row;
    const head = view.row;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + view.row > element.scrollTop + view.height - head) element.scrollTop = top + view.row + head - view.height;
    setView((v) => ({ ...v, top: element.scrollTop }));
  };

  return (
    <div
      class="fleet-table"
      ref={box}
      role="table"
      aria-label="Workers"
      aria-rowcount={rows.length + 1}
      tabIndex={0}
      onScroll={(e) => {
        const top = e.currentTarget.scrollTop;
        setView((v) => ({ ...v, top }));
      }}
      onKeyDown={onKey}
    >
      <div role="rowgroup" class="fleet-head">
        <div role="row" aria-rowindex={1} class="fleet-row">
          {HEADS.map(([key, text, title, num]) => (
            <div role="columnheader" key={key} class={num ? `num c-${key}` : `c-${key}`} aria-sort={by !== key ? undefined : reverse ? "descending" : "ascending"}>
              <button type="button" title={title} onClick={() => sort(key)}>
                {text}
                <span aria-hidden="true">{by === key ? (reverse ? " ↑" : " ↓") : ""}</span>
              </button>
            </div>
          ))}
        </div>
      </div>
      <div role="rowgroup" class="fleet-body" style={{ height: `${rows.length * view.row}px` }}>
        <div style={{ transform: `translateY(${from * view.row}px)` }} role="presentation">
          {rows.slice(from, till).map((row, n) => (
            <Line key={row.id} row={row} changed={row.changed} index={from + n + 2} since={row.since === null ? "–" : coarse(now - row.since)} />
          ))}
        </div>
      </div>
    </div>
  );
}

interface LineProps {
  row: Row;
  changed: number;
  index: number;
  /** Time in its state. */
  since: string;
}

/** Rows are changed in place, so they are compared by the time of their last change. */
class Line extends Component<LineProps> {
  override shouldComponentUpdate(next: LineProps): boolean {
    const { row, changed, index, since } = this.props;
    return row !== next.row || changed !== next.changed || index !== next.index || since !== next.since;
  }
  override render({ row, index, since }: LineProps) {
    return <Cells row={row} index={index} since={since} />;
  }
}

function Cells({ row, index, since }: { row: Row; index: number; since: string }) {
  const there = row.state === "connected" || row.state === "draining" || row.state === "unfit";
  return (
    <div role="row" aria-rowindex={index} class={`fleet-row ${row.state}`}>
      <div role="cell" class="c-state">
        <Badge state={row.state} />
        {row.alert && (
          <span class={`alert-sign ${row.alert}`} title={`${row.alert} alert`}>
            <span aria-hidden="true">▲</span>
            <span class="sr">{row.alert} alert</span>
          </span>
        )}
      </div>
      <div role="cell" class="c-name">
        <a href={to("worker", row.name)}>{row.name}</a>
      </div>
      <div role="cell" class="num c-load">
        <span class="load" aria-hidden="true">
          <span style={{ width: `${Math.min(100, (100 * row.running) / Math.max(1, row.slots))}%` }} />
        </span>
        {row.running}/{row.slots}
      </div>
      <div role="cell" class="num c-held">
        {row.held || "–"}
      </div>
      <div role="cell" class="num c-rtt">
        {row.rtt === null || !there ? "–" : ms(row.rtt)}
      </div>
      <div role="cell" class="num c-stability">
        {percent(row.stability)}
      </div>
      <div role="cell" class="num c-reconnects">
        {row.reconnects || "–"}
      </div>
      <div role="cell" class="num c-goodput">
        {row.goodput ? rate(row.goodput) : "–"}
      </div>
      <div role="cell" class="num c-since">
        {row.cause && <span class="muted">{words(row.cause)} </span>}
        {since}
      </div>
    </div>
  );
}
