// Requests to the coordinator. Addresses are relative to the page, so that a proxy may put a prefix in
// front of both.

import { Store } from "./store";
import type { Problem, Session, TaskResult } from "./types";

/** Longest wait for an answer, in milliseconds. */
const PATIENCE = 15_000;
/** Identifies requests of this page; other sites cannot send this header. */
const OURS = { "outlast-dashboard": "1" };

/** Current login; none: not known yet. */
export const session = new Store<Session | null>(null);
/** Reason for a new login. */
export const parting = new Store("");

export class ApiError extends Error {
  constructor(
    readonly status: number,
    title: string,
    readonly detail: string,
  ) {
    super(title);
  }
  /** True if the coordinator could not be reached. */
  get unreachable(): boolean {
    return this.status === 0;
  }
}

function unreachable(error: unknown): ApiError {
  const slow = error instanceof DOMException && error.name === "TimeoutError";
  return new ApiError(0, "the coordinator cannot be reached", slow ? "it did not answer in time" : "");
}

/** The key or the session is not valid any more. */
export function expelled(): void {
  const old = session.get();
  if (old?.needed && old.role) parting.set("Your session has ended. Log in again.");
  session.set({ role: null, needed: true, expires_at: null });
}

async function problem(response: Response): Promise<ApiError> {
  const text = await response.text().catch(() => "");
  try {
    const p = JSON.parse(text) as Problem;
    return new ApiError(response.status, p.title || response.statusText, p.detail || "");
  } catch {
    return new ApiError(response.status, response.statusText || `status ${response.status}`, "");
  }
}

/** Sends a request; throws an `ApiError`. */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const limit = AbortSignal.timeout(PATIENCE);
  const signal = init.signal ? AbortSignal.any([init.signal, limit]) : limit;
  let response: Response;
  try {
    response = await fetch(path, { ...init, signal, headers: { ...OURS, ...init.headers } });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw unreachable(error);
  }
  if (response.ok) return response;
  if (response.status === 401 && path !== "api/v1/session") expelled();
  throw await problem(response);
}

export async function get<T>(path: string, signal?: AbortSignal, read = (text: string) => JSON.parse(text) as T): Promise<T> {
  const response = await ask(path, { signal });
  try {
    return read(await response.text());
  } catch (error) {
    if (signal?.aborted) throw error;
    throw unreachable(error);
  }
}

/** The end of a task, with its value as JSON text. */
export type TextResult = Omit<TaskResult, "value"> & { value: string | null };

/** Parses the result of a task. Its value stays text, since parsing would round numbers. It is the last field, and no text within can look like its name. */
export function readResult(text: string): TextResult {
  const at = text.indexOf(',"value":');
  if (at < 0) return { ...(JSON.parse(text) as TaskResult), value: null };
  const value = text.slice(at + ',"value":'.length, text.lastIndexOf("}"));
  return { ...(JSON.parse(`${text.slice(0, at)}}`) as TaskResult), value: value === "null" ? null : value };
}

export async function act(method: "POST" | "DELETE", path: string, body?: unknown): Promise<void> {
  const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  await ask(path, { method, ...json });
}

export const seg = encodeURIComponent;

/** Loads the current login. */
export async function whoAmI(): Promise<void> {
  session.set(await get<Session>("api/v1/session"));
}

export async function logIn(key: string): Promise<void> {
  const response = await ask("api/v1/session", {
    method: "POST",
    body: JSON.stringify({ key }),
    headers: { "content-type": "application/json" },
  });
  parting.set("");
  session.set((await response.json()) as Session);
}

export async function logOut(): Promise<void> {
  await act("DELETE", "api/v1/session");
  parting.set("You are logged out.");
  session.set({ role: null, needed: true, expires_at: null });
}
