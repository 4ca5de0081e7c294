// The fleet: numbers, load, alerts, and the list of workers.

import { useEffect, useMemo, useState } from "preact/hooks";
import { get } from "../api";
import { Chart } from "../chart";
import { FleetMap } from "../fleet/map";
import { Chooser, type Column, Fleet, type Row } from "../fleet/store";
import { FleetTable } from "../fleet/table";
import { ago, count, ms, rate, short } from "../format";
import { on } from "../live";
import { useLoad } from "../load";
import { to } from "../route";
import { useStore } from "../store";
import type { Alert, CountsView, FleetTotals, Throughput } from "../types";
import { Badge, Choice, Panel, Trouble, useKnown } from "../ui";

/** Kept while another page is shown. */
const fleet = new Fleet();
const filter = { text: "", states: new Set<string>(), by: "state" as Column, reverse: false };

export function FleetPage() {
  useEffect(() => {
    document.title = "Fleet · Outlast";
    return fleet.start();
  }, []);
  const version = useStore(fleet.version);
  const loaded = useLoad("fleet", (signal) => fleet.load(signal).then(() => true));
  return (
    <>
      <h1 class="sr">Fleet</h1>
      {loaded.error && <Trouble error={loaded.error} again={loaded.again} />}
      <div class="strip">
        <WorkersTile totals={fleet.totals} />
        <TasksTile totals={fleet.totals} />
        <NetworkTile totals={fleet.totals} />
      </div>
      <div class="columns wide-left">
        <Flow />
        <Alerts totals={fleet.totals} />
      </div>
      <Workers version={version} rows={fleet.rows} ready={loaded.data === true} />
    </>
  );
}

function Figure({ value, label, href, tone }: { value: string; label: string; href?: string; tone?: string }) {
  const inner = (
    <>
      <b class={tone ?? ""}>{value}</b>
      <span>{label}</span>
    </>
  );
  return href ? (
    <a class="figure" href={href}>
      {inner}
    </a>
  ) : (
    <div class="figure">{inner}</div>
  );
}

function WorkersTile({ totals: t }: { totals: FleetTotals | null }) {
  const parts: [string, number][] = t
    ? [
        ["connected", t.connected - t.draining - t.unfit],
        ["unfit", t.unfit],
        ["draining", t.draining],
        ["suspect", t.suspect],
        ["away", t.away],
      ]
    : [];
  return (
    <section class="tile" aria-label="Workers">
      <h2>Workers</h2>
      <div class="figures">
        <Figure value={t ? short(t.connected) : "–"} label={t ? `of ${short(t.workers)} connected` : "connected"} />
        <Figure value={t ? short(t.suspect) : "–"} label="suspect" tone={t?.suspect ? "warn-text" : ""} />
        <Figure value={t ? short(t.away) : "–"} label="away" />
        {t && t.unfit > 0 && <Figure value={short(t.unfit)} label="unfit" tone="bad-text" />}
        {t && t.draining > 0 && <Figure value={short(t.draining)} label="draining" />}
      </div>
      <div class="share" aria-hidden="true">
        {parts
          .filter(([, n]) => n > 0)
          .map(([state, n]) => (
            <span key={state} class={state} style={{ flexGrow: n }} />
          ))}
      </div>
    </section>
  );
}

function TasksTile({ totals }: { totals: FleetTotals | null }) {
  const { data } = useLoad<CountsView>("counts", (signal) => get("api/v1/counts", signal), { every: 2000 });
  const say = (n: number | undefined) => (n === undefined ? "–" : short(n));
  return (
    <section class="tile" aria-label="Tasks">
      <h2>Tasks</h2>
      <div class="figures">
        <Figure value={say(data?.pending)} label="waiting" href={to("tasks", "", { state: "pending" })} />
        <Figure value={say(totals?.running)} label={totals ? `running on ${short(totals.slots)} slots` : "running"} href={to("tasks", "", { state: "assigned" })} />
        {data && data.paused > 0 && <Figure value={short(data.paused)} label="paused" href={to("tasks", "", { paused: "true" })} />}
        <Figure value={say(data?.succeeded)} label="succeeded" href={to("tasks", "", { state: "succeeded" })} />
        <Figure value={say(data?.failed)} label="failed" href={to("tasks", "", { state: "failed" })} tone={data?.failed ? "bad-text" : ""} />
      </div>
    </section>
  );
}

function NetworkTile({ totals: t }: { totals: FleetTotals | null }) {
  const say = (n: number | null | undefined) => (n === null || n === undefined ? "–" : ms(n));
  return (
    <section class="tile" aria-label="Network">
      <h2>Network</h2>
      <div class="figures">
        <Figure value={say(t?.rtt_median_ms)} label="median RTT" />
        <Figure value={say(t?.rtt_p95_ms)} label="p95 RTT" />
        <Figure value={t ? rate(t.goodput_up) : "–"} label="from workers" />
        <Figure value={t ? rate(t.goodput_down) : "–"} label="to workers" />
      </div>
    </section>
  );
}

