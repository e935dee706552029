/** Which symbol and interval are looked at; both stand in the address. */
import { computed, signal } from "@preact/signals";
import { note, query } from "../router";
import type { SymbolRow } from "../types";
import { keep, stored } from "../store";
import { name } from "./prices";

const remembered = stored(localStorage, "k2.symbol", "");

export const INTERVALS = ["1m", "5m", "15m", "30m", "1h", "1d"] as const;
export type Interval = (typeof INTERVALS)[number];
export const SECONDS: Record<Interval, number> = { "1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "1d": 86_400 };

export const base = (row: { symbol: string }): string => row.symbol.split("-")[0] ?? "";
export const quote = (row: { symbol: string }): string => row.symbol.split("-")[1] ?? "";

export const symbols = signal<SymbolRow[]>([]);
export const venues = computed(() => [...new Set(symbols.value.map((row) => row.exchange))].sort());

export interface Base {
  base: string;
  rows: SymbolRow[];
}

/** Base assets in the order in which the first venue lists them. */
export const bases = computed<Base[]>(() => {
  const found = new Map<string, SymbolRow[]>();
  for (const row of symbols.value) found.set(base(row), [...(found.get(base(row)) ?? []), row]);
  const rank = (base: string): number => {
    const at = ["BTC", "ETH", "SOL", "XRP", "BNB"].indexOf(base);
    return at < 0 ? 99 : at;
  };
  return [...found]
    .map(([base, rows]) => ({ base, rows: rows.sort((a, b) => (a.exchange < b.exchange ? -1 : 1)) }))
    .sort((a, b) => rank(a.base) - rank(b.base) || (a.base < b.base ? -1 : 1));
});

/** "exchange:symbol" as the address says (its candles need not wait for the list), else the first symbol there is. */
export const chosen = computed<SymbolRow | null>(() => {
  const wanted = query.value.get("symbol") ?? remembered;
  const [exchange, symbol] = wanted?.split(":") ?? [];
  const unlisted = exchange && symbol && !symbols.value.length ? { exchange, symbol, native_symbol: "", last_trade_ts: "", last_price: null } : null;
  return symbols.value.find((row) => name(row) === wanted) ?? bases.value[0]?.rows[0] ?? unlisted;
});

export const interval = computed<Interval>(() => {
  const wanted = query.value.get("interval") as Interval;
  return INTERVALS.includes(wanted) ? wanted : "1m";
});

export function choose(row: SymbolRow): void {
  note({ symbol: name(row) });
  keep(localStorage, "k2.symbol", name(row));
}
export const chooseInterval = (wanted: Interval): void => note({ interval: wanted === "1m" ? "" : wanted });
