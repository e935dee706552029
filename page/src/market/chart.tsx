/** Candles with volume: history by the API, the newest by the stream; those with missing trades stand out in amber. */
import { effect, signal } from "@preact/signals";
import {
  CandlestickSeries,
  createChart,
  CrosshairMode,
  HistogramSeries,
  type IChartApi,
  type ISeriesApi,
  type UTCTimestamp,
} from "lightweight-charts";
import { useEffect, useRef } from "preact/hooks";
import { get, Problem, type Rows } from "../api";
import { clock, count, day, decimal, millis, places, short } from "../format";
import { onReset, take, want } from "../live";
import { colour, dark } from "../store";
import type { Candle, SymbolRow } from "../types";
import { Empty, Skeleton } from "../ui/parts";
import { SECONDS, type Interval } from "./choice";

const PAGE = 500;
/** Candles have been drawn: what is less urgent may be asked for now. */
const charted = signal(false);

export function Chart({ row, interval }: { row: SymbolRow; interval: Interval }) {
  const box = useRef<HTMLDivElement>(null);
  const model = useRef<Model | null>(null);
  model.current ??= new Model(row, interval);
  const { legend, problem, loaded, size } = model.current;
  useEffect(() => model.current?.mount(box.current as HTMLDivElement), []);
  const shown = legend.value;
  return (
    <div class="chartbox">
      <div ref={box} class="canvas" role="img" aria-label={`${interval} candles of ${row.symbol} on ${row.exchange}${shown ? `, last close ${shown.close}` : ""}`} />
      {shown && <Legend candle={shown} interval={interval} />}
      {!loaded.value && !problem.value && <div class="over"><Skeleton lines={8} /></div>}
      {loaded.value && size.value === 0 && <div class="over"><Empty title="No candles yet">The first one comes with the first trade.</Empty></div>}
      {problem.value && !loaded.value && (
        <div class="over">
          <Empty title={problem.value.title}>
            {problem.value.detail} {problem.value.remedy}
          </Empty>
        </div>
      )}
      <a class="credit" href="https://www.tradingview.com/" target="_blank" rel="noopener noreferrer" title="Charts by TradingView Lightweight Charts™">
        TradingView
      </a>
    </div>
  );
}

function Legend({ candle, interval }: { candle: Candle; interval: Interval }) {
  const at = millis(candle.window_start);
  const rising = Number(candle.close) >= Number(candle.open);
  const expected = candle.last_trade_id - candle.first_trade_id + 1;
  const cell = (letter: string, text: string) => (
    <span>
      <i>{letter}</i> <b class={rising ? "up" : "down"}>{decimal(text)}</b>
    </span>
  );
  return (
    <div class="legend">
      <span class="when">{interval === "1d" ? day(at) : `${day(at).slice(5)} ${clock(at).slice(0, 5)}`}</span>
      {cell("O", candle.open)}
      {cell("H", candle.high)}
      {cell("L", candle.low)}
      {cell("C", candle.close)}
      <span>
        <i>Vol</i> {short(candle.volume)}
      </span>
      <span class="spare">
        <i>Trades</i> {count(candle.trade_count)}
      </span>
      {!candle.complete && (
        <span class="warn">
          incomplete{expected > candle.trade_count ? `: ${count(expected - candle.trade_count)} of ${count(expected)} trades missing` : ": the trade before the first is missing"}
        </span>
      )}
    </div>
  );
}

const seconds = (candle: Candle): UTCTimestamp => Math.floor(millis(candle.window_start) / 1000) as UTCTimestamp;

class Model {
  readonly legend = signal<Candle | null>(null);
  readonly problem = signal<Problem | null>(null);
  readonly loaded = signal(false);
  readonly size = signal(0);
  private readonly candles = new Map<number, Candle>();
  private chart!: IChartApi;
  private bars!: ISeriesApi<"Candlestick">;
  private volumes!: ISeriesApi<"Histogram">;
  private hovered = false;
  private oldest = false;
  private loading = false;
  private precision = -1;
  private retry = 0;
  private readonly abort = new AbortController();

  constructor(
    private readonly row: SymbolRow,
    private readonly interval: Interval,
  ) {}