type Span = "1s" | "1m";
const NEWEST: Record<Span, number> = { "1s": 600, "1m": 1440 };

/** Throughput over time; each reload fetches only new points. */
function Flow() {
  const [span, setSpan] = useState<Span>("1s");
  const [past] = useState<{ span: Span; data: Throughput | null }>({ span, data: null });
  const { data, error } = useLoad<Throughput>(
    `throughput ${span}`,
    async (signal) => {
      if (past.span !== span) Object.assign(past, { span, data: null });
      const old = past.data;
      // The newest minute is incomplete.
      const known = span === "1m" ? old?.at.at(-2) : old?.at.at(-1);
      const fresh = await get<Throughput>(`api/v1/throughput?step=${span}&since=${known ?? 0}`, signal);
      past.data = old && known !== undefined ? join(old, fresh, known, NEWEST[span]) : fresh;
      return past.data;
    },
    { every: span === "1s" ? 1000 : 10_000, pace: 900 },
  );
  const per = (values: number[] | undefined) => (values ?? []).map((v) => (v * 1000) / (data?.step_ms ?? 1000));
  const lines = useMemo(
    () => [
      { label: "succeeded", ink: "--good", values: per(data?.succeeded), area: true },
      { label: "failed", ink: "--bad", values: per(data?.failed) },
      { label: "retried", ink: "--warn", values: per(data?.requeued), dashed: true },
    ],
    [data],
  );
  const aside = (
    <Choice
      label="Time shown"
      of={[
        ["1s", "10 min"],
        ["1m", "1 day"],
      ]}
      value={span}
      set={setSpan}
    />
  );
  return (
    <Panel title="Throughput" aside={aside}>
      {error && !data && <Trouble error={error} />}
      <Chart height={168} title="Tasks per second" at={data?.at ?? []} lines={lines} say={(v) => (v >= 1000 ? `${(v / 1000).toFixed(1)}k` : v >= 10 || v === 0 ? v.toFixed(0) : v.toFixed(1))} />
    </Panel>
  );
}

function join(old: Throughput, fresh: Throughput, known: number, limit: number): Throughput {
  const keep = old.at.findLastIndex((at) => at <= known) + 1;
  const skip = Math.max(0, keep + fresh.at.length - limit);
  const glue = (a: number[], b: number[]) => [...a.slice(skip, keep), ...b];
  return {
    step_ms: fresh.step_ms,
    at: glue(old.at, fresh.at),
    submitted: glue(old.submitted, fresh.submitted),
    succeeded: glue(old.succeeded, fresh.succeeded),
    failed: glue(old.failed, fresh.failed),
    cancelled: glue(old.cancelled, fresh.cancelled),
    requeued: glue(old.requeued, fresh.requeued),
    waiting: glue(old.waiting, fresh.waiting),
  };
}

/** Number of alerts kept from events since the list was loaded, the newest. */
const MAX_NEWER = 1000;

/** The loaded alerts, updated by the events since. A storm of events is shown once a second, and does not
 * reload thousands of alerts. */
function useAlerts() {
  const [newer] = useState(() => new Map<number, Alert>());
  const load = async (signal: AbortSignal) => {
    const former = [...newer.values()];
    const { alerts } = await get<{ alerts: Alert[] }>("api/v1/alerts", signal);
    // Alerts that were reported before are in the list.
    for (const alert of former) if (newer.get(alert.id) === alert) newer.delete(alert.id);
    return alerts;
  };
  const loaded = useLoad<Alert[]>("alerts", load, { every: 300_000 });
  const [version, setVersion] = useState(0);
  useEffect(() => {
    let timer = 0;
    const off = on("alert", (data) => {
      const alert = data as Alert;
      newer.delete(alert.id);
      newer.set(alert.id, alert);
      for (const oldest of newer.keys()) {
        if (newer.size <= MAX_NEWER) break;
        newer.delete(oldest);
      }
      timer ||= window.setTimeout(() => {
        timer = 0;
        setVersion((v) => v + 1);
      }, 1000);
    });
    return () => {
      off();
      clearTimeout(timer);
    };
  }, []);
  const alerts = useMemo(() => {
    if (!loaded.data) return undefined;
    const all = new Map(loaded.data.map((a) => [a.id, a]));
    for (const [id, alert] of newer) {
      // A cleared alert does not fire again: the list may be newer than an event.
      if (all.get(id)?.state === "cleared" && alert.state === "firing") continue;
      all.set(id, alert);
    }
    return [...all.values()];
  }, [loaded.data, version]);
  return { alerts, error: loaded.error, again: loaded.again };
}

