// The event stream, and the state of the connection to the coordinator. Silence counts as a lost connection,
// since a half-open one cannot be distinguished from it: the server sends something every few seconds.

import { expelled } from "./api";
import { Store } from "./store";

/** Silence in milliseconds after which the connection counts as lost; the server sends something every 5 s. */
const SILENCE = 12_000;
/** First and longest pause before a retry, in milliseconds. */
const PAUSES = [500, 10_000] as const;
/** Time in milliseconds after which a hidden page closes its stream. */
const HIDDEN = 60_000;

export interface Link {
  state: "connecting" | "live" | "lost" | "resting";
  /** Time of the last received data; 0: never. */
  heard: number;
  /** Time of the next retry. */
  retryAt: number;
}

export const link = new Store<Link>({ state: "connecting", heard: 0, retryAt: 0 });

type Listener = (data: unknown) => void;
const listeners = new Map<string, Set<Listener>>();

/** Listens to events of this kind, or to `open`: the connection is up, and everything has to be loaded again. */
export function on(kind: string, listener: Listener): () => void {
  const all = listeners.get(kind) ?? new Set();
  listeners.set(kind, all.add(listener));
  return () => all.delete(listener);
}

function tell(kind: string, data: unknown): void {
  for (const listener of [...(listeners.get(kind) ?? [])]) listener(data);
}

let query: string | null = null;
let stream: AbortController | null = null;
let failures = 0;
let heard = 0;
let retry = 0;
let watchdog = 0;
let hidden = 0;

/** Subscribes to events instead of the previous ones. None: no subscription. */
export function follow(wanted: string | null): void {
  if (wanted === query && (stream || retry)) return;
  query = wanted;
  failures = 0;
  stop();
  if (query !== null) void dial();
}

/** Retries at once. */
export function tryNow(): void {
  if (query === null || link.get().state === "live") return;
  stop();
  void dial();
}

function stop(): void {
  stream?.abort();
  stream = null;
  clearTimeout(retry);
  clearTimeout(watchdog);
  retry = 0;
}

function alive(): void {
  heard = Date.now();
  clearTimeout(watchdog);
  watchdog = window.setTimeout(lost, SILENCE);
  if (link.get().state !== "live") link.set({ state: "live", heard, retryAt: 0 });
}

function lost(): void {
  stop();
  const pause = Math.min(PAUSES[0] * 2 ** failures++, PAUSES[1]) * (0.7 + Math.random() * 0.3);
  link.set({ state: "lost", heard, retryAt: Date.now() + pause });
  retry = window.setTimeout(() => void dial(), pause);
}

async function dial(): Promise<void> {
  clearTimeout(retry);
  retry = 0;
  const mine = new AbortController();
  stream = mine;
  if (link.get().state !== "lost") link.set({ state: "connecting", heard, retryAt: 0 });
  watchdog = window.setTimeout(lost, SILENCE);
  try {
    const response = await fetch(`api/v1/events?${query}`, { signal: mine.signal, cache: "no-store" });
    if (response.status === 401) {
      stop();
      return expelled();
    }
    if (!response.ok || !response.body) throw new Error(`status ${response.status}`);
    failures = 0;
    alive();
    tell("open", null);
    await read(response.body.pipeThrough(new TextDecoderStream()).getReader(), mine.signal);
    throw new Error("it ended");
  } catch {
    if (!mine.signal.aborted) lost();
  }
}

async function read(reader: ReadableStreamDefaultReader<string>, signal: AbortSignal): Promise<void> {
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done || signal.aborted) return;
    alive();
    text += value;
    let at: number;
    while ((at = text.indexOf("\n\n")) >= 0) {
      event(text.slice(0, at));
      text = text.slice(at + 2);
      if (signal.aborted) return;
    }
  }
}

/** One block of a stream (WHATWG HTML, server-sent events). */
function event(block: string): void {
  let kind = "message";
  const data: string[] = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) kind = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (data.length === 0) return;
  let json: unknown;
  try {
    json = JSON.parse(data.join("\n"));
  } catch {
    return;
  }
  tell(kind, json);
}

window.addEventListener("online", tryNow);
window.addEventListener("offline", () => {
  if (query !== null && link.get().state === "live") lost();
});
// Browsers allow six connections to a server: hidden pages close theirs.
document.addEventListener("visibilitychange", () => {
  clearTimeout(hidden);
  if (document.visibilityState === "hidden") {
    hidden = window.setTimeout(() => {
      stop();
      link.set({ state: "resting", heard, retryAt: 0 });
    }, HIDDEN);
  } else if (query !== null && !stream) {
    failures = 0;
    stop();
    void dial();
  }
});
