"""How soon the page can be used, in a real browser, where there is one."""

from typing import Any

from k2.ops.bench import Picture
from k2.ops.bench.lab import Lab
from k2.ops.bench.rig import Rig
from k2.ops.bench.samples import spread
from k2.ops.bench.serve_stream import Found
from k2.ops.report import at_most

TARGET_MS = 1_000.0
_NAMES = {"shown": "frame shown, answers keys", "candles": "candles drawn", "loaded": "everything loaded"}


def measure(lab: Lab, rig: Rig, rate: int, rounds: int) -> Found:
    """Load the page of a platform that trades, `rounds` times, each as if for the first time."""
    lab.say(f"the page in a browser, {rounds} loads at {rate:,} trades/s")
    rig.rate(rate)
    folder = lab.folder / "browser"
    partner = lab.partner(
        "k2.ops.bench.serve_browser", f"{rig.config.web_url}/market", str(rounds), str(folder), config=rig.config
    )
    told = partner.hear(60.0 * (rounds + 1))
    lab.stop(partner)
    rig.drain()
    if told["browser"] is None:
        return _not_measured(lab, str(told["why"]))
    times = {name: spread([load[name] for load in told["loads"]]) for name in _NAMES}
    lab.say(f"the page: {times['shown']['p50']} ms, with candles {times['candles']['p50']} ms")
    results: dict[str, Any] = {"browser": told["browser"], **{f"{name}_ms": found for name, found in times.items()}}
    columns = ("a load of the page, ms", "p50", "max")
    rows = [[title, times[name]["p50"], times[name]["max"]] for name, title in _NAMES.items()]
    checks = [
        at_most("the page: frame shown, p50", times["shown"]["p50"], TARGET_MS, "ms"),
        at_most("the page: candles drawn, p50", times["candles"]["p50"], TARGET_MS, "ms"),
    ]
    return Found(results, checks, Picture(f"The page in {told['browser']}", columns, rows))


def _not_measured(lab: Lab, why: str) -> Found:
    """There is no figure then, and no check: what is shown and kept says so."""
    lab.say(f"the page: not measured: {why}")
    picture = Picture("The page in a browser", ("a load of the page",), [[f"not measured: {why}"]])
    return Found({"browser": None, "not_measured": why}, [], picture)