  mount(box: HTMLDivElement): () => void {
    this.chart = createChart(box, {
      autoSize: true,
      crosshair: { mode: CrosshairMode.Normal },
      layout: { attributionLogo: false, fontSize: 11 },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.12, bottom: 0.22 } },
      timeScale: { borderVisible: false, timeVisible: this.interval !== "1d", secondsVisible: false, rightOffset: 4, barSpacing: 7, minBarSpacing: 1 },
      localization: { locale: "en-GB" },
    });
    this.volumes = this.chart.addSeries(HistogramSeries, { priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false });
    this.chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    this.bars = this.chart.addSeries(CandlestickSeries, { priceLineStyle: 2 });
    this.chart.subscribeCrosshairMove((event) => {
      const candle = event.time === undefined ? undefined : this.candles.get(event.time as number);
      this.hovered = candle !== undefined;
      this.legend.value = candle ?? this.newest();
    });
    this.chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range && range.from < 30) void this.older();
    });
    const paint = effect(() => this.paint(dark.value));
    const stops = [
      paint,
      take({ candles: (candles) => this.update(candles.filter((c) => c.interval === this.interval && c.symbol === this.row.symbol && c.exchange === this.row.exchange)) }),
      onReset(() => void this.load()),
    ];
    want("candles", { symbols: [`${this.row.exchange}:${this.row.symbol}`], intervals: [this.interval] });
    void this.load();
    return () => {
      stops.forEach((stop) => stop());
      want("candles", null);
      clearTimeout(this.retry);
      this.abort.abort();
      this.chart.remove();
    };
  }

  private newest(): Candle | null {
    return this.candles.get(Math.max(...this.candles.keys())) ?? null;
  }

  private ask(to: string): Promise<Rows<Candle>> {
    const from = (to === "now" ? Date.now() : Date.parse(to)) - PAGE * SECONDS[this.interval] * 1000;
    const range = { from: new Date(from).toISOString(), ...(to === "now" ? {} : { to }) };
    const { exchange, symbol } = this.row;
    return get<Rows<Candle>>(`/v1/candles/${this.interval}`, { exchange, symbol, limit: PAGE + 1, ...range }, this.abort.signal);
  }

  private async load(attempt = 0): Promise<void> {
    try {
      this.merge((await this.ask("now")).data);
      this.problem.value = null;
      if (!this.loaded.value) this.chart.timeScale().scrollToRealTime();
      if (!charted.value) performance.mark("k2-candles");
      charted.value = true;
      this.loaded.value = true;
    } catch (error) {
      if (this.abort.signal.aborted) return;
      this.problem.value = error as Problem;
      this.retry = window.setTimeout(() => void this.load(attempt + 1), Math.min(15_000, 1000 * 2 ** attempt));
    }
  }

  private async older(): Promise<void> {
    if (this.loading || this.oldest || !this.loaded.value || !this.candles.size) return;
    this.loading = true;
    try {
      const first = Math.min(...this.candles.keys());
      const { data } = await this.ask(new Date(first * 1000).toISOString());
      if (data.length) this.merge(data);
      else this.oldest = true;
    } catch {
      this.oldest = this.abort.signal.aborted; // asked again at the next move
    } finally {
      this.loading = false;
    }
  }

  private merge(candles: Candle[]): void {
    for (const candle of candles) {
      const known = this.candles.get(seconds(candle));
      if (!known || known.trade_count <= candle.trade_count) this.candles.set(seconds(candle), candle);
    }
    const sorted = [...this.candles].sort(([a], [b]) => a - b).map(([, candle]) => candle);
    this.size.value = sorted.length;
    this.format(sorted);
    this.bars.setData(sorted.map((candle) => this.bar(candle)));
    this.volumes.setData(sorted.map((candle) => this.volume(candle)));
    if (!this.hovered) this.legend.value = sorted.at(-1) ?? null;
  }

  private update(candles: Candle[]): void {
    if (!candles.length) return;
    const last = Math.max(-1, ...this.candles.keys());
    if (candles.some((candle) => seconds(candle) < last)) return this.merge(candles);
    for (const candle of candles) {
      this.candles.set(seconds(candle), candle);
      this.bars.update(this.bar(candle));
      this.volumes.update(this.volume(candle));
    }
    this.size.value = this.candles.size;
    if (!this.hovered) this.legend.value = this.newest();
  }

  private format(candles: Candle[]): void {
    const precision = Math.min(8, Math.max(0, ...candles.slice(-50).flatMap((c) => [places(c.close), places(c.high), places(c.low)])));
    if (precision <= this.precision) return;
    this.precision = precision;
    this.bars.applyOptions({ priceFormat: { type: "price", precision, minMove: 10 ** -precision } });
  }

  private bar(candle: Candle) {
    const warn = colour("warn");
    const rising = Number(candle.close) >= Number(candle.open);
    const marked = candle.complete ? {} : { color: rising ? colour("panel") : warn, borderColor: warn, wickColor: warn };
    return { time: seconds(candle), open: Number(candle.open), high: Number(candle.high), low: Number(candle.low), close: Number(candle.close), ...marked };
  }

  private volume(candle: Candle) {
    const tint = candle.complete ? (Number(candle.close) >= Number(candle.open) ? "up" : "down") : "warn";
    return { time: seconds(candle), value: Number(candle.volume), color: `${colour(tint)}55` };
  }

  private paint(_dark: boolean): void {
    const line = colour("line");
    this.chart.applyOptions({
      layout: { background: { color: colour("panel") }, textColor: colour("faint"), fontFamily: getComputedStyle(document.body).fontFamily },
      grid: { vertLines: { color: `${line}88` }, horzLines: { color: `${line}88` } },
      crosshair: {
        vertLine: { color: colour("edge"), labelBackgroundColor: colour("edge") },
        horzLine: { color: colour("edge"), labelBackgroundColor: colour("edge") },
      },
    });
    const up = colour("up");
    const down = colour("down");
    this.bars.applyOptions({ upColor: up, borderUpColor: up, wickUpColor: up, downColor: down, borderDownColor: down, wickDownColor: down });
    if (this.candles.size) this.merge([]);
  }
}
