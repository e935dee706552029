"""The latency bench's figures for people: tables in a terminal, a page in Markdown, a drawing."""

from collections.abc import Mapping, Sequence
from typing import Any

from k2.ops.bench import Picture
from k2.ops.bench.latency_chart import drawing

__all__ = ["drawing", "page", "pictures"]

QUANTILES = ("p50", "p90", "p99", "p99.9", "max")
NAMES = {
    "exchange_to_receive": "exchange → receive",
    "receive_to_decoded": "receive → decoded",
    "decoded_to_durable": "decoded → durable in the log",
    "log_to_loader": "log → loader",
    "loader_to_visible": "loader → visible in silver",
    "silver_to_candle": "silver → candle",
    "log_to_subscriber": "log → subscriber",
    "exchange_to_visible": "exchange → silver, the whole way",
    "receive_to_visible": "receive → silver",
    "receive_to_subscriber": "receive → subscriber",
    "due_to_sent": "generator: due → written to its socket",
    "sent_to_receive": "generator: written → receive",
}
PHASES = {
    "warm_up": "warm-up",
    "counted": "counted",
    "with_reader": "with a reader",
    "until_the_end": "until trading stopped",
}
Table = tuple[str, Sequence[str], list[list[Any]]]  # title, columns, rows


def pictures(results: Mapping[str, Any]) -> list[Picture]:
    """The tables that the terminal shows."""
    return [Picture(*table) for table in tables(results)]


def tables(results: Mapping[str, Any]) -> list[Table]:
    """A table of segments for each rate, then those that compare rates."""
    series = results["series"]
    return [
        *(_segments(one) for one in series), _venues(series), _slowest(series), _candles(series), _cores(series),
        _phases(series), _proof(results["proof"]),
    ]  # fmt: skip


def _segments(one: Mapping[str, Any]) -> Table:
    figures = {
        **one["segments"],
        "silver_to_candle": one["candle"]["silver_to_candle"],
        **one["ways"],
        **one["generator"],
    }
    rows = [[NAMES[name], *(figures[name].get(q) for q in QUANTILES)] for name in NAMES if name in figures]
    return f"{one['rate']:,} trades/s: {one['trades']:,} trades, every one", ("segment, ms", *QUANTILES), rows


def _venues(series: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            f"{one['rate']:,}",
            venue,
            f"{figures['trades']:,}",
            *(figures["ways"]["exchange_to_visible"].get(q) for q in QUANTILES),
        ]
        for one in series
        for venue, figures in {**one["venues"], "all": one}.items()
    ]
    return "Exchange → silver by venue, ms", ("trades/s", "venue", "trades", *QUANTILES), rows


def _slowest(series: Sequence[Mapping[str, Any]]) -> Table:
    names = list(series[0]["slowest"]) if series else []
    rows = []
    for one in series:
        total = sum(one["slowest"].values())
        parts = [f"{mean:.2f} ({mean / total:.0%})" if total else f"{mean:.2f}" for mean in one["slowest"].values()]
        rows.append([f"{one['rate']:,}", f"{total:.2f}", *parts])
    return (
        "Where the slowest hundredth spent its time, mean ms (share)",
        ("trades/s", "in all", *(NAMES[name] for name in names)),
        rows,
    )


def _candles(series: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for one in series:
        candle = one["candle"]
        shown = ("silver_to_candle", "candle_question", "receive_to_candle_in_hand", "receive_to_silver_in_hand")
        p99s = [candle[name].get("p99") for name in shown]
        rows.append([f"{one['rate']:,}", f"{candle['questions']:,}", candle["candle_ids_behind_silver"], *p99s])
    columns = ("trades/s", "questions", "ids behind, most", "candle behind silver", "one candle question",
               "receive → candle in hand", "receive → silver in hand")  # fmt: skip
    return "With a reader who asks for silver and candle by turns: p99, ms", columns, rows


def _cores(series: Sequence[Mapping[str, Any]]) -> Table:
    names = list(series[0]["cores"]) if series else []
    rows = [[f"{one['rate']:,}", *(f"{one['cores'].get(name, 0):.1%}" for name in names)] for one in series]
    return "Processor time, of one core", ("trades/s", *names), rows


def _phases(series: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [f"{one['rate']:,}", PHASES[name], f"{phase['trades']:,}", *(phase.get(q) for q in ("p50", "p99", "max"))]
        for one in series
        for name, phase in one["phases"].items()
    ]
    return (
        "Every trade that was made: exchange → silver, ms",
        ("trades/s", "phase", "trades", "p50", "p99", "max"),
        rows,
    )


def _proof(proof: Mapping[str, Any]) -> Table:
    rows = [[name, proof[place]["lost"], proof[place]["twice"]]
            for place, name in (("log", "log"), ("silver", "silver_trades"), ("stream", "live stream"))]  # fmt: skip
    return f"Of {proof['made']:,} trades made, looked for by id", ("place", "lost", "twice"), rows


def page(report: Mapping[str, Any], drawn: str = "", explained: str = "") -> str:
    """The report as a page in Markdown. `drawn`, `explained`: where its drawing and the page about benches lie, seen
    from the page; empty: nowhere."""
    machine, parameters = report["machine"], report["parameters"]
    missed = [check for check in report["checks"] if not check["ok"]]
    lines = [
        "# Latency, segment by segment",
        "",
        f"`k2 bench latency` at commit `{report['commit'][:12]}`, on {machine.get('cores', '?')} cores of"
        f" {machine.get('cpu', 'a processor')} (load before: {machine.get('load_at_start', '?')}); windows of"
        f" {parameters.get('seconds', '?')} s. The simulator and the bench share the machine."
        + (f" How it is measured: [benchmarks]({explained})." if explained else ""),
        "",
        *([f"![Exchange to silver at every rate]({drawn})", ""] if drawn else []),
        f"{len(report['checks']) - len(missed)} of {len(report['checks'])} checks are met.",
        "",
        *_markdown("Checks", ("check", "value", "target", ""), [
            [
                check["name"],
                f"{_cell(check['value'])} {check['unit']}".strip(),
                f"{check['target']} {check['unit']}".strip(),
                "ok" if check["ok"] else "missed",
            ]
            for check in report["checks"]
        ]),
    ]  # fmt: skip
    for table in tables(report["results"]):
        lines += _markdown(*table)
    return "\n".join(lines).rstrip() + "\n"


def _markdown(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [
        f"## {title}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(map(_cell, row))} |" for row in rows), "",
    ]  # fmt: skip


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)
