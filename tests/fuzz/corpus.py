"""The committed inputs of each fuzz target: `corpus/<target>.txt`, a Python bytes literal a line, `#` before words;
with a `z` before it, of the input as zlib packs it."""

import ast
import zlib
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def read(target: str) -> list[bytes]:
    """The inputs of a target, in the file's order."""
    lines = (FOLDER / f"{target}.txt").read_text().splitlines()
    return [parsed(line) for line in lines if line and not line.startswith("#")]


def parsed(line: str) -> bytes:
    """The input that a line is."""
    return zlib.decompress(ast.literal_eval(line[1:])) if line.startswith("z") else bytes(ast.literal_eval(line))


def written(inputs: Iterable[bytes]) -> str:
    """Inputs as lines of a corpus file."""
    both = ((repr(data), f"z{zlib.compress(data, 9)!r}") for data in inputs)
    return "".join(f"{min(plain, packed, key=len) if len(plain) > 2_000 else plain}\n" for plain, packed in both)
