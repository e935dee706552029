"""Names that catalogs, table properties and snapshots carry: contracts with every reader of the cold tier."""

from collections.abc import Iterable

from k2.core.codec import GAPS_STREAM, frames_stream, trades_stream

CATALOG = "k2"  # a SQL catalog keeps it in its tables: other engines must open the catalog under the same name
NAMESPACE = "cold"
OFFSETS = "k2.offsets"  # in a snapshot's summary, JSON: stream to the next offset to read
ENDS = "k2.ends"  # there too, JSON: stream to the digest of the last record before its offset
IDENTITIES = "k2.identities"  # in a snapshot's summary: digest of the table property of the same name

PINS = "pins"  # in a table's folder: the hot store's own links to metadata files that it reads

CONSUMER = "archiver"  # the log keeps what this consumer has yet to read


def streams(exchanges: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Each table that is filled from the log, and the streams that it holds, in the order in which they are read."""
    names = tuple(exchanges)
    return {
        "frames": tuple(map(frames_stream, names)),
        "trades": tuple(map(trades_stream, names)),
        "gaps": (GAPS_STREAM,),
    }
