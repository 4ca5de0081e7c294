// Common components.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, act, session } from "./api";
import { link } from "./live";
import { words } from "./format";
import { Store, useStore } from "./store";
import type { Loaded } from "./load";

/** Colour and sign of a state; the sign makes it recognizable without the colour. */
const SIGNS: Record<string, [tone: string, sign: string]> = {
  connected: ["good", "●"],
  resync: ["sync", "↻"],
  suspect: ["warn", "◐"],
  away: ["idle", "○"],
  draining: ["note", "▽"],
  unfit: ["bad", "▲"],
  unknown: ["idle", "?"],
  pending: ["idle", "○"],
  assigned: ["note", "◔"],
  running: ["note", "▶"],
  paused: ["hold", "‖"],
  succeeded: ["good", "✓"],
  failed: ["bad", "✕"],
  cancelled: ["idle", "⊘"],
  superseded: ["idle", "⤳"],
  cancelling: ["warn", "⊘"],
  critical: ["bad", "▲"],
  warning: ["warn", "▲"],
  info: ["note", "ℹ"],
  cleared: ["idle", "✓"],
  adapted: ["note", "↕"],
};

export const tone = (state: string): string => SIGNS[state]?.[0] ?? "idle";

export function Badge({ state, label }: { state: string; label?: string }) {
  const [tone, sign] = SIGNS[state] ?? ["idle", "·"];
  return (
    <span class={`badge ${tone}`}>
      <span aria-hidden="true" class="sign">
        {sign}
      </span>
      {label ?? words(state)}
    </span>
  );
}

export function Panel(props: { title: string; children: ComponentChildren; aside?: ComponentChildren; class?: string; level?: 2 | 3 }) {
  return (
    <section class={`panel ${props.class ?? ""}`} aria-label={props.title}>
      <header>
        <h2>{props.title}</h2>
        {props.aside && <div class="aside">{props.aside}</div>}
      </header>
      {props.children}
    </section>
  );
}

/** Column of a table: heading and content. */
export interface Column<T> {
  label: string;
  of: (row: T) => ComponentChildren;
  /** Alignment, also of its heading. */
  set?: "num" | "when";
  /** Class of its cells. */
  class?: string;
  /** Full text of a truncated cell. */
  title?: (row: T) => string;
  /** True if a cell is empty; a dash always counts as empty. */
  blank?: (row: T) => boolean;
}

/** A table that scrolls if it is too wide. Narrow windows show its rows as lists of labelled cells,
 * without the empty ones. */
