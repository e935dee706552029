/** What the API and the stream give, as far as the page uses it. Decimals are text; ids and counts are numbers. */

export interface SymbolRow {
  exchange: string;
  symbol: string;
  native_symbol: string;
  last_trade_ts: string;
  last_price: string | null;
}

export interface Candle {
  exchange: string;
  symbol: string;
  window_start: string | number;
  open: string;
  high: string;
  low: string;
  close: string;
  volume: string;
  quote_volume: string;
  buy_volume: string;
  vwap: string;
  trade_count: number;
  first_trade_id: number;
  last_trade_id: number;
  complete: boolean | 0 | 1;
}

export interface LiveCandle extends Candle {
  interval: string;
  final: boolean;
}

export interface Trade {
  exchange: string;
  symbol: string;
  trade_id: number;
  price: string;
  quantity: string;
  side: "buy" | "sell";
  exchange_ts: string | number;
  recv_ts: string | number;
  source: "live" | "backfill";
}
export type LiveTrade = Trade;

export interface Gap {
  exchange: string;
  symbol: string;
  epoch: number;
  first_id: number;
  last_id: number;
  state: "start" | "open" | "healed" | "unavailable" | "epoch";
  reason: string;
  missing: [number, number][];
  event_ts: string | number;
  detected_ts: string | number;
}
/** As it stands in the log: what is empty is left out. */
export type LiveGap = Omit<Gap, "epoch" | "missing"> & Partial<Pick<Gap, "epoch" | "missing">>;

export interface Stage {
  p50_s: number;
  p99_s: number;
  rate?: number | null;
}

export interface Process {
  service: string;
  pid: number;
  up: number;
  /** Percent of one core. */
  cpu: number;
  /** Bytes. */
  memory: number;
  answers: boolean;
  queue?: number;
  /** By the supervisor; null where none runs. */
  restarts?: number | null;
}

export interface VenueStatus {
  exchange: string;
  /** Its feed has said nothing: the figures are no figures. */
  silent?: boolean;
  connected: boolean;
  rate: number;
  trades: number;
  /** Seconds since 1970. */
  last_trade: number | null;
  gaps_open: number;
  gaps_healed: number;
  duplicates: number;
  faults: number;
  reconnects: number;
  clock_offset: number | null;
  lag: number;
  stages?: Record<string, Stage>;
  age_s?: number | null;
  state: State;
  reason: string;
  /** Its own part of the way: exchange to feed, log, loader; log to archiver. */
  edges: Edge[];
}

export type State = "ok" | "slow" | "stopped";

export interface Edge {
  source: string;
  target: string;
  path: "hot" | "cold";
  unit: string;
  rate: number | null;
  lag: number | null;
  lag_s: number | null;
  p50_s: number | null;
  p99_s: number | null;
  took_s: number | null;
  state: State;
  reason: string;
}

export interface Status {
  processes: Process[];
  venues: VenueStatus[];
  stages: Record<string, Stage>;
  edges?: Edge[];
  missing?: string[];
  restarts?: Record<string, number>;
  jobs?: Record<string, Job>;
  serving?: { queries: number; requests: number; subscribers: number };
}

export interface Consumer {
  consumer: string;
  offset: number;
  lag: number;
  lag_s: number;
}

export interface StreamState {
  stream: string;
  kind: "trades" | "frames" | "gaps" | "other";
  exchange: string;
  partitions: number;
  start: number;
  end: number;
  records: number;
  bytes: number;
  rate: number;
  last_append: string;
  age_s: number;
  consumers: Consumer[];
}

export interface Message {
  offset: number;
  append_ts: string;
  key: string;
  size: number;
  kind: "trade" | "gap" | "frame" | "other";
  record: unknown;
  cut: boolean;
}

export interface Messages {
  stream: string;
  data: Message[];
  order: "newest first" | "oldest first";
  scanned: number;
  next: number | null;
  complete: boolean;
  start: number;
  end: number;
}

export interface Snapshot {
  table: string;
  snapshot_id: string;
  time: string;
  operation: string;
  rows: number;
  added_rows: number;
  removed_rows: number;
  files: number;
  added_files: number;
  removed_files: number;
  bytes: number;
  offsets: Record<string, number>;
  current: boolean;
}

export interface ColdTable {
  table: string;
  rows: number;
  files: number;
  bytes: number;
  bytes_per_row: number | null;
  snapshots: number;
  snapshot_id: string | null;
  last_commit: string | null;
  offsets: Record<string, number>;
  lag: number;
  lag_s: number;
  trouble: string;
}

export interface Job {
  ok: number;
  failed: number;
  /** Seconds since 1970. */
  last_success: number | null;
  seconds: number | null;
}

export interface Audited {
  time: string;
  ok: boolean;
  against: string;
  exchange: string;
  symbol: string;
  day: string;
  rows: number;
  seconds: number;
  snapshots: Record<string, string | null>;
  findings: Record<string, number>;
  texts: string[];
}

export interface ArchiveState {
  tables: ColdTable[];
  rows: number;
  bytes: number;
  bytes_per_trade: number | null;
  lag: number;
  lag_s: number;
  every_s: number;
  maintain_at: string;
  last_offload: string | null;
  last_maintenance: string | null;
  jobs: Record<string, Job>;
  last_audit: Audited | null;
  last_partial_audit: Audited | null;
}

export interface Snapshots {
  data: Snapshot[];
  more: number;
}

/** Completeness of one symbol in one hour. */
export interface HourRow {
  exchange: string;
  symbol: string;
  window_start: string;
  trades: number;
  missing: number;
  first_trade_id: number;
  last_trade_id: number;
}

export interface Proof {
  exchange: string;
  symbol: string;
  epoch: number;
  day: string;
  revision: number;
  trade_count: number;
  first_id: number;
  last_id: number;
  missing: [number, number][];
  preceded: boolean;
  content_hash: string;
  sealed_at: string;
}
