/** The trade tape: newest first, only the visible rows are drawn, and it stands still while it is read. */
import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { clock, count, decimal } from "../format";
import type { SymbolRow } from "../types";
import { Empty, Panel, Segments } from "../ui/parts";
import { base } from "./choice";
import { drawn, tape, written, type TapeTrade } from "./prices";

const ROW = 22;
const MOST = 11;
const SCOPES = ["symbol", "asset", "all"] as const;
type Scope = (typeof SCOPES)[number];

/** Decimals that do not fit are left out, never digits before them; the title has them all. */
const fitting = (text: string): string => (text.length > MOST && text.includes(".") ? text.slice(0, Math.max(MOST, text.indexOf(".") + 2)) + "…" : text);

export function TapePanel({ row }: { row: SymbolRow | null }) {
  const scope = useSignal<Scope>("asset");
  const held = useSignal<{ trades: TapeTrade[]; total: number } | null>(null);
  const top = useSignal(0);
  const height = useSignal(400);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => (height.value = entry?.contentRect.height ?? 400));
    if (box.current) watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  const shows = (trade: TapeTrade): boolean =>
    scope.value === "all" ||
    (scope.value === "asset" ? row !== null && base(trade) === base(row) : trade.symbol === row?.symbol && trade.exchange === row?.exchange);
  const version = drawn.value;
  const trades = useMemo(
    () => (held.value?.trades ?? tape.trades).filter(shows).reverse(),
    [held.value, held.value ? 0 : version, scope.value, row],
  );
  const hold = (): void => void (held.value ??= { trades: [...tape.trades], total: tape.total });
  const release = (): void => {
    if (box.current && box.current.scrollTop < ROW) held.value = null;
    else if (!box.current?.matches(":hover, :focus-within, :focus")) held.value = null;
  };
  const from = Math.max(0, Math.floor(top.value / ROW) - 4);
  const shown = trades.slice(from, from + Math.ceil(height.value / ROW) + 8);
  const waiting = held.value ? tape.total - held.value.total : 0;
  return (
    <Panel
      class="tape"
      title="Trades"
      about={held.value ? <span class="tag warn">paused{waiting > 0 ? ` · ${count(waiting)} new` : ""}</span> : undefined}
      end={
        <Segments
          label="Which trades"
          options={SCOPES}
          chosen={scope.value}
          choose={(to) => (scope.value = to)}
          name={(option) => (option === "symbol" ? "this" : option === "asset" ? (row ? base(row) : "asset") : "all")}
        />
      }
      bodyClass="still"
    >
      <div class="taperow head" aria-hidden="true">
        <span>Time (UTC)</span>
        <span>Price</span>
        <span>Quantity</span>
      </div>
      <div
        ref={box}
        class="tapebox"
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label="Trades, newest first; stands still while the pointer or the focus is on it"
        onScroll={(event) => (top.value = event.currentTarget.scrollTop)}
        onPointerEnter={(event) => event.pointerType === "mouse" && hold()}
        onPointerLeave={release}
        onFocus={(event) => event.currentTarget.matches(":focus-visible") && hold()}
        onBlur={release}
      >
        {trades.length === 0 && <Empty title="Quiet">No trade since this page was opened.</Empty>}
        <div class="tapelong" style={{ height: `${trades.length * ROW}px` }}>
          <div style={{ transform: `translateY(${from * ROW}px)` }}>
            {shown.map((trade) => (
              <div key={`${trade.exchange}${trade.symbol}${trade.trade_id}`} class="taperow" data-venue={trade.exchange} title={`${trade.exchange} ${trade.symbol} #${trade.trade_id}, ${trade.quantity} at ${trade.price}, taker ${trade.side}${trade.source === "backfill" ? ", fetched later" : ""}`}>
                <span class="faint venue">{clock(trade.at, true)}</span>
                <span class={trade.side === "buy" ? "up" : "down"}>{written(trade, trade.price)}</span>
                <span>
                  {scope.value === "all" && <i>{base(trade)}</i>}
                  {fitting(decimal(trade.quantity))}
                </span>
              </div>
            ))}
          </div>
        </div>
      </div>
      {tape.skipped > 0 && <div class="note">{count(tape.skipped)} trades left out here: this browser was too slow for them. None is missing in the store.</div>}
    </Panel>
  );
}
