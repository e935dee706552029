"""Benches: each measures one promise of K2 and, in the same run and by turns, the floor that the promise stands on.

A bench is a module here with three names: its docstring's first line says what it measures; `Parameters` is a frozen
msgspec Struct whose fields are its options (each with a description and a default); `run(lab, parameters)` measures and
returns an `Outcome`. A bench owns a folder and processes of its own (`lab.py`), touches no running platform, and leaves
nothing behind, whether it ends, fails or is interrupted. A bench that tells more than its checks has a fourth name:
`PAGES` maps an option of its command, such as `markdown`, to what makes that file's text of the whole report.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import msgspec

from k2.ops.bench.lab import Lab
from k2.ops.report import Check

NAMES = ("feed", "latency", "throughput", "footprint", "start", "log", "store", "archive", "serve")
LONG = ("history",)  # those that take the better part of an hour: `all` leaves them out


class Picture(NamedTuple):
    """A table for a person: what the terminal shows of the results."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Outcome(NamedTuple):
    """What a bench found. `raw`: every single sample by series, kept only when asked for."""

    results: Mapping[str, Any]
    checks: Sequence[Check]
    pictures: Sequence[Picture] = ()
    raw: Mapping[str, Sequence[Any]] = {}


class Bench(NamedTuple):
    """A bench as found. `run` raises LabError when it cannot measure: a process ended, a port never answered."""

    name: str
    text: str
    Parameters: type[msgspec.Struct]
    run: Callable[[Lab, Any], Outcome]
    pages: Mapping[str, Callable[[Mapping[str, Any]], str]] = {}

    @property
    def summary(self) -> str:
        """What it measures, in one line."""
        return self.text.strip().splitlines()[0]


def find(name: str) -> Bench:
    """The bench of this name."""
    module = import_module(f"k2.ops.bench.{name}")
    return Bench(name, module.__doc__ or "", module.Parameters, module.run, getattr(module, "PAGES", {}))
