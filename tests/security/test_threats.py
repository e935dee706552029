"""The page of threats names tests and fuzz targets that exist."""

import ast
import re

from tests.fuzz.targets import TARGETS
from tests.security.lock import ROOT

PAGE = (ROOT / "docs" / "THREATS.md").read_text()


def test_every_test_it_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 40
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert not name or name in functions, f"{file} has no {name}"


def test_every_fuzz_target_is_named() -> None:
    missing = [name for name in TARGETS if f"`{name}`" not in PAGE and f"`{name.split('-')[0]}-*`" not in PAGE]
    assert not missing
