// Map of all workers, one cell each, which shows problems of ten thousand workers at a glance. The table
// below has the same information in words.

import { useEffect, useRef, useState } from "preact/hooks";
import { count, words } from "../format";
import { to } from "../route";
import { useStore } from "../store";
import { colour, paint } from "../theme";
import type { WorkerState } from "../types";
import type { Row } from "./store";

const INKS: Record<WorkerState, string> = { connected: "--good-fill", draining: "--note-fill", suspect: "--warn-fill", unfit: "--bad-fill", away: "--idle-fill" };
const LARGEST = 16;
const SMALLEST = 4;
const HEIGHT = 132;

interface Grid {
  cell: number;
  across: number;
  height: number;
}

/** Largest cells with which all workers fit. */
function fit(width: number, n: number): Grid {
  for (let cell = LARGEST; ; cell--) {
    const across = Math.max(1, Math.floor(width / cell));
    const height = Math.ceil(n / across) * cell;
    if (height <= HEIGHT || cell <= SMALLEST) return { cell, across, height };
  }
}

/** State of the drawn map. */
interface Drawn {
  frame: string;
  /** Style of each cell, in order. */
  looks: Uint8Array;
  rows: Row[];
  version: number;
  matching: Set<Row> | null;
}

interface Props {
  rows: Row[];
  /** Matching workers; none: all match. */
  matching: Set<Row> | null;
  version: number;
  /** Number of unreachable workers. */
  down: number;
}

export function FleetMap({ rows, matching, version, down }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const grid = useRef<Grid>({ cell: LARGEST, across: 1, height: LARGEST });
  const drawn = useRef<Drawn>({ frame: "", looks: new Uint8Array(), rows: [], version: 0, matching: null });
  const [width, setWidth] = useState(0);
  const [hovered, setHovered] = useState<{ row: Row; x: number; y: number } | null>(null);
  const painted = useStore(paint);

  useEffect(() => {
    const parent = canvas.current?.parentElement;
    if (!parent) return;
    const sizes = new ResizeObserver(() => setWidth(parent.clientWidth));
    sizes.observe(parent);
    setWidth(parent.clientWidth);
    return () => sizes.disconnect();
  }, []);

  useEffect(() => {
    const element = canvas.current;
    const pen = element?.getContext("2d");
    if (!element || !pen || width === 0) return;
    const g = fit(width, rows.length);
    grid.current = g;
    const density = devicePixelRatio || 1;
    const [w, h] = [Math.round(width * density), Math.round(g.height * density)];
    if (element.width !== w || element.height !== h) {
      element.width = w;
      element.height = h;
      element.style.height = `${g.height}px`;
    }
    pen.setTransform(density, 0, 0, density, 0, 0);
    // Only cells that changed are drawn.
    const frame = `${w} ${h} ${g.cell} ${rows.length} ${painted}`;
    const last = drawn.current;
    const same = last.frame === frame;
    if (!same) pen.clearRect(0, 0, width, g.height);
    const looks = same ? last.looks : new Uint8Array(rows.length);
    const known = same && last.rows === rows && last.matching === matching ? last.version : -1;
    const gap = g.cell > 6 ? 2 : 1;
    const inks = [...new Set(Object.values(INKS)), "--bad-fill"];
    const colours = inks.map(colour);
    let ink = -1;
    for (const row of rows) {
      if (row.changed <= known) continue;
      const name = row.alert === "critical" ? "--bad-fill" : INKS[row.state];
      const which = inks.indexOf(name);
      const faint = matching !== null && !matching.has(row);
      const look = 1 + which * 2 + Number(faint);
      if (looks[row.rank] === look) continue;
      looks[row.rank] = look;
      const x = (row.rank % g.across) * g.cell;
      const y = Math.floor(row.rank / g.across) * g.cell;
      if (same) pen.clearRect(x, y, g.cell, g.cell);
      if (which !== ink) pen.fillStyle = colours[which] as string;
      ink = which;
      pen.globalAlpha = faint ? 0.18 : 1;
      pen.fillRect(x, y, g.cell - gap, g.cell - gap);
    }
    pen.globalAlpha = 1;
    drawn.current = { frame, looks, rows, version, matching };
  }, [rows, matching, version, width, painted]);

  const at = (event: MouseEvent): Row | undefined => {
    const { cell, across } = grid.current;
    const column = Math.floor(event.offsetX / cell);
    return column < across ? rows[Math.floor(event.offsetY / cell) * across + column] : undefined;
  };
  return (
    <div class="fleet-map">
      <canvas
        ref={canvas}
        role="img"
        aria-label={`Map of ${count(rows.length)} workers; ${count(down)} of them cannot be reached. The table below has the same information in words.`}
        onMouseMove={(e) => {
          const row = at(e);
          setHovered(row ? { row, x: e.offsetX, y: e.offsetY } : null);
        }}
        onMouseLeave={() => setHovered(null)}
        onClick={(e) => {
          const row = at(e);
          if (row) location.hash = to("worker", row.name);
        }}
      />
      {hovered && (
        <div class="map-tip" aria-hidden="true" style={{ left: `${Math.min(hovered.x + 12, width - 190)}px`, top: `${hovered.y + 14}px` }}>
          <b>{hovered.row.name}</b> {hovered.row.state}
          {hovered.row.cause && `, ${words(hovered.row.cause)}`}
        </div>
      )}
    </div>
  );
}
