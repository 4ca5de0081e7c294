// Current view: the part of the address after `#`.

import { Store } from "./store";

export interface Route {
  page: string;
  /** Object of the view, such as a task's id. */
  of: string;
  query: URLSearchParams;
}

function parse(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [page = "", ...rest] = path.split("/");
  let of = rest.join("/");
  try {
    of = decodeURIComponent(of);
  } catch {
    // Malformed escapes stay as they are.
  }
  return { page: page || "fleet", of, query: new URLSearchParams(query) };
}

export const route = new Store<Route>(parse());
window.addEventListener("hashchange", () => route.set(parse()));

/** Address of a view. */
export function to(page: string, of = "", query: Record<string, string> = {}): string {
  const wanted = Object.entries(query).filter(([, v]) => v !== "");
  const tail = wanted.length ? `?${new URLSearchParams(wanted)}` : "";
  return `#/${page}${of ? `/${encodeURIComponent(of)}` : ""}${tail}`;
}

/** Changes the query without a new history entry. */
export function requery(page: string, of: string, query: Record<string, string>): void {
  history.replaceState(null, "", to(page, of, query));
  route.set(parse());
}
