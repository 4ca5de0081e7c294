// Loads the data of a page: again after a reconnect, after events, or periodically.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "./api";
import { link, on } from "./live";

export interface Loaded<T> {
  data: T | undefined;
  error: ApiError | undefined;
  /** Reloads soon. */
  again: () => void;
}

export interface When {
  /** Milliseconds between reloads while the connection is up; none: only after events. */
  every?: number;
  /** Kinds of events that cause a reload. */
  events?: string[];
  /** Filter of events. */
  matters?: (data: unknown) => boolean;
  /** Minimum time between reloads, in milliseconds. */
  pace?: number;
  /** True to load nothing for now. */
  off?: boolean;
}

/** Result of `load`, for as long as `key` stays the same. Old data stay if a reload fails. */
export function useLoad<T>(key: string, load: (signal: AbortSignal) => Promise<T>, when: When = {}): Loaded<T> {
  const [state, set] = useState<{ key: string; data?: T; error?: ApiError }>({ key });
  const latest = useRef({ load, when });
  latest.current = { load, when };
  const again = useRef(() => {});

  useEffect(() => {
    if (when.off) return;
    const abort = new AbortController();
    let timer = 0;
    let began = 0;
    let busy = false;
    let wanted = false;
    const look = async () => {
      clearTimeout(timer);
      timer = 0;
      busy = true;
      wanted = false;
      began = Date.now();
      try {
        const data = await latest.current.load(abort.signal);
        if (!abort.signal.aborted) set({ key, data });
      } catch (error) {
        if (abort.signal.aborted) return;
        const known = error instanceof ApiError ? error : new ApiError(0, String(error), "");
        set((old) => ({ key, data: old.key === key ? old.data : undefined, error: known }));
      }
      busy = false;
      if (abort.signal.aborted) return;
      const { every } = latest.current.when;
      if (wanted) soon();
      else if (every && ["live", "connecting"].includes(link.get().state)) timer = window.setTimeout(() => void look(), every);
    };
    const soon = () => {
      wanted = true;
      if (busy) return;
      clearTimeout(timer);
      const pause = Math.max(0, began + (latest.current.when.pace ?? 500) - Date.now());
      timer = window.setTimeout(() => void look(), pause);
    };
    again.current = soon;
    void look();
    const offs = [on("open", soon), on("missed", soon)];
    for (const kind of when.events ?? []) {
      offs.push(on(kind, (data) => (latest.current.when.matters?.(data) ?? true) && soon()));
    }
    return () => {
      abort.abort();
      clearTimeout(timer);
      for (const off of offs) off();
    };
  }, [key, when.off]);

  const mine = state.key === key;
  return {
    data: mine ? state.data : undefined,
    error: mine ? state.error : undefined,
    again: useCallback(() => again.current(), []),
  };
}
