// Light or dark colours: the system setting, unless the user chose.

import { Store } from "./store";

export type Theme = "auto" | "light" | "dark";
const KEY = "outlast-theme";

function stored(): Theme {
  try {
    const word = localStorage.getItem(KEY);
    return word === "light" || word === "dark" ? word : "auto";
  } catch {
    return "auto";
  }
}

export const theme = new Store<Theme>(stored());
/** Incremented when colours change, for canvas drawings. */
export const paint = new Store(0);

function apply(): void {
  const word = theme.get();
  if (word === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.dataset.theme = word;
  paint.set(paint.get() + 1);
}

export function choose(word: Theme): void {
  try {
    if (word === "auto") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, word);
  } catch {
    // The choice applies until the page is closed.
  }
  theme.set(word);
  apply();
}

const probe = document.createElement("span");

/** Current value of a colour of the style sheet. */
export function colour(name: string): string {
  if (!probe.isConnected) {
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
apply();