const WORST: Record<string, number> = { critical: 0, warning: 1, info: 2 };

function Alerts({ totals }: { totals: FleetTotals | null }) {
  const now = useKnown(10_000);
  const { alerts, error, again } = useAlerts();
  const firing = (alerts ?? []).filter((a) => a.state === "firing").sort((a, b) => (WORST[a.severity] ?? 9) - (WORST[b.severity] ?? 9) || b.id - a.id);
  // The list is limited, the totals are not.
  const firingCount = totals ? Object.values(totals.alerts).reduce((a, b) => a + b, 0) : firing.length;
  const cleared = (alerts ?? [])
    .filter((a) => a.state !== "firing")
    .sort((a, b) => Date.parse(b.cleared_at ?? b.since) - Date.parse(a.cleared_at ?? a.since))
    .slice(0, 5);
  return (
    <Panel title="Alerts" aside={alerts && <span class="muted">{firingCount ? `${count(firingCount)} firing` : "none firing"}</span>}>
      {error && !alerts && <Trouble error={error} again={again} />}
      <ul class="alerts" aria-live="polite" aria-relevant="additions" tabIndex={0} aria-label="Firing alerts">
        {firing.slice(0, 50).map((a) => (
          <AlertLine key={a.id} alert={a} now={now} />
        ))}
        {firing.length > 50 && <li class="muted">and {count(Math.max(firingCount, firing.length) - 50)} more</li>}
        {alerts && firing.length === 0 && <li class="none">No alerts.</li>}
        {cleared.map((a) => (
          <AlertLine key={a.id} alert={a} now={now} />
        ))}
      </ul>
    </Panel>
  );
}

/** The message without its leading worker name. */
function unnamed({ message, worker }: Alert): string {
  const name = `worker ${worker}`;
  return message.startsWith(name) ? message.slice(name.length).replace(/^[: ]+/, "") : message;
}

function AlertLine({ alert: a, now }: { alert: Alert; now: number }) {
  const firing = a.state === "firing";
  return (
    <li class={firing ? "" : "past"}>
      <Badge state={firing ? a.severity : "cleared"} />
      <span>
        {a.worker && <a href={to("worker", a.worker)}>{a.worker}</a>} {unnamed(a)}
        <span class="muted"> {firing ? ago(a.since, now) : `cleared ${ago(a.cleared_at ?? a.since, now)}`}</span>
      </span>
    </li>
  );
}

const STATES = ["connected", "unfit", "suspect", "away", "draining"] as const;

function Workers({ version, rows, ready }: { version: number; rows: Row[]; ready: boolean }) {
  const [text, setText] = useState(filter.text);
  const [states, setStates] = useState(filter.states);
  const [by, setBy] = useState(filter.by);
  const [reverse, setReverse] = useState(filter.reverse);
  Object.assign(filter, { text, states, by, reverse });
  const now = useKnown(5000);
  const [chooser] = useState(() => new Chooser());
  const shown = useMemo(() => chooser.choose(rows, text, states, by, reverse), [rows, version, text, states, by, reverse]);
  const all = shown.length === rows.length;
  const matching = useMemo(() => (all ? null : new Set(shown)), [shown, all]);
  const toggle = (state: string) => {
    const next = new Set(states);
    if (!next.delete(state)) next.add(state);
    setStates(next);
  };
  const sort = (column: Column) => {
    setReverse(column === by ? !reverse : false);
    setBy(column);
  };
  const counts = useMemo(() => {
    const n: Record<string, number> = {};
    for (const row of rows) n[row.state] = (n[row.state] ?? 0) + 1;
    return n;
  }, [rows, version]);
  return (
    <Panel title="All workers" class="flush" aside={<span class="muted">{all ? count(rows.length) : `${count(shown.length)} of ${count(rows.length)}`}</span>}>
      <div class="toolbar">
        <label class="field grow">
          <span class="sr">Filter by name or cause</span>
          <input type="search" placeholder="Filter by name or cause" value={text} spellcheck={false} onInput={(e) => setText(e.currentTarget.value)} />
        </label>
        <div class="chips" role="group" aria-label="States">
          {STATES.map((state) => (
            <button type="button" key={state} class="chip" aria-pressed={states.has(state)} onClick={() => toggle(state)}>
              <Badge state={state} />
              <b>{count(counts[state] ?? 0)}</b>
            </button>
          ))}
        </div>
      </div>
      {rows.length > 12 && <FleetMap rows={rows} matching={matching} version={version} down={(counts["suspect"] ?? 0) + (counts["away"] ?? 0)} />}
      {ready && rows.length === 0 ? (
        <p class="none">
          No workers yet. Start one with <code>outlast worker</code>.
        </p>
      ) : (
        <FleetTable rows={shown} by={by} reverse={reverse} sort={sort} now={now} />
      )}
    </Panel>
  );
}
