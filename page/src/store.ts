/** What the whole page knows: the view, the theme, the connection, the key, the clock. */
import { effect, signal } from "@preact/signals";

export const VIEWS = ["market", "pipeline", "integrity", "archive", "log"] as const;
export type View = (typeof VIEWS)[number];
export type Theme = "system" | "dark" | "light";

export function stored<T extends string>(storage: Storage, name: string, fallback: T): T {
  try {
    return (storage.getItem(name) as T | null) ?? fallback;
  } catch {
    return fallback;
  }
}

export function keep(storage: Storage, name: string, value: string): void {
  try {
    if (value) storage.setItem(name, value);
    else storage.removeItem(name);
  } catch {
    // Storage may be full or forbidden: the choice then lasts as long as the page.
  }
}

/** The API key, for this tab only. */
export const key = signal(stored<string>(sessionStorage, "k2.key", ""));
/** The API has asked for a key that we don't have: why, in its words. */
export const keyWanted = signal<string | null>(null);
effect(() => keep(sessionStorage, "k2.key", key.value));

export const theme = signal<Theme>(stored(localStorage, "k2.theme", "system"));
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const darkSystem = signal(systemDark.matches);
systemDark.addEventListener("change", (event) => (darkSystem.value = event.matches));
/** Whether the page is dark now. */
export const dark = signal(true);
effect(() => {
  const chosen = theme.value;
  keep(localStorage, "k2.theme", chosen === "system" ? "" : chosen);
  dark.value = chosen === "system" ? darkSystem.value : chosen === "dark";
  if (chosen === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = chosen;
});
export const toggleTheme = (): void => void (theme.value = dark.value ? "light" : "dark");

/** A clock that ticks once a second, for ages ("12 s ago"). */
export const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 1000);

/** A colour of the theme, for canvases. */
export const colour = (name: string): string =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

