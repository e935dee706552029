/** The symbols: one line a base asset, its venues side by side with their last prices. */
import { computed, signal } from "@preact/signals";
import type { Asked, Rows } from "../api";
import type { SymbolRow } from "../types";
import { Answered, Empty } from "../ui/parts";
import { bases, choose, chosen, type Base, venues } from "./choice";
import { drawn, name, prices, spread, tone, written } from "./prices";

const search = signal("");

/** The base assets that the search leaves: every word must be in the base, the symbol or the venue. */
export const visible = computed<Base[]>(() => {
  const words = search.value.toUpperCase().split(/\s+/).filter(Boolean);
  if (!words.length) return bases.value;
  return bases.value
    .map(({ base, rows }) => ({
      base,
      rows: rows.filter((row) => {
        const text = `${row.symbol} ${row.exchange} ${row.native_symbol}`.toUpperCase();
        return words.every((word) => text.includes(word));
      }),
    }))
    .filter(({ rows }) => rows.length);
});

export function Picker({ asked }: { asked: Asked<Rows<SymbolRow>> }) {
  const first = visible.value[0]?.rows[0];
  return (
    <section class="panel picker" aria-label="Symbols">
      <div class="search">
        <input
          id="symbol-search"
          class="field"
          type="search"
          placeholder="Search symbols"
          aria-label="Search symbols"
          autocomplete="off"
          spellcheck={false}
          value={search.value}
          onInput={(event) => (search.value = event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Escape") {
              if (search.value) search.value = "";
              event.currentTarget.blur();
            }
            if (event.key === "Enter" && first) {
              choose(first);
              search.value = "";
              event.currentTarget.blur();
            }
          }}
        />
        <kbd aria-hidden="true">/</kbd>
      </div>
      <div class="body">
        <Answered
          waiting={asked.waiting}
          problem={asked.problem}
          empty={!visible.value.length}
          lines={14}
          nothing={<Empty title="No such symbol">{search.value ? "Nothing fits the search." : "Nothing is stored yet."}</Empty>}
        >
          <table class="matrix">
            <thead>
              <tr>
                <th scope="col">Base</th>
                {venues.value.map((venue) => (
                  <th scope="col" class="n" key={venue} data-venue={venue}>
                    <span class="venue">{venue}</span>
                  </th>
                ))}
                <th scope="col" class="n" title="Between the venues' last prices, in basis points">
                  bp
                </th>
              </tr>
            </thead>
            <tbody>
              {visible.value.map((base) => (
                <tr key={base.base}>
                  <th scope="row">{base.base}</th>
                  {venues.value.map((venue) => (
                    <td key={venue} class="n">
                      {base.rows
                        .filter((row) => row.exchange === venue)
                        .map((row) => (
                          <Cell key={row.symbol} row={row} />
                        ))}
                    </td>
                  ))}
                  <td class="n faint">
                    <Between base={base} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Answered>
      </div>
    </section>
  );
}

function Cell({ row }: { row: SymbolRow }) {
  drawn.value;
  const price = prices.get(name(row));
  const current = chosen.value !== null && name(chosen.value) === name(row);
  return (
    <button
      type="button"
      class={`cell ${tone(price)}`}
      aria-pressed={current}
      aria-label={`${row.symbol} on ${row.exchange}${price ? `, ${price.price}` : ""}`}
      title={`${row.symbol} (${row.native_symbol})`}
      onClick={() => choose(row)}
    >
      {price ? written(row, price.price) : "–"}
    </button>
  );
}

function Between({ base }: { base: Base }) {
  drawn.value;
  const between = spread(base.rows);
  return <>{between ? between.bps.toFixed(between.bps < 100 ? 1 : 0) : ""}</>;
}
