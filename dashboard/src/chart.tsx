// A chart over time (uPlot), with a description in words.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { useStore } from "./store";
import { colour, paint } from "./theme";

export interface Line {
  label: string;
  /** Name of a colour of the style sheet. */
  ink: string;
  values: (number | null)[];
  /** True to fill the area down to the axis. */
  area?: boolean;
  dashed?: boolean;
}

interface Props {
  title: string;
  /** Unix milliseconds. */
  at: number[];
  lines: Line[];
  /** Formats a value. */
  say: (value: number) => string;
  height?: number;
  /** Minimum for the upper end of the axis. */
  least?: number;
  empty?: string;
  /** True for whole numbers only. */
  whole?: boolean;
}

const FONT = "11px system-ui, sans-serif";
/** Half of the width of a label with seconds, so that the last label of an axis fits. */
const HALF_LABEL = 30;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const pad = (n: number) => String(n).padStart(2, "0");
const hhmmss = (s: number) => {
  const d = new Date(s * 1000);
  return `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
};

/** Label of the axis; the first one of a day is its date. */
function moment(s: number): string {
  const text = hhmmss(s);
  const d = new Date(s * 1000);
  if (text === "00:00:00") return `${d.getDate()} ${MONTHS[d.getMonth()]}`;
  return s % 60 === 0 ? text.slice(0, 5) : text;
}

function options(props: Props, width: number, height: number): uPlot.Options {
  const grid = { stroke: colour("--grid"), width: 1 };
  const axis = { stroke: colour("--muted"), font: FONT, grid, ticks: { show: false } };
  return {
    width,
    height,
    padding: [8, HALF_LABEL, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    scales: {
      x: { time: true },
      y: { range: (_, __, max) => [0, Math.max(props.least ?? 1, (Number.isFinite(max) ? max : 0) * 1.1)] },
    },
    axes: [
      { ...axis, space: 70, size: 26, values: (_, splits) => splits.map(moment) },
      { ...axis, ...(props.whole ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000] } : {}), space: 26, size: 62, gap: 4, values: (_, splits) => splits.map((v) => props.say(v)) },
    ],
    series: [
      {},
      ...props.lines.map((line) => {
        const ink = colour(line.ink);
        return {
          label: line.label,
          stroke: ink,
          width: 1.5,
          points: { show: false },
          spanGaps: false,
          ...(line.area ? { fill: `color-mix(in srgb, ${ink} 16%, transparent)` } : {}),
          ...(line.dashed ? { dash: [4, 3] } : {}),
        };
      }),
    ],
  };
}

export function Chart(props: Props) {
  const { title, at, lines, say, height = 150 } = props;
  const box = useRef<HTMLDivElement>(null);
  const readout = useRef<HTMLSpanElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const painted = useStore(paint);
  const shape = lines.map((l) => `${l.label}${l.ink}`).join();
  const some = lines.some((l) => l.values.some((v) => v !== null));

  useEffect(() => {
    if (!box.current || !some) return;
    const hover: uPlot.Plugin = {
      hooks: {
        setCursor: (u) => {
          const shift = latest.current.at.length - u.data[0].length;
          const index = u.cursor.idx;
          if (readout.current) readout.current.textContent = told(latest.current, index == null ? null : index + shift);
        },
      },
    };
    const made = new uPlot(
      { ...options(latest.current, box.current.clientWidth, height), plugins: [hover] },
      data(latest.current),
      box.current,
    );
    plot.current = made;
    const sizes = new ResizeObserver(() => {
      const width = box.current?.clientWidth ?? 0;
      if (width > 0 && width !== made.width) made.setSize({ width, height });
    });
    sizes.observe(box.current);
    return () => {
      sizes.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape, painted, height, some]);

  useEffect(() => plot.current?.setData(data(latest.current)), [at, ...lines.map((l) => l.values)]);

  return (
    <figure class="chart">
      <figcaption>
        <span class="title">{title}</span>
        <span class="keys">
          {lines.map((line) => (
            <span key={line.label} class="key">
              <i style={{ background: `var(${line.ink})` }} aria-hidden="true" />
              {line.label}
              <b>{newest(line, say)}</b>
            </span>
          ))}
        </span>
      </figcaption>
      {some ? (
        <div ref={box} class="plot" role="img" aria-label={inWords(title, at, lines, say)} style={{ height: `${height}px` }} />
      ) : (
        <p class="none" style={{ height: `${height}px` }}>
          {props.empty ?? "No measurements yet."}
        </p>
      )}
      <span ref={readout} class="readout" aria-hidden="true" />
    </figure>
  );
}

/** Measured points from the first one on; at least those of a minute. */
function data({ at, lines }: Props): uPlot.AlignedData {
  const known = lines.map((l) => l.values.findIndex((v) => v !== null)).filter((n) => n >= 0);
  const from = Math.max(0, Math.min(...known, at.length - 60));
  return [at.slice(from).map((t) => t / 1000), ...lines.map((l) => l.values.slice(from))];
}

function newest(line: Line, say: (v: number) => string): string {
  // The current interval is not measured yet.
  const last = line.values.slice(-3).findLast((v) => v !== null);
  return last === null || last === undefined ? "–" : say(last);
}

function told({ at, lines, say }: Props, index: number | null): string {
  const when = index === null ? undefined : at[index];
  if (index === null || when === undefined) return "";
  const parts = lines.map((l) => {
    const value = l.values[index];
    return `${l.label} ${value === null || value === undefined ? "–" : say(value)}`;
  });
  return `${hhmmss(when / 1000)}  ${parts.join("  ")}`;
}

/** Description for screen readers. */
function inWords(title: string, at: number[], lines: Line[], say: (v: number) => string): string {
  const from = at[0];
  const to = at.at(-1);
  if (from === undefined || to === undefined) return title;
  const parts = lines.map((line) => {
    const known = line.values.filter((v): v is number => v !== null);
    if (known.length === 0) return `${line.label}: no measurements`;
    const max = known.reduce((a, b) => Math.max(a, b), 0);
    const mean = known.reduce((a, b) => a + b, 0) / known.length;
    return `${line.label}: now ${newest(line, say)}, mean ${say(mean)}, at most ${say(max)}`;
  });
  return `${title} from ${hhmmss(from / 1000)} to ${hhmmss(to / 1000)}. ${parts.join(". ")}.`;
}
