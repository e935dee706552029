"""Rows as a quiet platform would leave them."""

from k2.ops.burnin.folder import PlatformRow, ProcessRow

EVERY = 30.0
BEGAN = 1_800_000_000.0
SERVICES = ("supervisor", "store", "feed-handler-kraken", "loader", "web", "archiver")
PROOF = {
    "truth": {"made": 5, "stored": 5, "lost": 0, "twice": 0, "invented": 0},
    "verify": {"exit_code": 0},
    "audit": {"exit_code": 0},
    "seconds": 1.0,
}


def process_row(at: float, service: str, **given: object) -> ProcessRow:
    row = ProcessRow(
        at=at, session=0, service=service, pid=100 + len(service), cpu_s=(at - BEGAN) * 0.02, rss=40_000_000,
        peak=45_000_000, own=20_000_000, pss=-1, uss=-1, threads=4, files=20, queue=0,
    )  # fmt: skip
    return row._replace(**given)


def platform_row(at: float, **given: object) -> PlatformRow:
    made = int((at - BEGAN) * 500)
    row = PlatformRow(
        at=at, session=0, made=made, trades=made, lag_loader=7, lag_archiver=0, gaps_open=0, gaps_healed=0,
        duplicates=0, faults=0, reconnects=0, offloads=0, offloads_failed=0, visible_p99=0.012, candle_p99=0.012,
        disk_log=made * 100, disk_store=made * 50, disk_cold=0, disk_run=1000, disk_free=10**12, machine_cpu=90.0,
    )  # fmt: skip
    return row._replace(**given)
