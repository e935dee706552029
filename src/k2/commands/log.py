"""`k2 streams` and `k2 tail`: what is in the log."""

import difflib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from k2.config import EXCHANGES, Config, ConfigError
from k2.core.codec import GAPS_STREAM, decode_frame, decode_gap, decode_trade, frames_stream, trades_stream
from k2.log import Batch, Log, LogCorrupt, LogError, StreamInfo
from k2.terminal import emit, note
from k2.wire import open_log, repair_log

SAMPLE = 1.0  # seconds between the two samples that a rate is made of
SHORT = {
    **{name: trades_stream(name) for name in EXCHANGES},
    **{f"{name}.raw": frames_stream(name) for name in EXCHANGES},
    "gaps": GAPS_STREAM,
}


@contextmanager
def _log(config: Config) -> Iterator[Log]:
    try:
        log = open_log(config)
        try:
            yield log
        finally:
            log.close()
    except (LogError, ConfigError) as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.option("--once", is_flag=True, help="One sample: answers at once, without rates.")
@click.option("--check", "verify", is_flag=True, help="Read every stream whole and verify all checksums.")
@click.option(
    "--repair", metavar="STREAM", help="Mend a damaged stream; what is damaged is kept beside it. Stop K2 first."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def streams(config: Config, once: bool, verify: bool, repair: str | None, as_json: bool) -> None:
    """List the log's streams: offsets, sizes, rates, and how far consumers lag behind.

    \b
    Examples:
      k2 streams                    all streams, with their rates over a second
      k2 streams --once --json      the same at once, for a script
      k2 streams --check            is every stored byte what was written? (exit status 1 if not)
      k2 streams --repair binance   keep the whole blocks of a damaged stream
    """
    if repair is not None:
        _repair(config, repair)
        return
    with _log(config) as log:
        if verify:
            _check(log, as_json)
        else:
            _list(log, once, as_json)


def _list(log: Log, once: bool, as_json: bool) -> None:
    began, before = time.monotonic(), {info.stream: info.end for info in log.streams()}
    if not once and before:
        time.sleep(SAMPLE)
    infos, consumers = log.streams(), log.consumers()
    passed = time.monotonic() - began
    rows = []
    for info in infos:
        rate = None if once else round((info.end - before.get(info.stream, 0)) / passed, 1)
        lag = {name: info.end - at[info.stream].offset for name, at in consumers.items() if info.stream in at}
        rows.append(_row(info, rate, lag, as_json or not sys.stdout.isatty()))
    if not rows:
        note("the log has no streams yet: `k2 demo` or `k2 up` fill it")
    columns = ["stream", "start", "end", "records", "bytes", "rate", "age", "lag"]
    if as_json:
        emit(columns, rows, as_json=True)
        return
    emit(columns, ([*row[:-1], ", ".join(f"{name} {count}" for name, count in row[-1].items())] for row in rows))


def _row(info: StreamInfo, rate: float | None, lag: dict[str, int], exact: bool) -> list[Any]:
    age = round(max(time.time_ns() - info.last_ts, 0) / 1e9, 3)
    records = info.end - info.start
    if exact:
        return [info.stream, info.start, info.end, records, info.size, rate, age, lag]
    return [info.stream, info.start, info.end, records, _bytes(info.size), rate, _seconds(age), lag]


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _seconds(age: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if age >= 2 * length:
            return f"{age / length:.0f} {unit}"
    return f"{age:.1f} s"


def _check(log: Log, as_json: bool) -> None:
    rows: list[list[Any]] = []
    try:
        names = [info.stream for info in log.streams()]
        log.consumers()
    except LogCorrupt as error:  # found at opening: the others can be read when this one is mended
        names = []
        rows.append([error.stream, False, error.valid_end, str(error)])
    for stream in names:
        try:
            rows.append([stream, True, log.check(stream), ""])
        except LogCorrupt as error:
            rows.append([stream, False, error.valid_end, str(error)])
    emit(["stream", "ok", "valid_end", "damage"], rows, as_json)
    if not all(ok for _, ok, _, _ in rows):
        sys.exit(1)


def _repair(config: Config, name: str) -> None:
    stream = SHORT.get(name, name)
    try:
        if _whole(config, stream):
            click.echo(f"{stream} is whole: nothing was changed")
            return
        done = repair_log(config, stream)
    except (LogError, ConfigError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    for kept in done.kept:
        text = f"{kept.stream}: offsets {kept.start} to {kept.valid_end} are whole and kept"
        click.echo(text + (f"; the next record gets {kept.end}" if kept.end > kept.valid_end else ""))
    click.echo(f"the damaged files are in {done.aside}: remove them when you need them no more")


def _whole(config: Config, stream: str) -> bool:
    """Whether there is such a stream and neither it, nor its companion, nor the consumers' positions are damaged."""
    log = open_log(config)
    try:
        known = {"_consumers"} if log.consumers() else set()
        known |= {info.stream for info in log.streams()}
        for name in {stream, f"{stream}.raw", stream.removesuffix(".raw")} & known - {"_consumers"}:
            log.check(name)
        return stream in known
    except LogCorrupt:
        return False
    finally:
        log.close()


@click.command()
@click.argument("stream")
@click.option("-n", "count", type=click.IntRange(0), help="How many of the last records (default 10).")
@click.option("-f", "--follow", is_flag=True, help="Go on with what arrives, until Ctrl-C.")
@click.option("--from", "first", type=click.IntRange(0), metavar="OFFSET", help="Begin at this offset instead.")
@click.option("--key", help="Only records of this key, such as BTC-USDT.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: offset, append_ts, key, record.")
@click.pass_obj
def tail(
    config: Config, stream: str, count: int | None, follow: bool, first: int | None, key: str | None, as_json: bool
) -> None:
    """Show the records of a stream, and follow it.

    STREAM is a name from `k2 streams`, or short: binance, binance.raw (its frames), coinbase, kraken, gaps.

    \b
    Examples:
      k2 tail binance -f                    trades as they are recorded
      k2 tail kraken --key BTC-USD -n 100   the last hundred of one symbol
      k2 tail coinbase.raw --from 0 -n 20   the first frames
      k2 tail gaps --from 0 --json          the whole gap ledger
    """
    with _log(config) as log:
        name = _resolve(log, stream)
        show = _json_line if as_json else _line_of(name)
        try:
            if not log.bounds(name)[1]:
                note(f"{name} has no records yet")
            _tail(log, name, count, follow, first, key, lambda *record: click.echo(show(*record)))
        except KeyboardInterrupt:
            return


def _resolve(log: Log, stream: str) -> str:
    name = SHORT.get(stream, stream)
    known = [info.stream for info in log.streams()]
    if name in known or stream in SHORT:
        return name
    close = difflib.get_close_matches(stream, [*SHORT, *known], n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none yet'}"
    raise click.ClickException(f"no stream {stream!r}; {hint}")


Record = tuple[int, int, str, bytes]  # offset, append_ts, key, value


def _tail(
    log: Log,
    stream: str,
    count: int | None,
    follow: bool,
    first: int | None,
    key: str | None,
    show: Callable[[int, int, str, bytes], None],
) -> None:
    start, end = log.bounds(stream)
    if first is not None and first > end:
        raise click.ClickException(f"{stream} ends at offset {end}: --from {first} is past it")
    at = end
    if first is None:
        for record in _last(log, stream, 10 if count is None else count, start, end, key):
            show(*record)
    else:
        at = max(first, start)
        left = count
        while (left is None or left > 0) and (batches := log.read(stream, at)):
            for record in _records(batches, key):
                if left is not None and left <= 0:
                    break
                show(*record)
                left = None if left is None else left - 1
            at = batches[-1].end
    while follow:
        if log.wait({stream: at}, 3600):
            batches = log.read(stream, at)
            for record in _records(batches, key):
                show(*record)
            at = batches[-1].end if batches else at


def _records(batches: list[Batch], key: str | None) -> Iterator[Record]:
    for batch in batches:
        for i, value in enumerate(batch.values):
            if key is None or batch.keys[i] == key:
                yield batch.offset + i, batch.append_ts, batch.keys[i], value


def _last(log: Log, stream: str, count: int, start: int, end: int, key: str | None) -> list[Record]:
    """The last `count` records before `end`: looks further and further back until there are enough."""
    found: list[Record] = []
    upper, step = end, max(count, 1)
    while upper > start and len(found) < count:
        lower = max(start, upper - step)
        part: list[Record] = []
        at = lower
        while at < upper and (batches := log.read(stream, at)):
            part += [record for record in _records(batches, key) if record[0] < upper]
            at = batches[-1].end
        found = part + found
        upper, step = lower, min(step * 4, 100_000)
    return found[len(found) - count :] if len(found) > count else found


def _line_of(stream: str) -> Callable[[int, int, str, bytes], str]:
    if stream.endswith(".raw"):
        return _frame_line
    return _gap_line if stream == GAPS_STREAM else _trade_line


def _time(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def _trade_line(offset: int, _: int, key: str, value: bytes) -> str:
    try:
        trade = decode_trade(value)
    except msgspec.DecodeError:
        return _plain_line(offset, key, value)
    epoch = f" epoch {trade.epoch}" if trade.epoch else ""
    return (
        f"{offset:>9}  {_time(trade.exchange_ts)}  {trade.symbol:<9} {trade.side:<4} {trade.price:>16} "
        f"{trade.quantity:>18}  #{trade.trade_id}  {trade.source}{epoch}"
    )


def _gap_line(offset: int, _: int, key: str, value: bytes) -> str:
    try:
        gap = decode_gap(value)
    except msgspec.DecodeError:
        return _plain_line(offset, key, value)
    return (
        f"{offset:>9}  {_time(gap.event_ts)}  {gap.exchange:<9} {gap.symbol:<9} {gap.state:<11} "
        f"{gap.first_id} to {gap.last_id}  {gap.reason}"
    )


def _frame_line(offset: int, _: int, key: str, value: bytes) -> str:
    try:
        frame = decode_frame(value)
    except ValueError:
        return _plain_line(offset, key, value)
    about = " ".join(filter(None, (frame.kind, frame.connection, frame.request)))
    return f"{offset:>9}  {_time(frame.recv_ts)}  {about}  {_text(frame.payload)}"


def _plain_line(offset: int, key: str, value: bytes) -> str:
    return f"{offset:>9}  {key}  {_text(value)}"


def _text(payload: bytes) -> str:
    return payload.decode("utf-8", "backslashreplace").replace("\n", "\\n")


def _json_line(offset: int, append_ts: int, key: str, value: bytes) -> str:
    record: Any = _text(value)
    with suppress(ValueError):
        record = {**msgspec.structs.asdict(decode_frame(value)), "payload": ""}
        record["payload"] = _text(decode_frame(value).payload)
    with suppress(msgspec.DecodeError):
        msgspec.json.decode(value)
        record = msgspec.Raw(value)
    line = {"offset": offset, "append_ts": append_ts, "key": key, "record": record}
    return msgspec.json.encode(line).decode()
