"""Content negotiation: which format and which packing an answer gets (RFC 9110, clause 12)."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from k2.web.problems import Problem

_JSON = {
    "date_time_output_format": "iso",
    "output_format_json_quote_decimals": "1",
    "output_format_json_quote_64bit_integers": "0",
    "output_format_json_escape_forward_slashes": "0",
    "output_format_json_quote_denormals": "1",
    "output_format_json_named_tuples_as_objects": "1",
}


class Format(NamedTuple):
    """A format of tables. `engine` is ClickHouse's name of it, `settings` make it exact. `packs`: worth compressing."""

    name: str
    media: str
    also: tuple[str, ...]
    engine: str
    settings: dict[str, str]
    packs: bool


FORMATS = {
    format.name: format
    for format in (
        Format("json", "application/json", (), "JSONEachRow", _JSON, True),
        Format(
            "ndjson",
            "application/x-ndjson",
            ("application/ndjson", "application/jsonl", "application/x-jsonlines"),
            "JSONEachRow",
            _JSON,
            True,
        ),
        Format(
            "csv",
            "text/csv",
            (),
            "CSVWithNames",
            {"date_time_output_format": "iso", "format_csv_null_representation": ""},
            True,
        ),
        Format(
            "parquet",
            "application/vnd.apache.parquet",
            ("application/parquet", "application/x-parquet"),
            "Parquet",
            {"output_format_parquet_row_group_size": "100000"},
            False,
        ),
        Format(
            "arrow",
            "application/vnd.apache.arrow.stream",
            ("application/arrow",),
            "ArrowStream",
            {
                "output_format_arrow_low_cardinality_as_dictionary": "1",
                "output_format_arrow_compression_method": "none",
            },
            True,
        ),
    )
}
JSON = FORMATS["json"]
_BY_MEDIA = {media: format for format in FORMATS.values() for media in (format.media, *format.also)}


def choose(accept: str, asked: str | None, offered: Sequence[Format] = tuple(FORMATS.values())) -> Format:
    """The format that `?format=` names, else the one that `Accept` likes best; the first offered one where it says
    nothing. Raises Problem 400 for an unknown name, 406 if nothing fits."""
    names = [format.name for format in offered]
    if asked is not None:
        if asked in names:
            return FORMATS[asked]
        close = difflib.get_close_matches(asked, names, n=1)
        nearest = f"did you mean {close[0]}? " if close else ""
        raise Problem(
            400,
            "Unknown format",
            f"format={asked[:60]!r} is no format of this answer",
            f"{nearest}Formats: {', '.join(names)}",
            "invalid-parameter",
            parameter="format",
        )
    if not accept.strip():
        return offered[0]
    best, found = 0.0, None
    for format in offered:
        quality = max(_quality(accept, media) for media in (format.media, *format.also))
        if quality > best:
            best, found = quality, format
    if found is None:
        raise Problem(
            406,
            "Not acceptable",
            f"this answer has no form that Accept: {accept[:200]} admits",
            f"accept one of: {', '.join(format.media for format in offered)}; or write ?format={'|'.join(names)}",
            "not-acceptable",
        )
    return found


def packing(accept_encoding: str) -> str:
    """`zstd` or `gzip`, whichever is liked better (zstd, if equally); "" for neither."""
    if not accept_encoding:
        return ""
    likes = dict(_items(accept_encoding))
    rest = likes.get("*", 0.0)
    best, found = 0.0, ""
    for name in ("zstd", "gzip"):
        quality = likes.get(name, rest)
        if quality > best:
            best, found = quality, name
    return found if best >= likes.get("identity", 0.0) else ""


def _quality(accept: str, media: str) -> float:
    """How much a media type is liked: the most specific range that matches it decides."""
    kind = media.partition("/")[0]
    ranges = dict(_items(accept))
    for name in (media, f"{kind}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0


def _items(header: str) -> list[tuple[str, float]]:
    """`text/csv;q=0.5, */*` as [("text/csv", 0.5), ("*/*", 1.0)]; what cannot be read counts as not liked."""
    found = []
    for item in header.split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, text = parameter.partition("=")
            if key.strip().lower() == "q":
                quality = _weight(text.strip())
        if name:
            found.append((name.lower(), quality))
    return found


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0
