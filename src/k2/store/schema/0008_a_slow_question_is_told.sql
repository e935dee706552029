-- A question looks at the memory first and at the file later; the file keeps a chunk for some seconds after it went into
-- memory. A question that takes longer between the two, on a machine that stalls, would miss what has left the file. So the
-- file begins with a line, its side is `left`, whose trade_id is the newest generation that was taken out of it: a
-- question whose memory is older than that fails, and is to be asked again. Of an empty memory, as after the store's start,
-- nothing in the file is shown: every loader's first chunk begins a run.

CREATE OR REPLACE VIEW k2.silver_tail AS
SELECT * FROM k2.silver_fresh
WHERE if(
    throwIf(
        side = 'left'
            AND trade_id > (SELECT max(generation) FROM k2.silver_recent)
            AND (SELECT max(generation) FROM k2.silver_recent) > 0,
        'the live tail has moved on while this question ran: ask again'
    ),
    0,
    generation > (SELECT max(generation) FROM k2.silver_recent)
        AND bitShiftRight(generation, 20) = bitShiftRight((SELECT max(generation) FROM k2.silver_recent), 20)
)
UNION ALL
SELECT * FROM k2.silver_recent WHERE generation <= (SELECT max(generation) FROM k2.silver_recent);
