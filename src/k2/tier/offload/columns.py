"""Records of the log as columns, in the order and types of the cold tables."""

from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec
import pyarrow as pa
from msgspec.structs import fields as fields_of

from k2.core.types import Gap, Trade
from k2.log import Batch
from k2.tier import BrokenRecord
from k2.tier.offload.lines import exact, read_lines
from k2.tier.offload.rowbinary import read_frames
from k2.tier.schema import FRAMES, GAPS, TRADES

_decode_gaps = msgspec.json.Decoder(list[Gap]).decode
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
    except (ValueError, OverflowError, pa.ArrowException):
        for i, value in enumerate(batch.values):
            try:
                convert(exchange, batch.offset + i, [value])
            except (ValueError, OverflowError, pa.ArrowException) as error:
                raise BrokenRecord(
                    f"record {batch.offset + i} of {batch.stream} cannot be archived: {error}; it begins"
                    f" {value[:80]!r}. Nothing past it is in cold: mend the log (k2 log), then run again"
                ) from error
        raise


def _joined(values: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(values) + b"]"


@lru_cache
def _decoder(exchange: str) -> Callable[[bytes], list[Trade]]:
    """Decodes a JSON array of trades, and refuses one of another exchange: cheaper than to look at each."""
    fields = [(f.name, Literal[exchange] if f.name == "exchange" else f.type, f.default) for f in fields_of(Trade)]
    kind = msgspec.defstruct("Trade", [f if f[2] is not msgspec.NODEFAULT else f[:2] for f in fields], gc=False)
    decoder: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
    return decoder.decode


def _trades(exchange: str, offset: int, values: Sequence[bytes]) -> pa.Table:
    found = read_lines(exchange, values) or _decoded(exchange, values)
    columns = {
        **found,
        "epoch": found["epoch"].cast(pa.int32()),
        "exchange_ts": _micros(found["exchange_ts"]),
        "exchange_ts_ns": found["exchange_ts"],
        "recv_ts_ns": found["recv_ts"],
    }
    return pa.table({name: columns[name] for name in TRADES.names})


def _decoded(exchange: str, values: Sequence[bytes]) -> dict[str, pa.Array]:
    """The same as `read_lines`, of any trade that is one."""
    found = _decoder(exchange)(_joined(values))
    texts = {name: [getattr(trade, name) for trade in found] for name in ("symbol", "native_symbol", "side", "source")}
    return {
        "exchange": _constant(exchange, len(found)),
        **{name: pa.array(column, _NAME) for name, column in texts.items()},
        "trade_id": _longs([t.trade_id for t in found]),
        "price": exact(pa.array([t.price for t in found], pa.string())),
        "quantity": exact(pa.array([t.quantity for t in found], pa.string())),
        "exchange_ts": _longs([t.exchange_ts for t in found]),
        "recv_ts": _longs([t.recv_ts for t in found]),
        "epoch": _longs([t.epoch for t in found]),
    }


def _frames(exchange: str, offset: int, values: Sequence[bytes]) -> pa.Table:
    columns = read_frames(values)
    columns |= {
        "exchange": _constant(exchange, len(values)),
        "log_offset": pa.array(range(offset, offset + len(values)), pa.int64()),
        "recv_ts": _micros(columns["recv_ts"]),
        "recv_ts_ns": columns["recv_ts"],
    }
    return pa.table({name: columns[name] for name in FRAMES.names})


def _gaps(exchange: str, offset: int, values: Sequence[bytes]) -> pa.Table:
    found = _decode_gaps(_joined(values))
    event_ts = pa.array([g.event_ts for g in found], pa.int64())
    missing: list[list[dict[str, Any]]] = [
        [{"first_id": first, "last_id": last} for first, last in g.missing] for g in found
    ]
    columns = [
        pa.array([g.exchange for g in found], _NAME),
        pa.array([g.symbol for g in found], _NAME),
        pa.array([g.epoch for g in found], pa.int32()),
        pa.array([g.first_id for g in found], pa.int64()),
        pa.array([g.last_id for g in found], pa.int64()),
        pa.array([g.state for g in found], _NAME),
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


def _longs(numbers: list[int]) -> pa.Array:
    """OverflowError where one does not fit in 64 bits."""
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(array("q", numbers))])


def _micros(nanoseconds: pa.Array) -> pa.Array:
    """Nanoseconds as microseconds, rounded down also before 1970."""
    return nanoseconds.cast(pa.timestamp("ns", "UTC")).cast(_TIME, safe=False)
