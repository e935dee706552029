/** Market: which symbols there are, how their prices went, what is traded this very moment. */
import { useEffect } from "preact/hooks";
import { useAsk, type Rows } from "../api";
import { moving, useKeys } from "../keys";
import { onReset, take, want } from "../live";
import type { SymbolRow } from "../types";
import { Answered, Empty, Segments } from "../ui/parts";
import { Chart } from "./chart";
import { base, bases, choose, chooseInterval, chosen, interval, INTERVALS, symbols } from "./choice";
import { Picker, visible } from "./picker";
import { drawn, name, prices, seed, tape, tone, written } from "./prices";
import { TapePanel } from "./tape";
import { Venues } from "./venues";

export function Market() {
  const asked = useAsk<Rows<SymbolRow>>("/v1/symbols", 60_000);
  useEffect(() => {
    if (!asked.data) return;
    symbols.value = asked.data.data;
    seed(asked.data.data);
  }, [asked.data]);
  useEffect(() => {
    const stops = [take({ trades: (trades, skipped) => tape.push(trades, skipped) }), onReset(asked.again)];
    want("trades", { symbols: ["*"], slow: "conflate", start: "-30s" });
    return () => {
      stops.forEach((stop) => stop());
      want("trades", null);
    };
  }, []);
  const row = chosen.value;
  const list = visible.value.flatMap((base) => base.rows);
  const at = row ? list.findIndex((other) => name(other) === name(row)) : -1;
  useKeys({
    ...moving(at, list.length, (index) => choose(list[index] as SymbolRow)),
    i: () => chooseInterval(INTERVALS[(INTERVALS.indexOf(interval.value) + 1) % INTERVALS.length] ?? "1m"),
    "/": () => document.querySelector<HTMLInputElement>("#symbol-search")?.focus(),
  });
  return (
    <div class="market">
      <Picker asked={asked} />
      <section class="panel chart" aria-label="Candles">
        <header>
          {row ? <Headline row={row} /> : <h2>Candles</h2>}
          <span class="end">
            <Segments label="Interval" options={INTERVALS} chosen={interval.value} choose={chooseInterval} />
          </span>
        </header>
        <Answered
          waiting={asked.waiting}
          problem={asked.problem}
          empty={!row}
          nothing={<Empty title="No symbols yet">As soon as the first trade is stored, its symbol stands here.</Empty>}
        >
          {row && <Chart key={`${name(row)} ${interval.value}`} row={row} interval={interval.value} />}
        </Answered>
      </section>
      <Venues rows={bases.value.find((one) => row && one.base === base(row))?.rows ?? []} chosen={row} />
      <TapePanel row={row} />
    </div>
  );
}

function Headline({ row }: { row: SymbolRow }) {
  drawn.value;
  const price = prices.get(name(row));
  return (
    <>
      <h2 class="symbol" data-venue={row.exchange}>
        {row.symbol} <span class="venue">{row.exchange}</span>
      </h2>
      {price && (
        <output class={`last ${tone(price)}`} aria-label="Last price" data-price>
          {written(row, price.price)}
        </output>
      )}
    </>
  );
}
