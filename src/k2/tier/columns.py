"""Records of the log as columns, in the order and types of the cold tables."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from k2.core.codec import decode_frame
from k2.core.types import Frame, Gap, Trade
from k2.log import Batch
from k2.tier import BrokenRecord
from k2.tier.schema import EXACT, FRAMES, GAPS, TRADES

_decode_trades = msgspec.json.Decoder(list[Trade]).decode
_decode_gaps = msgspec.json.Decoder(list[Gap]).decode
_DECIMAL = pa.decimal128(EXACT.precision, EXACT.scale)
_TIME = pa.timestamp("us", "UTC")
_NAME = pa.dictionary(pa.int32(), pa.string())  # names repeat: cheap to hold and to sort


def trades(exchange: str, batch: Batch) -> pa.Table:
    """Trades of one exchange's stream. Raises BrokenRecord."""
    return _columns(exchange, batch, _trades)


def frames(exchange: str, batch: Batch) -> pa.Table:
    """Frames of one exchange's raw stream. Raises BrokenRecord."""
    return _columns(exchange, batch, _frames)


def gaps(exchange: str, batch: Batch) -> pa.Table:
    """Events of the gap ledger, of any exchange. Raises BrokenRecord."""
    return _columns(exchange, batch, _gaps)


def _columns(exchange: str, batch: Batch, convert: Callable[[str, int, Sequence[bytes]], pa.Table]) -> pa.Table:
    try:
        return convert(exchange, batch.offset, batch.values)
    except (ValueError, pa.ArrowException):
        for i, value in enumerate(batch.values):
            try:
                convert(exchange, batch.offset + i, [value])
            except (ValueError, pa.ArrowException) as error:
                raise BrokenRecord(
                    f"record {batch.offset + i} of {batch.stream} cannot be archived: {error}; it begins"
                    f" {value[:80]!r}. Nothing past it is in cold: mend the log (k2 log), then run again"
                ) from error
        raise


def _joined(values: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(values) + b"]"


def _trades(exchange: str, offset: int, values: Sequence[bytes]) -> pa.Table:
    found = _decode_trades(_joined(values))
    exchange_ts = pa.array([t.exchange_ts for t in found], pa.int64())
    columns = [
        pa.array([t.exchange for t in found], pa.string()).dictionary_encode(),
        pa.array([t.symbol for t in found], pa.string()).dictionary_encode(),
        pa.array([t.native_symbol for t in found], pa.string()).dictionary_encode(),
        pa.array([t.epoch for t in found], pa.int32()),
        pa.array([t.trade_id for t in found], pa.int64()),
        _exact([t.price for t in found]),
        _exact([t.quantity for t in found]),
        pa.array([t.side for t in found], pa.string()).dictionary_encode(),
        _micros(exchange_ts),
        exchange_ts,
        pa.array([t.recv_ts for t in found], pa.int64()),
        pa.array([t.source for t in found], pa.string()).dictionary_encode(),
    ]
    others = pc.unique(columns[0]).to_pylist()
    if others != [exchange] * len(found[:1]):
        raise ValueError(f"a trade of {others} in the stream of {exchange}")
    return pa.Table.from_arrays(columns, names=TRADES.names)


def _frames(exchange: str, offset: int, values: Sequence[bytes]) -> pa.Table:
    found: list[Frame] = [decode_frame(value) for value in values]
    recv_ts = pa.array([f.recv_ts for f in found], pa.int64())
    columns = [
        _constant(exchange, len(found)),
        pa.array(range(offset, offset + len(found)), pa.int64()),
        _micros(recv_ts),
        recv_ts,
        pa.array([f.kind for f in found], pa.string()).dictionary_encode(),
        pa.array([f.connection for f in found], pa.string()).dictionary_encode(),
        pa.array([f.request for f in found], pa.string()).dictionary_encode(),
        pa.array([f.payload for f in found], pa.binary()),
    ]
    return pa.Table.from_arrays(columns, names=FRAMES.names)


def _gaps(exchange: str, offset: int, values: Sequence[bytes]) -> pa.Table:
    found = _decode_gaps(_joined(values))
    event_ts = pa.array([g.event_ts for g in found], pa.int64())
    missing: list[list[dict[str, Any]]] = [
        [{"first_id": first, "last_id": last} for first, last in g.missing] for g in found
    ]
    columns = [
        pa.array([g.exchange for g in found], pa.string()).dictionary_encode(),
        pa.array([g.symbol for g in found], pa.string()).dictionary_encode(),
        pa.array([g.epoch for g in found], pa.int32()),
        pa.array([g.first_id for g in found], pa.int64()),
        pa.array([g.last_id for g in found], pa.int64()),
        pa.array([g.state for g in found], pa.string()).dictionary_encode(),
        pa.array([g.reason for g in found], pa.string()),
        pa.array(missing, GAPS.arrow.field("missing").type),
        _micros(event_ts),
        event_ts,
        pa.array([g.detected_ts for g in found], pa.int64()),
        pa.array(range(offset, offset + len(found)), pa.int64()),
    ]
    return pa.Table.from_arrays(columns, names=GAPS.names)


def _constant(text: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), count), pa.array([text]))


def _exact(texts: list[str]) -> pa.Array:
    """Decimal text as Decimal(38, 18). ArrowInvalid where it does not fit: nothing is ever rounded."""
    return pa.array(texts, pa.string()).cast(_DECIMAL)


def _micros(nanoseconds: pa.Array) -> pa.Array:
    """Nanoseconds as microseconds, rounded down also before 1970."""
    return nanoseconds.cast(pa.timestamp("ns", "UTC")).cast(_TIME, safe=False)
