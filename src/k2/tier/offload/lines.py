"""Trades as columns, straight from the text of the log's records.

Our own encoder writes the keys of a trade in one order, without spaces, and leaves out an epoch of 0. Such lines need
no JSON parser: Arrow cuts them at their commas, outside Python's interpreter lock, and every column is then checked to
be one key and one plain value; texts, prices and quantities repeat, so only the distinct ones are looked at. A record
of any other shape (an escape, a comma in a name, a number written otherwise) is still a trade for whoever decodes JSON:
`read_lines` answers None, and the caller does that.
"""

from array import array
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from k2.core.types import Trade
from k2.tier.schema import EXACT

_TEXTS = ("exchange", "symbol", "native_symbol", "side", "source")
_EXACT = ("price", "quantity")
_ORDER = Trade.__struct_fields__
_PLAIN, _LATER = _ORDER[:-1], _ORDER  # without and with an epoch
_CHOICES = {"side": {"buy", "sell"}, "source": {"live", "backfill"}}
_QUOTE = ord('"')
_EPOCH = b',"epoch":'
_EPOCH_DIGITS = 10
_DIGITS = 24  # a longer number overflows 64 bits whatever follows
_DECIMAL = pa.decimal128(EXACT.precision, EXACT.scale)
_NAME = pa.dictionary(pa.int32(), pa.string())
_REPEATED = (*_TEXTS, *_EXACT)
_BLOCK_BYTES = 1 << 20  # cut at a time: what stays in a processor's cache
_PARSE = csv.ParseOptions(
    delimiter=",", quote_char=False, escape_char=False, double_quote=False, ignore_empty_lines=False
)


class _OtherShapeError(ValueError):
    pass


def read_lines(exchange: str, values: Sequence[bytes]) -> dict[str, pa.Array] | None:
    """The fields of these trades of one exchange by name, in order; None where a record is not of the usual shape.

    Texts are dictionaries, price and quantity decimals, the other columns 64-bit integers.
    """
    try:
        later = [i for i, value in enumerate(values) if value[-2] != _QUOTE]  # their last field is no text: an epoch
        if not later or len(later) == len(values):
            return _columns(exchange, values, _LATER if later else _PLAIN) if values else None
        return _mixed(exchange, values, later)
    except (_OtherShapeError, pa.ArrowInvalid, UnicodeDecodeError, IndexError):
        return None


def exact(texts: pa.StringArray) -> pa.Decimal128Array:
    """Decimal text as Decimal(38, 18). ArrowInvalid where it does not fit: nothing is ever rounded."""
    return texts.cast(_DECIMAL)


def _mixed(exchange: str, values: Sequence[bytes], later: Sequence[int]) -> dict[str, pa.Array]:
    """Where only some have an epoch, it is taken off those first."""
    plain = list(values)
    epochs = array("q", bytes(8 * len(values)))
    for i in later:
        head, _, tail = values[i].rpartition(_EPOCH)
        digits = tail[:-1]
        if tail[-1:] != b"}" or not digits.isdigit() or digits[:1] == b"0" or len(digits) > _EPOCH_DIGITS:
            raise _OtherShapeError
        plain[i] = head + b"}"
        epochs[i] = int(digits)
    found = _columns(exchange, plain, _PLAIN)
    found["epoch"] = pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(epochs)])
    return found


def _columns(exchange: str, values: Sequence[bytes], names: Sequence[str]) -> dict[str, pa.Array]:
    cells = _cut(values, names)
    choices = {**_CHOICES, "exchange": {exchange}}
    found: dict[str, pa.Array] = {}
    for name in names:
        before = f'{{"{name}":' if name == names[0] else f'"{name}":'
        after = "}" if name == names[-1] else ""
        if name in _TEXTS:
            found[name] = _texts(cells[name], f'{before}"', f'"{after}', choices.get(name))
        elif name in _EXACT:
            distinct = exact(_inner(cells[name].dictionary, f'{before}"', f'"{after}'))
            found[name] = distinct.take(cells[name].indices)
        else:
            found[name] = _numbers(cells[name], before, after)
    if "epoch" not in found:
        found["epoch"] = pa.repeat(pa.scalar(0, pa.int64()), len(values))
    return found


def _cut(values: Sequence[bytes], names: Sequence[str]) -> dict[str, pa.Array]:
    text = b"\n".join(values)
    if b"\\" in text or text[:1] != b"{":  # a byte order mark would be skipped
        raise _OtherShapeError
    try:
        rows = csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=_BLOCK_BYTES),
            parse_options=_PARSE,
            convert_options=csv.ConvertOptions(
                column_types={name: _NAME if name in _REPEATED else pa.string() for name in names},
                null_values=[],
                strings_can_be_null=False,
                check_utf8=False,  # texts are looked at one by one, all else has to be digits
            ),
        )
    except pa.ArrowInvalid as error:
        raise _OtherShapeError from error
    if rows.num_rows != len(values):
        raise _OtherShapeError
    return {name: rows[name].unify_dictionaries().combine_chunks() for name in names}


def _texts(cells: pa.DictionaryArray, before: str, after: str, choices: set[str] | None) -> pa.DictionaryArray:
    distinct: list[str] = cells.dictionary.to_pylist()
    bare = [cell[len(before) : len(cell) - len(after)] for cell in distinct]
    for cell, text in zip(distinct, bare, strict=True):
        if cell != before + text + after or '"' in text or (choices and text not in choices) or not _printable(text):
            raise _OtherShapeError
    return pa.DictionaryArray.from_arrays(cells.indices, pa.array(bare, pa.string()))


def _printable(text: str) -> bool:
    return min(text, default=" ") >= " "


def _inner(cells: pa.StringArray, before: str, after: str) -> pa.StringArray:
    """What stands between. A cell that is too short for both leaves nothing, which is no number."""
    if not pc.all(pc.and_(pc.starts_with(cells, before), pc.ends_with(cells, after))).as_py():
        raise _OtherShapeError
    return _slice(cells, len(before), -len(after))


def _numbers(cells: pa.StringArray, before: str, after: str) -> pa.Int64Array:
    """Positive numbers as JSON writes them: no sign, no leading zero (nor 0x, which Arrow would understand)."""
    if after:
        digits = _inner(cells, before, after)
    elif pc.all(pc.starts_with(cells, before)).as_py():
        digits = _slice(cells, len(before), len(before) + _DIGITS)
    else:
        raise _OtherShapeError
    numbers = digits.cast(pa.int64())
    if pc.min(numbers).as_py() <= 0 or pc.any(pc.starts_with(digits, "0")).as_py():
        raise _OtherShapeError
    return numbers


def _slice(cells: pa.StringArray, start: int, stop: int) -> pa.StringArray:
    return pc.binary_slice(cells.view(pa.binary()), start, stop).view(pa.string())
