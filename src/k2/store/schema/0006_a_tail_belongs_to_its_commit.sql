-- A loader that takes over first brings the base up to the log's end and commits that; only then does its tail begin,
-- 2^40 generations past the commit that it found. A question that has evaluated that older commit must show nothing of
-- the new tail: what the base got in between is older, and not in its answer.

CREATE OR REPLACE VIEW k2.silver_trades AS
SELECT
    toLowCardinality(exchange) AS exchange, toLowCardinality(symbol) AS symbol,
    toLowCardinality(native_symbol) AS native_symbol, trade_id, price, quantity, toLowCardinality(side) AS side,
    fromUnixTimestamp64Nano(exchange_ts, 'UTC') AS exchange_ts, fromUnixTimestamp64Nano(recv_ts, 'UTC') AS recv_ts,
    toLowCardinality(source) AS source, epoch
FROM k2.silver_tail
WHERE generation > (SELECT max(generation) FROM k2.commits)
    AND generation <= (SELECT max(generation) FROM k2.commits) + 1099511627776
UNION ALL
SELECT exchange, symbol, native_symbol, trade_id, price, quantity, side, exchange_ts, recv_ts, source, epoch
FROM k2.silver_base
WHERE generation <= (SELECT max(generation) FROM k2.commits);

CREATE OR REPLACE VIEW k2.ohlcv_1m_parts AS
SELECT
    exchange, symbol, window_start, open, high, low, close, volume, quote_volume, buy_volume, trade_count,
    first_epoch, first_trade_id, last_epoch, last_trade_id, apart
FROM
(
    SELECT *, max(if(settled, generation, 0)) OVER (PARTITION BY exchange, symbol, window_start) AS settled_generation
    FROM
    (
        SELECT
            toLowCardinality(exchange) AS exchange, toLowCardinality(symbol) AS symbol,
            toDateTime(intDiv(exchange_ts, 60000000000) * 60, 'UTC') AS window_start,
            argMin(price, (epoch, trade_id)) AS open,
            max(price) AS high,
            min(price) AS low,
            argMax(price, (epoch, trade_id)) AS close,
            sum(toDecimal256(quantity, 18)) AS volume,
            sum(toDecimal256(price, 18) * toDecimal256(quantity, 18)) AS quote_volume,
            sumIf(toDecimal256(quantity, 18), side = 'buy') AS buy_volume,
            count() AS trade_count,
            min((epoch, trade_id)).1 AS first_epoch,
            min((epoch, trade_id)).2 AS first_trade_id,
            max((epoch, trade_id)).1 AS last_epoch,
            max((epoch, trade_id)).2 AS last_trade_id,
            argMin(apart, (epoch, trade_id)) AS apart,
            generation,
            0 AS settled
        FROM k2.silver_tail
        WHERE generation <= (SELECT max(generation) FROM k2.commits) + 1099511627776
        GROUP BY exchange, symbol, window_start, generation
        UNION ALL
        SELECT *, 1 AS settled FROM k2.ohlcv_1m_base FINAL
    )
)
WHERE generation > settled_generation OR settled;
