"""The page's built files belong to its sources, are small, and hold nothing that asks elsewhere. Needs no node."""

import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "page"
STATIC = ROOT / "src" / "k2" / "web" / "static"
MANIFEST = json.loads((STATIC / "manifest.json").read_text())
REBUILD = "run `make page` and commit src/k2/web/static"
SCRIPTS_MOST = 350_000


def sources() -> list[Path]:
    """What the page is made from; installed packages and hidden files are not."""
    found = []
    for path in SOURCES.rglob("*"):
        parts = path.relative_to(SOURCES).parts
        if path.is_file() and not any(part == "node_modules" or part.startswith(".") for part in parts):
            found.append(path)
    return found


def digest(paths: list[Path]) -> str:
    """As page/build.mjs computes it."""
    lines = sorted(
        f"{path.relative_to(SOURCES).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in paths
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_built_files_were_made_from_these_sources() -> None:
    assert digest(sources()) == MANIFEST["sources"], REBUILD


def test_the_built_files_are_those_of_the_build() -> None:
    there = {f"assets/{path.name}" for path in (STATIC / "assets").iterdir()}
    assert there == {name for name in MANIFEST["files"] if name.startswith("assets/")}, REBUILD
    for name, expected in MANIFEST["files"].items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == expected, f"{name}: {REBUILD}"


def test_the_scripts_are_small() -> None:
    assert sum(path.stat().st_size for path in (STATIC / "assets").glob("*.js")) < SCRIPTS_MOST


def test_index_has_nothing_inline_and_names_only_own_files() -> None:
    index = (STATIC / "index.html").read_text()
    assert "<style" not in index
    assert not re.search(r"\sstyle=|\son\w+=", index)
    assert re.findall(r"<script[^>]*>(.*?)</script>", index, re.DOTALL) == [""] * index.count("<script")
    for address in re.findall(r'(?:src|href)="([^"]+)"', index):
        assert address == "/docs" or (STATIC / address.removeprefix("/")).is_file(), address


@pytest.mark.parametrize("pattern", ["assets/*.css", "index.html"])
def test_styles_and_index_ask_no_other_host(pattern: str) -> None:
    for path in STATIC.glob(pattern):
        assert "//" not in re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL), path.name


def test_licences_of_what_is_bundled_are_shipped() -> None:
    text = (STATIC / "THIRD_PARTY_LICENCES.txt").read_text()
    wanted = json.loads((SOURCES / "package.json").read_text())["dependencies"]
    for name, version in wanted.items():
        assert f"{name} {version} (" in text
    assert "TradingView Lightweight Charts" in text  # its NOTICE


def test_the_lockfile_names_no_host() -> None:
    lock = (SOURCES / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert all(entry.get("integrity") for name, entry in json.loads(lock)["packages"].items() if name)
