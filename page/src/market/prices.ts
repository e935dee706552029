/** The newest price of every symbol, and the trades of the tape: fed by the stream, drawn at a bounded pace. */
import { signal } from "@preact/signals";
import { decimal, millis, places } from "../format";
import type { LiveTrade, SymbolRow } from "../types";

export interface Price {
  price: string;
  ts: number;
  /** -1, 0, 1: against the price before. */
  move: number;
  /** When it came to this page. */
  seen: number;
}

const FRESH = 4000;

/** Colour only where something has just moved: what is quiet looks quiet. */
export function tone(price: Price | undefined): "up" | "down" | "" {
  if (!price || price.move === 0 || Date.now() - price.seen > FRESH) return "";
  return price.move > 0 ? "up" : "down";
}

export const name = (row: { exchange: string; symbol: string }): string => `${row.exchange}:${row.symbol}`;

/** The most decimals that a symbol's prices were seen with: all of them are written with so many, to stand in line. */
const decimals = new Map<string, number>();

export function written(row: { exchange: string; symbol: string }, price: string): string {
  const id = name(row);
  const most = Math.max(decimals.get(id) ?? 0, places(price));
  decimals.set(id, most);
  return decimal(price, most);
}

/** By "exchange:symbol". Not a signal: `drawn` is, so that a thousand trades make one drawing. */
export const prices = new Map<string, Price>();
export const drawn = signal(0);

const DRAW_EVERY = 150;
let due = 0;

export function draw(): void {
  due ||= window.setTimeout(() => {
    due = 0;
    requestAnimationFrame(() => (drawn.value += 1));
  }, DRAW_EVERY);
}

/** Last prices as the store tells them, until trades come in. */
export function seed(rows: SymbolRow[]): void {
  for (const row of rows) {
    if (row.last_price !== null && !prices.has(name(row))) prices.set(name(row), { price: row.last_price, ts: millis(row.last_trade_ts), move: 0, seen: 0 });
  }
  draw();
}

export interface TapeTrade extends LiveTrade {
  at: number;
}

const KEPT = 3000;

/** Newest last. Trades that healed a gap are no news: they do not change the last price. */
export class Tape {
  readonly trades: TapeTrade[] = [];
  /** How many came in all, and how many the server left out because this page was too slow. */
  total = 0;
  skipped = 0;

  push(trades: LiveTrade[], skipped: number): void {
    for (const trade of trades) {
      const at = millis(trade.exchange_ts);
      this.trades.push({ ...trade, at });
      const id = name(trade);
      const before = prices.get(id);
      if (before && at < before.ts) continue;
      prices.set(id, { price: trade.price, ts: at, move: before ? Math.sign(Number(trade.price) - Number(before.price)) || before.move : 0, seen: Date.now() });
    }
    if (this.trades.length > KEPT * 1.2) this.trades.splice(0, this.trades.length - KEPT);
    this.total += trades.length;
    this.skipped += skipped;
    draw();
  }
}

export const tape = new Tape();

export interface Spread {
  low: string;
  high: string;
  /** In basis points of the middle. */
  bps: number;
}

/** Between the venues' last prices of one base asset. */
export function spread(rows: SymbolRow[]): Spread | null {
  const known = rows.flatMap((row) => prices.get(name(row)) ?? []).map((price) => ({ price: price.price, n: Number(price.price) }));
  if (known.length < 2) return null;
  const low = known.reduce((a, b) => (b.n < a.n ? b : a));
  const high = known.reduce((a, b) => (b.n > a.n ? b : a));
  return { low: low.price, high: high.price, bps: ((high.n - low.n) / ((high.n + low.n) / 2)) * 1e4 };
}
