/** What the platform says of itself: the newest look, the looks before it as curves, and what stands, in words. */
import { computed, signal } from "@preact/signals";
import type { State, Status } from "./types";

export const status = signal<(Status & { at: number }) | null>(null);

const KEPT = 150;
/** Times in s since 1970, and each venue's trades a second at these times. */
export const history: { times: number[]; rates: Map<string, (number | null)[]> } = { times: [], rates: new Map() };

export function look(found: Status): void {
  const at = Date.now() / 1000;
  const before = history.times.at(-1);
  if (before === undefined || at - before > 1) {
    history.times.push(at);
    for (const venue of found.venues) {
      const rates = history.rates.get(venue.exchange) ?? Array<number | null>(history.times.length - 1).fill(null);
      rates.push(venue.rate);
      history.rates.set(venue.exchange, rates);
    }
    for (const rates of history.rates.values()) {
      while (rates.length < history.times.length) rates.push(null);
      if (rates.length > KEPT) rates.splice(0, rates.length - KEPT);
    }
    if (history.times.length > KEPT) history.times.splice(0, history.times.length - KEPT);
  }
  status.value = { ...found, at };
}

export interface Worry {
  where: string;
  state: State;
  reason: string;
}

/** Everything that is not as it should be, the worst first. */
export const worries = computed<Worry[]>(() => {
  const found: Worry[] = [];
  const seen = new Set<string>();
  for (const edge of status.value?.edges ?? []) {
    if (edge.state === "ok" || seen.has(edge.reason)) continue;
    seen.add(edge.reason);
    found.push({ where: `${edge.source} → ${edge.target}`, state: edge.state, reason: edge.reason });
  }
  return found.sort((a, b) => Number(b.state === "stopped") - Number(a.state === "stopped"));
});
