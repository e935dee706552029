-- Trades. The loader puts them into a live tail (Memory) and moves them, a generation at a time, into MergeTree parts.
-- A generation counts once its row stands in `commits`: what a crashed loader left behind is never shown.

CREATE TABLE IF NOT EXISTS k2.commits
(
    slot UInt8 MATERIALIZED generation % 16,
    generation UInt64,
    incarnation UInt64,
    committed_at DateTime64(6, 'UTC'),
    positions Map(String, UInt64) COMMENT 'stream to the next offset wanted',
    islands String COMMENT 'JSON: the ranges of trade ids that are stored, for each exchange, symbol and epoch'
)
ENGINE = ReplacingMergeTree(generation)
ORDER BY slot
COMMENT 'Commit points of the loader; merging keeps some of the newest';

CREATE TABLE IF NOT EXISTS k2.loaders
(
    incarnation UInt64,
    started_at DateTime64(6, 'UTC'),
    owner String
)
ENGINE = MergeTree
ORDER BY incarnation
COMMENT 'Every loader that ever took over; only the newest may write';

CREATE TABLE IF NOT EXISTS k2.silver_base
(
    exchange LowCardinality(String),
    symbol LowCardinality(String),
    native_symbol LowCardinality(String),
    trade_id Int64 CODEC(Delta, ZSTD(1)),
    price Decimal(38, 18) CODEC(ZSTD(1)),
    quantity Decimal(38, 18) CODEC(ZSTD(1)),
    side LowCardinality(String),
    exchange_ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    recv_ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    source LowCardinality(String),
    epoch UInt32 CODEC(ZSTD(1)),
    generation UInt64 CODEC(ZSTD(1)),
    INDEX trade_ids trade_id TYPE minmax GRANULARITY 1,
    INDEX generations generation TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(exchange_ts)
ORDER BY (exchange, symbol, toStartOfMinute(exchange_ts), trade_id);

CREATE TABLE IF NOT EXISTS k2.silver_tail
(
    exchange String,
    symbol String,
    native_symbol String,
    trade_id Int64,
    price Decimal(38, 18),
    quantity Decimal(38, 18),
    side String,
    exchange_ts Int64,
    recv_ts Int64,
    source String,
    epoch UInt32,
    apart UInt8,
    generation UInt64
)
ENGINE = Memory;

CREATE TABLE IF NOT EXISTS k2.silver_stage AS k2.silver_tail;

-- The tail stands first: its SELECT evaluates the last commit, and only then is the snapshot of the base taken, so that
-- the base holds every generation up to that commit.
CREATE OR REPLACE VIEW k2.silver_trades AS
SELECT
    toLowCardinality(exchange) AS exchange, toLowCardinality(symbol) AS symbol,
    toLowCardinality(native_symbol) AS native_symbol, trade_id, price, quantity, toLowCardinality(side) AS side,
    fromUnixTimestamp64Nano(exchange_ts, 'UTC') AS exchange_ts, fromUnixTimestamp64Nano(recv_ts, 'UTC') AS recv_ts,
    toLowCardinality(source) AS source, epoch
FROM k2.silver_tail
WHERE generation > (SELECT max(generation) FROM k2.commits)
UNION ALL
SELECT exchange, symbol, native_symbol, trade_id, price, quantity, side, exchange_ts, recv_ts, source, epoch
FROM k2.silver_base
WHERE generation <= (SELECT max(generation) FROM k2.commits);

CREATE OR REPLACE VIEW k2.trades AS SELECT * FROM k2.silver_trades;
