/** One base asset over its venues: last prices side by side, how far each stands from the lowest, the spread. */
import { ago, decimal } from "../format";
import { now } from "../store";
import type { SymbolRow } from "../types";
import { base, choose, quote } from "./choice";
import { drawn, name, prices, spread, tone, written } from "./prices";

export function Venues({ rows, chosen }: { rows: SymbolRow[]; chosen: SymbolRow | null }) {
  drawn.value;
  if (!rows.length) return null;
  const between = spread(rows);
  const quotes = new Set(rows.map(quote));
  return (
    <section class="venues" aria-label={`${rows[0] && base(rows[0])} over its venues`}>
      {rows.map((row) => {
        const price = prices.get(name(row));
        const above = price && between ? ((Number(price.price) - Number(between.low)) / Number(between.low)) * 1e4 : 0;
        return (
          <button
            type="button"
            key={row.exchange + row.symbol}
            class="panel quote"
            data-venue={row.exchange}
            aria-pressed={chosen !== null && name(chosen) === name(row)}
            onClick={() => choose(row)}
          >
            <span class="venue">{row.exchange}</span>
            <span class="faint pair">{row.symbol}</span>
            <b class={tone(price)}>{price ? written(row, price.price) : "–"}</b>
            <span class="faint age">{price ? ago(price.ts, now.value) : "no trade yet"}</span>
            <span class="muted above">{between && (above < 0.005 ? "lowest" : `+${above.toFixed(1)} bp`)}</span>
          </button>
        );
      })}
      <div class="panel quote spread" title={quotes.size > 1 ? "The venues quote in different currencies (USD, USDT): their rate is in the spread." : undefined}>
        <span>Spread</span>
        <span class="faint pair">{[...quotes].join(" / ")}</span>
        <b>{between ? `${between.bps.toFixed(1)} bp` : "–"}</b>
        <span class="faint age">{between ? `${decimal(between.low)} – ${decimal(between.high)}` : "one venue only"}</span>
      </div>
    </section>
  );
}