export function Table<T>(props: { label: string; rows: T[]; id: (row: T, n: number) => string | number; columns: (Column<T> | null)[] }) {
  const columns = props.columns.filter((c) => c !== null);
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label={props.label}>
      <table class="rows">
        <thead>
          <tr>
            {columns.map((c) => (
              <th scope="col" key={c.label} class={c.set}>
                {c.label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.rows.map((row, n) => (
            <tr key={props.id(row, n)}>
              {columns.map((c) => (
                <TableCell key={c.label} row={row} column={c} />
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function TableCell<T>({ row, column: c }: { row: T; column: Column<T> }) {
  const inside = c.of(row);
  const blank = c.blank?.(row) ?? inside === "–";
  return (
    <td data-label={c.label} class={[c.set, c.class, blank && "blank"].filter(Boolean).join(" ")} title={c.title?.(row)}>
      <span>{inside}</span>
    </td>
  );
}

/** List of names and values. */
export function Facts({ of }: { of: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {of.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Progress({ share, label }: { share: number; label: string }) {
  const value = Math.round(Math.min(1, Math.max(0, share)) * 100);
  return (
    <span class="progress" role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={value}>
      <span style={{ width: `${value}%` }} />
    </span>
  );
}

export function Trouble({ error, again }: { error: ApiError; again?: () => void }) {
  // A lost connection is reported once, at the top.
  if (useStore(link).state === "lost" && error.unreachable) return null;
  return (
    <div class="trouble" role="alert">
      <strong>{error.message}</strong>
      {error.detail && <span> {error.detail}</span>}
      {again && (
        <button type="button" class="quiet" onClick={again}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Content of a page, or its loading state or error. Old data stay if a later request fails. */
export function Await<T>({ of, children }: { of: Loaded<T>; children: (data: T) => ComponentChildren }) {
  if (of.data !== undefined) return <>{children(of.data)}</>;
  if (of.error) return <Trouble error={of.error} again={of.again} />;
  return (
    <p class="loading" role="status">
      Loading…
    </p>
  );
}

/** Temporary notification in a corner. */
interface Toast {
  text: string;
  bad: boolean;
}
const toast = new Store<Toast | null>(null);
let toastTimer = 0;

export function tellUser(text: string, bad = false): void {
  toast.set({ text, bad });
  clearTimeout(toastTimer);
  toastTimer = window.setTimeout(() => toast.set(null), bad ? 12_000 : 5_000);
}

export function Toasts() {
  const said = useStore(toast);
  return (
    <div class="toasts" role="status" aria-live="polite">
      {said && (
        <div class={said.bad ? "toast bad" : "toast"}>
          <span>{said.text}</span>
          <button type="button" class="quiet" aria-label="Dismiss" onClick={() => toast.set(null)}>
            ✕
          </button>
        </div>
      )}
    </div>
  );
}

export interface Action {
  label: string;
  method?: "POST" | "DELETE";
  path: string;
  body?: unknown;
  /** Notification after success. */
  done: string;
  /** Confirmation of an irreversible action. */
  confirm?: string;
  /** Required role. */
  needs: "submit" | "operate";
  danger?: boolean;
}

/** Actions that the key allows. Disabled while the connection is lost. */
export function Actions({ of, then }: { of: Action[]; then: () => void }) {
  const me = useStore(session);
  const state = useStore(link).state;
  const [busy, setBusy] = useState(false);
  const [asked, setAsked] = useState<Action | null>(null);
  const allowed = of.filter((a) => me?.role === "operate" || me?.role === a.needs);
  if (allowed.length === 0) return null;
  const run = async (action: Action) => {
    setAsked(null);
    setBusy(true);
    try {
      await act(action.method ?? "POST", action.path, action.body);
      tellUser(action.done);
    } catch (error) {
      const known = error instanceof ApiError ? error : new ApiError(0, String(error), "");
      tellUser(`${action.label} failed: ${known.message}${known.detail ? `. ${known.detail}` : ""}`, true);
    }
    setBusy(false);
    then();
  };
  return (
    <div class="actions" role="group" aria-label="Actions">
      {allowed.map((action) => (
        <button
          type="button"
          key={action.label}
          class={action.danger ? "danger" : ""}
          disabled={busy || state === "lost"}
          onClick={() => (action.confirm ? setAsked(action) : void run(action))}
        >
          {action.label}
        </button>
      ))}
      {asked && <Confirm action={asked} yes={() => void run(asked)} no={() => setAsked(null)} />}
    </div>
  );
}

function Confirm({ action, yes, no }: { action: Action; yes: () => void; no: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} onClose={no} aria-labelledby="confirm-text">
      <p id="confirm-text">{action.confirm}</p>
      <div class="actions">
        <button type="button" onClick={() => dialog.current?.close()}>
          Leave it
        </button>
        <button type="button" class={action.danger ? "danger solid" : "solid"} onClick={yes}>
          {action.label}
        </button>
      </div>
    </dialog>
  );
}

/** Choice between a few values, as adjacent buttons. */
export function Choice<T extends string>(props: { label: string; of: readonly (readonly [T, string])[]; value: T; set: (value: T) => void }) {
  return (
    <div class="choice" role="group" aria-label={props.label}>
      {props.of.map(([value, text]) => (
        <button type="button" key={value} aria-pressed={value === props.value} onClick={() => props.set(value)}>
          {text}
        </button>
      ))}
    </div>
  );
}

/** Current time, updated every `every` milliseconds. */
export function useNow(every = 1000): number {
  const [now, set] = useState(() => Date.now());
  useEffect(() => {
    const timer = window.setInterval(() => set(Date.now()), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}

/** Time up to which the shown data is known: it stops while the connection is lost. */
export function useKnown(every = 1000): number {
  const now = useNow(every);
  const { state, heard } = useStore(link);
  return state === "lost" && heard > 0 ? heard : now;
}
