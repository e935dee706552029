/** Completeness as a grid: a line for each symbol of each venue, a column for each hour. */
import { millis } from "../format";
import type { HourRow } from "../types";

export const HOUR = 3_600_000;

export interface Line {
  exchange: string;
  symbol: string;
}

export interface Cell extends Line {
  at: number;
  trades: number;
  missing: number;
  first: number;
  last: number;
}

export interface Grid {
  lines: Line[];
  hours: number[];
  /** By line, then by hour; null: nothing is claimed of that hour. */
  cells: (Cell | null)[][];
  trades: number;
  missing: number;
}

/** Part of the ids that are there. */
export const share = (cell: { trades: number; missing: number }): number => cell.trades / Math.max(1, cell.trades + cell.missing);

export function grid(rows: HourRow[], hours: number, now: number): Grid {
  const last = Math.floor(now / HOUR) * HOUR;
  const columns = Array.from({ length: hours }, (_, i) => last - (hours - 1 - i) * HOUR);
  const lines = new Map<string, Line>();
  const cells = new Map<string, Cell>();
  let trades = 0;
  let missing = 0;
  for (const row of rows) {
    const at = Math.floor(millis(row.window_start) / HOUR) * HOUR;
    const id = `${row.exchange}:${row.symbol}`;
    lines.set(id, { exchange: row.exchange, symbol: row.symbol });
    const { exchange, symbol } = row;
    cells.set(`${id} ${at}`, { exchange, symbol, at, trades: row.trades, missing: row.missing, first: row.first_trade_id, last: row.last_trade_id });
    trades += row.trades;
    missing += row.missing;
  }
  const sorted = [...lines.values()].sort((a, b) => (a.exchange === b.exchange ? (a.symbol < b.symbol ? -1 : 1) : a.exchange < b.exchange ? -1 : 1));
  return {
    lines: sorted,
    hours: columns,
    cells: sorted.map((line) => columns.map((at) => cells.get(`${line.exchange}:${line.symbol} ${at}`) ?? null)),
    trades,
    missing,
  };
}

/** 0 (most missing) to 4 (nothing missing). */
export function level(cell: Cell): number {
  if (cell.missing === 0) return 4;
  const lost = 1 - share(cell);
  return lost < 0.001 ? 3 : lost < 0.01 ? 2 : lost < 0.1 ? 1 : 0;
}
