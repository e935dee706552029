-- The live tail becomes two tables. An INSERT costs milliseconds whatever its size, so the newest trades go into a file
-- that every question reads (the loader appends to it), and twice a second or so from there into memory, a chunk at a
-- time. `generation` counts chunks; a generation that is committed holds all of them up to its own number. A chunk that
-- never was in the file begins a new run of numbers (the bits above the 20 lowest).

CREATE TABLE IF NOT EXISTS k2.silver_recent AS k2.silver_stage;

-- A question that comes while the loader writes may see a part of the last line: `errors_num` passes it over.
CREATE TABLE IF NOT EXISTS k2.silver_fresh AS k2.silver_stage
ENGINE = File(JSONEachRow)
SETTINGS input_format_allow_errors_num = 1;

-- The first row makes the file. Generation 0 is never shown.
INSERT INTO k2.silver_fresh (generation) VALUES (0);

DROP TABLE IF EXISTS k2.silver_tail;

-- The file's branch stands first: it evaluates the last chunk in memory, and only then is the snapshot of the memory
-- taken, so that each chunk is shown once, by the one or by the other. The file is read later still: a chunk of a newer
-- run may follow one that went to memory meanwhile and is not in the snapshot, so it is not shown yet.
CREATE OR REPLACE VIEW k2.silver_tail AS
SELECT * FROM k2.silver_fresh
WHERE generation > (SELECT max(generation) FROM k2.silver_recent)
    AND bitShiftRight(generation, 20) = bitShiftRight((SELECT max(generation) FROM k2.silver_recent), 20)
UNION ALL
SELECT * FROM k2.silver_recent WHERE generation <= (SELECT max(generation) FROM k2.silver_recent);
