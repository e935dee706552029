"""What the simulator really traded: a file of fixed-size records for each symbol and epoch, ids ascending.

A record is written before its trade is sent to anybody, so a trade that was seen is always found here, also after a
kill -9. REST answers are read from the same files; nothing of the past is held in memory.

    <data>/sim/truth/<exchange>/<BASE-QUOTE>.<epoch>.trades
"""

import os
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from k2.core.types import Side

RECORD = struct.Struct("<QqQQBBB5x")  # trade_id, exchange_ts, price, quantity, their scales, taker buys
SIZE = RECORD.size


class Made(NamedTuple):
    """A trade as it stands in a truth file: `price` and `quantity` are integers, to be divided by 10**scale."""

    trade_id: int
    exchange_ts: int  # ns
    price: int
    quantity: int
    price_scale: int
    quantity_scale: int
    buy: int  # 1: the taker bought

    @property
    def side(self) -> Side:
        return "buy" if self.buy else "sell"

    @property
    def price_text(self) -> str:
        return decimal_text(self.price, self.price_scale)

    @property
    def quantity_text(self) -> str:
        return decimal_text(self.quantity, self.quantity_scale)


class TrueTrade(NamedTuple):
    """A trade that really happened at a simulated exchange. Price and quantity are exact decimal text."""

    exchange: str
    symbol: str
    epoch: int
    trade_id: int
    price: str
    quantity: str
    side: Side
    exchange_ts: int


def decimal_text(number: int, scale: int) -> str:
    """`number` / 10**`scale`, exactly, with all its places: (6183763, 2) is 61837.63."""
    if not scale:
        return str(number)
    text = str(number).rjust(scale + 1, "0")
    return f"{text[:-scale]}.{text[-scale:]}"


def scaled(text: str) -> tuple[int, int]:
    """The reverse of `decimal_text`. Raises ValueError on anything but plain decimal text."""
    whole, point, fraction = text.partition(".")
    if not (whole + fraction).isdigit() or (point and not fraction):
        raise ValueError(f"{text!r} is not a plain decimal number")
    return int(whole + fraction), len(fraction)


class Tape:
    """One truth file, open for appending. A torn record at its end (the process was killed in a write) is cut off."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file = file
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.count = os.fstat(self._fd).st_size // SIZE
        os.ftruncate(self._fd, self.count * SIZE)
        os.lseek(self._fd, 0, os.SEEK_END)

    def append(self, records: bytes) -> None:
        """Add whole records, ids above all present ones. Raises OSError (a full disk) and then keeps none of them."""
        size = len(records)
        try:
            written = os.write(self._fd, records)
            while written < size:
                written += os.write(self._fd, records[written:])
        except OSError:
            os.ftruncate(self._fd, self.count * SIZE)
            os.lseek(self._fd, 0, os.SEEK_END)
            raise
        self.count += size // SIZE

    def rows(self, start: int, limit: int) -> list[Made]:
        """Up to `limit` trades from index `start` on."""
        data = os.pread(self._fd, limit * SIZE, start * SIZE) if start < self.count else b""
        return [Made(*fields) for fields in RECORD.iter_unpack(data[: len(data) // SIZE * SIZE])]

    def row(self, index: int) -> Made:
        """The trade at `index`; negative counts from the end. Raises IndexError."""
        index = index if index >= 0 else self.count + index
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.rows(index, 1)[0]

    def index_of(self, trade_id: int) -> int:
        """The index of the first trade with this id or a higher one; `count` if there is none."""
        if not self.count:
            return 0
        guess = trade_id - self.row(0).trade_id  # ids are dense, as a rule
        if 0 <= guess < self.count and self.row(guess).trade_id == trade_id:
            return guess
        return self._first(0, trade_id)

    def index_after(self, exchange_ts: int) -> int:
        """The index of the first trade later than this time (ns)."""
        return self._first(1, exchange_ts + 1)

    def _first(self, field: int, wanted: int) -> int:
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.row(middle)[field] < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def record(self, trade: Made) -> bool:
        """Append or, if its id is below the last one, put in its place. False: the id is there already."""
        index = (
            self.count if not self.count or trade.trade_id > self.row(-1).trade_id else self.index_of(trade.trade_id)
        )
        if index == self.count:
            self.append(RECORD.pack(*trade))
            return True
        if self.row(index).trade_id == trade.trade_id:
            return False
        behind = os.pread(self._fd, (self.count - index) * SIZE, index * SIZE)
        os.pwrite(self._fd, RECORD.pack(*trade) + behind, index * SIZE)
        os.lseek(self._fd, 0, os.SEEK_END)
        self.count += 1
        return True

    def close(self) -> None:
        os.close(self._fd)


def flags(price_scale: int, quantity_scale: int, buy: int) -> int:
    """The last eight bytes of a record as one number, for `packed`."""
    return price_scale | quantity_scale << 8 | buy << 16


def packed(fields: Sequence[int]) -> bytes:
    """Records from a flat run of (trade_id, exchange_ts, price, quantity, flags): quicker than one `pack` each."""
    words = array("Q", fields)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def truth_dir(data: Path) -> Path:
    """Where a data folder keeps the truth."""
    return data / "sim" / "truth"


def tape_file(folder: Path, exchange: str, symbol: str, epoch: int) -> Path:
    """The truth file of one symbol's epoch, `folder` being what `truth_dir` gave."""
    return folder / exchange / f"{symbol}.{epoch}.trades"


def epochs(folder: Path, exchange: str, symbol: str) -> list[int]:
    """The epochs of a symbol that have a file, ascending."""
    found = (file.name.split(".") for file in (folder / exchange).glob(f"{symbol}.*.trades"))
    return sorted(int(parts[1]) for parts in found if len(parts) == 3 and parts[1].isdigit())


def truth(data: Path) -> Iterator[TrueTrade]:
    """Every trade that a simulator with this data folder ever made, by exchange, symbol, epoch and id.

    Safe while the simulator runs: records are only ever added. A folder without a truth gives nothing.
    """
    files = []
    for file in truth_dir(data).glob("*/*.trades"):
        symbol, epoch, _ = file.name.split(".")
        files.append((file.parent.name, symbol, int(epoch), file))
    for exchange, symbol, number, file in sorted(files):
        with file.open("rb") as stream:
            while block := stream.read(SIZE * 4096):
                for fields in RECORD.iter_unpack(block[: len(block) // SIZE * SIZE]):
                    made = Made(*fields)
                    yield TrueTrade(
                        exchange,
                        symbol,
                        number,
                        made.trade_id,
                        made.price_text,
                        made.quantity_text,
                        made.side,
                        made.exchange_ts,
                    )
