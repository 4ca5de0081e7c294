// Where in the page one is: the part of the address after `#`.

import { Store } from "./store";

export interface Route {
  page: string;
  /** Of what, such as a task's id. */
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
    // As it is written.
  }
  return { page: page || "fleet", of, query: new URLSearchParams(query) };
}

export const route = new Store<Route>(parse());
window.addEventListener("hashchange", () => route.set(parse()));

/** The address of a page. */
export function to(page: string, of = "", query: Record<string, string> = {}): string {
  const wanted = Object.entries(query).filter(([, v]) => v !== "");
  const tail = wanted.length ? `?${new URLSearchParams(wanted)}` : "";
  return `#/${page}${of ? `/${encodeURIComponent(of)}` : ""}${tail}`;
}

/** Changes what is asked for without a new step in the history. */
export function requery(page: string, of: string, query: Record<string, string>): void {
  history.replaceState(null, "", to(page, of, query));
  route.set(parse());
}
