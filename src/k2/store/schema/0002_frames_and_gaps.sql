-- Frames as they came from the exchanges, and the gap ledger. Both come in with a generation, in the same commit as its trades.

CREATE TABLE IF NOT EXISTS k2.bronze_base
(
    exchange LowCardinality(String),
    position UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'offset in the exchange''s raw stream',
    recv_ts DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    kind LowCardinality(String),
    connection LowCardinality(String),
    request String CODEC(ZSTD(1)),
    payload String CODEC(ZSTD(1)),
    generation UInt64 CODEC(ZSTD(1)),
    INDEX generations generation TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(recv_ts)
ORDER BY (exchange, position);

CREATE OR REPLACE VIEW k2.bronze_frames AS
SELECT exchange, position, recv_ts, kind, connection, request, payload
FROM k2.bronze_base
WHERE generation <= (SELECT max(generation) FROM k2.commits);

CREATE TABLE IF NOT EXISTS k2.gaps_base
(
    exchange LowCardinality(String),
    symbol LowCardinality(String),
    epoch UInt32,
    first_id Int64,
    last_id Int64,
    state LowCardinality(String),
    reason String,
    missing Array(Tuple(Int64, Int64)),
    event_ts Int64,
    detected_ts Int64,
    position UInt64 COMMENT 'offset in the gap ledger''s stream',
    generation UInt64
)
ENGINE = MergeTree
ORDER BY (exchange, symbol, epoch, first_id, position);

CREATE OR REPLACE VIEW k2.gaps AS
SELECT
    exchange, symbol, epoch, first_id,
    argMax(last_id, position) AS last_id,
    argMax(state, position) AS state,
    argMax(reason, position) AS reason,
    argMax(missing, position) AS missing,
    fromUnixTimestamp64Nano(argMax(event_ts, position), 'UTC') AS event_ts,
    fromUnixTimestamp64Nano(argMax(detected_ts, position), 'UTC') AS detected_ts
FROM k2.gaps_base
WHERE generation <= (SELECT max(generation) FROM k2.commits)
GROUP BY exchange, symbol, epoch, first_id;
