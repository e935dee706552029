-- Candles. `ohlcv_1m_base` holds the candles of each minute as of a generation; the views add what the tail has since.
-- Candles of disjoint sets of trades merge exactly: open by the least (epoch, id), close by the greatest, sums by adding.

CREATE TABLE IF NOT EXISTS k2.ohlcv_1m_base
(
    exchange LowCardinality(String),
    symbol LowCardinality(String),
    window_start DateTime('UTC'),
    open Decimal(38, 18),
    high Decimal(38, 18),
    low Decimal(38, 18),
    close Decimal(38, 18),
    volume Decimal(76, 18),
    quote_volume Decimal(76, 36),
    buy_volume Decimal(76, 18),
    trade_count UInt64,
    first_epoch UInt32,
    first_trade_id Int64,
    last_epoch UInt32,
    last_trade_id Int64,
    apart UInt8 COMMENT 'the trade before the first one is missing',
    generation UInt64
)
ENGINE = ReplacingMergeTree(generation)
PARTITION BY toYYYYMM(window_start)
ORDER BY (exchange, symbol, window_start);

-- Trades that the next generation's candles have to know of: without their predecessor (`apart`), or with it at last.
CREATE TABLE IF NOT EXISTS k2.marks
(
    exchange String,
    symbol String,
    epoch UInt32,
    trade_id Int64,
    apart UInt8,
    generation UInt64
)
ENGINE = Memory;

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
        GROUP BY exchange, symbol, window_start, generation
        UNION ALL
        SELECT *, 1 AS settled FROM k2.ohlcv_1m_base FINAL
    )
)
WHERE generation > settled_generation OR settled;

-- each interval = start
-- 1m = p.window_start
-- 5m = toStartOfInterval(p.window_start, INTERVAL 5 MINUTE, 'UTC')
-- 15m = toStartOfInterval(p.window_start, INTERVAL 15 MINUTE, 'UTC')
-- 30m = toStartOfInterval(p.window_start, INTERVAL 30 MINUTE, 'UTC')
-- 1h = toStartOfInterval(p.window_start, INTERVAL 1 HOUR, 'UTC')
-- 1d = toStartOfInterval(p.window_start, INTERVAL 1 DAY, 'UTC')
CREATE OR REPLACE VIEW k2.ohlcv_{interval} AS
SELECT
    p.exchange AS exchange, p.symbol AS symbol, {start} AS window_start,
    argMin(p.open, (p.first_epoch, p.first_trade_id)) AS open,
    max(p.high) AS high,
    min(p.low) AS low,
    argMax(p.close, (p.last_epoch, p.last_trade_id)) AS close,
    sum(p.volume) AS volume,
    sum(p.quote_volume) AS quote_volume,
    sum(p.buy_volume) AS buy_volume,
    toDecimal128(divideDecimal(sum(p.quote_volume), sum(p.volume), 18), 18) AS vwap,
    sum(p.trade_count) AS trade_count,
    (min((p.first_epoch, p.first_trade_id)) AS first).2 AS first_trade_id,
    (max((p.last_epoch, p.last_trade_id)) AS last).2 AS last_trade_id,
    first.1 = last.1
        AND trade_count = last.2 - first.2 + 1
        AND argMin(p.apart, (p.first_epoch, p.first_trade_id)) = 0 AS complete
FROM k2.ohlcv_1m_parts AS p
GROUP BY exchange, symbol, window_start;
