// All workers as one picture, a cell each: what is wrong with ten thousand is seen at a glance.
// The table beside it says the same in words.

import { useEffect, useRef, useState } from "preact/hooks";
import { count, words } from "../format";
import { to } from "../route";
import { useStore } from "../store";
import { colour, paint } from "../theme";
import type { Row } from "./store";

const INKS: Record<string, string> = { connected: "--good-fill", draining: "--note-fill", suspect: "--warn-fill", away: "--idle-fill" };
const LARGEST = 16;
const SMALLEST = 4;
const HEIGHT = 132;

interface Grid {
  cell: number;
  across: number;
  height: number;
}

/** The largest cells with which all fit. */
function fit(width: number, n: number): Grid {
  for (let cell = LARGEST; ; cell--) {
    const across = Math.max(1, Math.floor(width / cell));
    const height = Math.ceil(n / across) * cell;
    if (height <= HEIGHT || cell <= SMALLEST) return { cell, across, height };
  }
}

export function FleetMap({ rows, matching, version }: { rows: Row[]; matching: Set<Row> | null; version: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const grid = useRef<Grid>({ cell: LARGEST, across: 1, height: LARGEST });
  const drawn = useRef<{ frame: string; looks: Uint8Array }>({ frame: "", looks: new Uint8Array() });
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
    // Only cells that look otherwise than before are drawn.
    const frame = `${w} ${h} ${g.cell} ${rows.length} ${painted}`;
    const old = drawn.current.frame === frame ? drawn.current.looks : null;
    if (!old) pen.clearRect(0, 0, width, g.height);
    const gap = g.cell > 6 ? 2 : 1;
    const inks = [...new Set(Object.values(INKS)), "--bad-fill"];
    const colours = inks.map(colour);
    const looks = new Uint8Array(rows.length);
    let ink = -1;
    for (const row of rows) {
      const name = row.alert === "critical" ? "--bad-fill" : (INKS[row.state] ?? "--idle-fill");
      const which = inks.indexOf(name);
      const faint = matching !== null && !matching.has(row);
      const look = 1 + which * 2 + Number(faint);
      looks[row.rank] = look;
      if (old?.[row.rank] === look) continue;
      const x = (row.rank % g.across) * g.cell;
      const y = Math.floor(row.rank / g.across) * g.cell;
      if (old) pen.clearRect(x, y, g.cell, g.cell);
      if (which !== ink) pen.fillStyle = colours[which] as string;
      ink = which;
      pen.globalAlpha = faint ? 0.18 : 1;
      pen.fillRect(x, y, g.cell - gap, g.cell - gap);
    }
    pen.globalAlpha = 1;
    drawn.current = { frame, looks };
  }, [rows, matching, version, width, painted]);

  const at = (event: MouseEvent): Row | undefined => {
    const { cell, across } = grid.current;
    const column = Math.floor(event.offsetX / cell);
    return column < across ? rows[Math.floor(event.offsetY / cell) * across + column] : undefined;
  };
  const down = rows.filter((r) => r.state === "suspect" || r.state === "away").length;
  return (
    <div class="fleet-map">
      <canvas
        ref={canvas}
        role="img"
        aria-label={`Map of ${count(rows.length)} workers; ${count(down)} of them cannot be reached. The table below has the same in words.`}
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
