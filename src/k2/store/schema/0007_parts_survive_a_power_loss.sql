-- A commit names generations, and a seam lets hot rows go: after a power loss nothing may stand that names what is not
-- there. So a part is on the disk, not in the system's cache, before the INSERT that made it is answered. Merges need none
-- of it: what they merged stays for eight minutes, and is taken up again where the merged part turns out to be broken.

-- each table = what
-- commits = bookkeeping
-- loaders = bookkeeping
-- pins = bookkeeping
-- seams = bookkeeping
-- candles_due = bookkeeping
-- migrations = bookkeeping
-- silver_base = rows
-- bronze_base = rows
-- gaps_base = rows
-- ohlcv_1m_base = rows
ALTER TABLE k2.{table} MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1;
