/** Which view, and what is chosen in it: both stand in the address, so that a link leads to what is seen. */
import { signal } from "@preact/signals";
import { VIEWS, type View } from "./store";

function viewOf(path: string): View {
  const first = path.split("/")[1] ?? "";
  return (VIEWS as readonly string[]).includes(first) ? (first as View) : "market";
}

if (location.pathname === "/") history.replaceState(null, "", `/market${location.search}`);

export const view = signal<View>(viewOf(location.pathname));
export const query = signal(new URLSearchParams(location.search));
const lastQuery = new Map<View, string>();

addEventListener("popstate", () => {
  view.value = viewOf(location.pathname);
  query.value = new URLSearchParams(location.search);
});

/** Go to a view; what was chosen in it last is chosen again unless `search` says otherwise. */
export function go(to: View, search = lastQuery.get(to) ?? ""): void {
  lastQuery.set(view.value, location.search);
  if (to === view.value && search === location.search) return;
  history.pushState(null, "", `/${to}${search}`);
  view.value = to;
  query.value = new URLSearchParams(search);
}

/** Note a choice in the address without a new entry in the history. */
export function note(choices: Record<string, string>): void {
  const next = new URLSearchParams(query.value);
  for (const [name, value] of Object.entries(choices)) {
    if (value) next.set(name, value);
    else next.delete(name);
  }
  const text = next.toString().replaceAll("%3A", ":");
  history.replaceState(null, "", location.pathname + (text ? `?${text}` : ""));
  query.value = next;
}
