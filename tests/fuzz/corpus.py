"""The committed inputs of each fuzz target: `corpus/<target>.txt`, a Python bytes literal a line, `#` before words."""

import ast
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def read(target: str) -> list[bytes]:
    """The inputs of a target, in the file's order."""
    lines = (FOLDER / f"{target}.txt").read_text().splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def written(inputs: Iterable[bytes]) -> str:
    """Inputs as lines of a corpus file."""
    return "".join(f"{data!r}\n" for data in inputs)
