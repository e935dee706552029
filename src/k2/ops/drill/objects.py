"""Object storage, where the cold tier lies, is gone, or hangs, in the midst of an offload."""

import secrets
import time

from k2.config import EXCHANGES
from k2.ops.bench.lab import free_port
from k2.ops.drill import Drill
from k2.ops.drill.proxy import Proxy
from k2.ops.drill.rehearsal import Setup
from k2.ops.drill.s3 import BUCKET, ObjectStore, k2_json
from k2.ops.drill.stage import Stage

EVERY_S = 3.0
SLICE_ROWS = 2_000  # many commits an offload, so that it has a midst
GONE_S = 12.0
BACK_WITHIN_S = 60.0
TRIES = 3
FAILING = ("metric:k2_archive_runs_total*",)


class Cold:
    """A platform whose cold tier lies in an object store behind a proxy."""

    def __init__(self) -> None:
        self.store: ObjectStore | None = None
        self.way: Proxy | None = None

    def prepare(self, setup: Setup) -> None:
        folder = setup.folder / "objects"
        self.store = store = setup.cleanup.enter_context(ObjectStore(folder, free_port(), secrets.token_hex(12)))
        self.way = setup.cleanup.enter_context(Proxy(("127.0.0.1", store.port)))
        setup.change(tier={"every_s": EVERY_S, "slice_rows": SLICE_ROWS, "warehouse": f"s3://{BUCKET}/warehouse"})
        setup.environ |= store.client_settings(f"http://127.0.0.1:{self.way.port}")

    def gone(self, stage: Stage) -> None:
        """kill -9 of the server as an offload writes; started again later."""
        store = self._amid(stage)
        with stage.failing():
            store.kill()
            try:
                stage.hold(GONE_S)
                stage.wait_seen(*FAILING, within=BACK_WITHIN_S)
            finally:
                store.start()
        self._back(stage, store)

    def hangs(self, stage: Stage) -> None:
        """The server is there and answers nothing."""
        store = self._amid(stage)
        assert self.way is not None
        with stage.failing():
            self.way.cut()
            try:
                stage.hold(GONE_S)
                stage.wait_seen(*FAILING, within=BACK_WITHIN_S * 3)
            finally:
                self.way.heal()
        self._back(stage, store)

    def _amid(self, stage: Stage) -> ObjectStore:
        """Wait until an offload is writing."""
        assert self.store is not None
        store, before = self.store, self.store.data_files()
        stage.wait("an offload to write", lambda: store.data_files() - before, 90.0)
        return store

    @staticmethod
    def _back(stage: Stage, store: ObjectStore) -> None:
        """Offloads go on by themselves; then cold has what the log has, once, and what is left over is found."""
        before = store.commits()
        stage.wait("an offload to commit by itself", lambda: store.commits() > before, BACK_WITHIN_S)
        took = time.monotonic() - stage.ended
        environ = stage.platform.environ
        for _ in range(TRIES):  # beside the archiver's own offloads and their commits
            code, found = k2_json(environ, "archive", "audit")
            if code == 0:
                break
        else:
            stage.fault(f"`k2 archive audit` finds that cold is not as the log: {str(found)[:600]}")
            return
        code, kept = k2_json(environ, "archive", "maintain", "--dry-run", K2_TIER_ORPHAN_HOURS="0")
        left = [step for step in kept["steps"] if "orphan" in str(step)] if code == 0 else kept
        rows = {name: table["rows"] for name, table in found["tables"].items()}
        stage.note(f"an offload committed {took:.1f} s after the return; cold equals the log: {rows}; orphans: {left}")


_gone, _hangs = Cold(), Cold()

DRILLS = (
    Drill(
        name="object-storage-gone",
        summary=f"kill -9 of the object store (an S3 server) amid an offload; it is back {GONE_S:.0f} s later",
        expectation="offloads fail with the reason, nothing else does; the next one after its return goes on after the"
        " last commit, each record once; what was half written belongs to no table, and maintenance finds it",
        prepare=_gone.prepare,
        act=_gone.gone,
        seen_by=FAILING,
        needs=("versitygw",),
        spares=EXCHANGES,
    ),
    Drill(
        name="archive-stuck",
        summary="the object store takes connections and answers nothing, in the midst of an offload",
        expectation="the offload gives up in time and says so, nothing else is concerned; once the store answers, the"
        " next one goes on after the last commit, each record once",
        prepare=_hangs.prepare,
        act=_hangs.hangs,
        seen_by=FAILING,
        needs=("versitygw",),
        spares=EXCHANGES,
    ),
)
