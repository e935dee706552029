"""Captures: recorded frames in files, and how they are played. docs/CAPTURE_FORMAT.md describes the format."""

import base64
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from k2.config import EXCHANGES
from k2.core.exchange import Exchange
from k2.core.types import Frame, Trade
from k2.exchanges import venue
from k2.sim.truth import Made, scaled

VERSION = 1


class CaptureError(Exception):
    """A file is no capture, or not one that can be played; the text names the file, the line and what is wrong."""


class Header(msgspec.Struct, omit_defaults=True):
    """The first line. `symbols`: the venue's own names of what the capture holds trades of, if the recorder knew."""

    k2_capture: int
    exchange: str
    symbols: list[str] | None = None
    note: str = ""


class Recorded(msgspec.Struct, omit_defaults=True):
    """One frame: text in `data`, or bytes that are no UTF-8 in `base64`. `request` is for `rest`: what was asked."""

    recv_ts: int
    kind: str
    data: str | None = None
    base64: str | None = None
    request: str = ""

    @property
    def payload(self) -> bytes:
        return (self.data or "").encode() if self.base64 is None else base64.b64decode(self.base64)


class Capture(NamedTuple):
    """A capture file, its header read."""

    file: Path
    header: Header

    def frames(self) -> Iterator[Recorded]:
        """The recorded frames, in order. Raises CaptureError at the first line that is none."""
        decode = msgspec.json.Decoder(Recorded).decode
        with _open(self.file, "rb") as stream:
            for number, line in enumerate(stream, 1):
                if number > 1 and line.strip():
                    try:
                        yield decode(line)
                    except msgspec.DecodeError as error:
                        raise CaptureError(f"{self.file}, line {number}: {error}") from None

    def symbols(self) -> dict[str, str]:
        """The venue's own name of every symbol that is traded in the capture, to BASE-QUOTE."""
        known = venue(self.header.exchange)
        if self.header.symbols is not None:
            return {native: known.canonical(native) for native in self.header.symbols}
        return {trade.native_symbol: trade.symbol for one in self.frames() for trade in trades_of(known, one)}


def _open(file: Path, mode: str) -> IO[bytes]:
    if file.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(file, mode))
    return cast("IO[bytes]", file.open(mode))


def trades_of(exchange: Exchange, one: Recorded) -> list[Trade]:
    """The trades in a recorded WebSocket frame."""
    if one.kind != "ws":
        return []
    events = exchange.decode(Frame(one.recv_ts, "ws", "capture", "", one.payload))
    return [event for event in events if isinstance(event, Trade)]


def made(trade: Trade) -> Made:
    """A decoded trade as the truth keeps it."""
    price, price_scale = scaled(trade.price)
    quantity, quantity_scale = scaled(trade.quantity)
    return Made(
        trade.trade_id, trade.exchange_ts, price, quantity, price_scale, quantity_scale, int(trade.side == "buy")
    )


def load(file: Path) -> Capture:
    """Open a capture and read its header. Raises CaptureError."""
    try:
        with _open(file, "rb") as stream:
            header = msgspec.json.decode(stream.readline(), type=Header)
    except (OSError, EOFError, msgspec.DecodeError) as error:
        raise CaptureError(f"{file} is no capture: {error}") from None
    if header.k2_capture != VERSION or header.exchange not in EXCHANGES:
        known = f"version {VERSION} of {', '.join(EXCHANGES)}"
        raise CaptureError(
            f"{file}: version {header.k2_capture} of exchange {header.exchange!r} cannot be played; {known} can"
        )
    return Capture(file, header)


def captures(folder: Path) -> list[Capture]:
    """Every capture in a folder (`*.jsonl`, `*.jsonl.gz`), by name; or the one file itself. Raises CaptureError."""
    files = [folder] if folder.is_file() else sorted((*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")))
    if not files:
        raise CaptureError(f"{folder} holds no capture: files are called NAME.jsonl or NAME.jsonl.gz")
    return [load(file) for file in files]


def symbols(folder: Path) -> dict[str, tuple[str, ...]]:
    """Exchange to the symbols that its captures hold trades of: what a feed should subscribe to play them all."""
    found: dict[str, dict[str, None]] = {}
    for capture in captures(folder):
        found.setdefault(capture.header.exchange, {}).update(dict.fromkeys(capture.symbols().values()))
    return {exchange: tuple(traded) for exchange, traded in found.items() if traded}


def write(file: Path, header: Header, frames: Iterable[Recorded]) -> int:
    """Write a capture (gzip if the name ends in .gz). Returns the number of frames."""
    encode, count = msgspec.json.encode, 0
    with _open(file, "wb") as stream:
        stream.write(encode(header) + b"\n")
        for one in frames:
            stream.write(encode(one) + b"\n")
            count += 1
    return count


def recorded(recv_ts: int, payload: bytes, kind: str = "ws", request: str = "") -> Recorded:
    """A frame to be written: as text where it is UTF-8."""
    try:
        return Recorded(recv_ts, kind, data=payload.decode(), request=request)
    except UnicodeDecodeError:
        return Recorded(recv_ts, kind, base64=base64.b64encode(payload).decode(), request=request)
