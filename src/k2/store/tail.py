"""The live tail: a Memory table into which trades go some milliseconds after they are in the log.

A Memory table copies its list of blocks on every insert, so it is replaced, every few seconds, by one without the
generations that have long been committed. Replacing is atomic and, unlike TRUNCATE, does not wait for readers.
"""

from collections.abc import Sequence

from k2.log import Batch
from k2.store import Store
from k2.store.commit import fence
from k2.store.seen import Admission

TAIL = "k2.silver_tail"
STAGE = "k2.silver_stage"


def lines(batch: Batch, admission: Admission, generation: int) -> bytes:
    """The admitted records as JSON lines: as they are in the log, with generation (and `apart`) put in at the end."""
    values: Sequence[bytes] = batch.values
    end = b',"generation":%d}\n' % generation
    if not admission.dropped and not admission.apart:
        return b"".join([value[:-1] + end for value in values])
    dropped, apart = set(admission.dropped), set(admission.apart)
    apart_end = b',"apart":1' + end
    return b"".join(
        [value[:-1] + (apart_end if i in apart else end) for i, value in enumerate(values) if i not in dropped]
    )


def insert(store: Store, table: str, body: bytes) -> None:
    """Put JSON lines into the tail or the stage. The text never changes, so that the store parses it once."""
    store.insert(f"INSERT INTO {table} FORMAT JSONEachRow", body)


def keep_after(store: Store, table: str, generation: int, incarnation: int) -> None:
    """Replace a table by one that holds only the generations past `generation`."""
    store.execute(
        f"CREATE OR REPLACE TABLE {table} ENGINE = Memory AS SELECT * FROM {table}"
        f" WHERE generation > {generation} AND {fence(incarnation)}"
    )
