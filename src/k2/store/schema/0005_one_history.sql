-- Hot and cold as one. `k2.trades` is made anew by `seam.py` whenever trades are handed over to the cold tier, or another
-- snapshot of it is pinned; what stands here is how a store begins.

CREATE DATABASE IF NOT EXISTS cold;

-- The tables that `k2.trades` reads: each stays as it was made, for questions that began before the next was.
CREATE DATABASE IF NOT EXISTS cold_pins;

CREATE TABLE IF NOT EXISTS k2.pins
(
    number UInt64,
    name String COMMENT 'the cold table',
    metadata String COMMENT 'URI of the metadata file that the catalog named',
    snapshot_id Int64,
    committed_ms Int64,
    offsets Map(String, UInt64) COMMENT 'stream to the next offset that the snapshot lacks',
    generation UInt64 COMMENT 'the last commit when it was pinned ...',
    positions Map(String, UInt64) COMMENT '... and where that stood',
    pinned_at DateTime64(6, 'UTC')
)
ENGINE = MergeTree
ORDER BY (name, number)
COMMENT 'Snapshots of the cold tables that were pinned; the newest of each name is shown';

CREATE TABLE IF NOT EXISTS k2.seams
(
    version UInt64,
    generation UInt64 COMMENT 'trades of newer generations are hot wherever they lie',
    ranges Array(Tuple(Int64, Int64)) COMMENT 'exchange times (ns, end exclusive) for which cold answers',
    moved_at DateTime64(6, 'UTC')
)
ENGINE = MergeTree
ORDER BY version
COMMENT 'Where hot ends and cold begins; the newest version holds';

CREATE TABLE IF NOT EXISTS k2.candles_due
(
    exchange String,
    symbol String,
    window_start DateTime('UTC'),
    generation UInt64,
    done UInt8
)
ENGINE = MergeTree
ORDER BY (exchange, symbol, window_start, generation)
COMMENT 'Minutes that late trades touched while the cold tier could not be read';

-- Until the cold tier has something to show.
CREATE TABLE IF NOT EXISTS cold.trades
(
    exchange String, symbol String, native_symbol String, epoch Int32, trade_id Int64, price Decimal(38, 18),
    quantity Decimal(38, 18), side String, exchange_ts DateTime64(6, 'UTC'), exchange_ts_ns Int64, recv_ts_ns Int64,
    source String
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS cold.frames
(
    exchange String, log_offset Int64, recv_ts DateTime64(6, 'UTC'), recv_ts_ns Int64, kind String, connection String,
    request String, payload String
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS cold.gaps
(
    exchange String, symbol String, epoch Int32, first_id Int64, last_id Int64, state String, reason String,
    missing Array(Tuple(first_id Int64, last_id Int64)), event_ts DateTime64(6, 'UTC'), event_ts_ns Int64,
    detected_ts_ns Int64, log_offset Int64
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS cold.ohlcv_1m
(
    exchange String, symbol String, window_start DateTime64(6, 'UTC'), open Decimal(38, 18), high Decimal(38, 18),
    low Decimal(38, 18), close Decimal(38, 18), volume Decimal(38, 18), quote_volume Decimal(38, 18),
    quote_volume_rest Decimal(38, 36), buy_volume Decimal(38, 18), vwap Decimal(38, 18), trade_count Int64,
    first_epoch Int32, first_trade_id Int64, last_epoch Int32, last_trade_id Int64, apart Bool, complete Bool
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS cold.proofs
(
    exchange String, symbol String, epoch Int32, day Date32, revision Int32, trade_count Int64, first_id Int64,
    last_id Int64, missing Array(Tuple(first_id Int64, last_id Int64)), preceded Bool, content_hash String,
    sealed_at DateTime64(6, 'UTC'), snapshot_id Int64
)
ENGINE = Null;
