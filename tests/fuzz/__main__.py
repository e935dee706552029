"""Fuzzing with atheris, from the committed inputs on: `make fuzz SECONDS=60`, or

    python -m tests.fuzz --seconds 300                    all targets, so long in all
    python -m tests.fuzz --seconds 300 store-http api     these
    python -m tests.fuzz --list

Each target is a process of its own, which searches from `corpus/<target>.txt` and from what earlier runs left in
`build/fuzz/`. What it finds is printed as a line for that file: put it there with the mending, and the short tests hold
it for ever. Exit status: 0 nothing found, 1 something was, 2 atheris is missing.
"""

import argparse
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz import corpus

WORK = Path("build/fuzz")
LONGEST = 16_384  # bytes of an input
SLOWEST_S = 10  # for one input
MEMORY_MB = 2_048


def targets() -> list[str]:
    """All of them, by their committed inputs."""
    return sorted(file.stem for file in corpus.FOLDER.glob("*.txt"))


def search(name: str, seconds: int) -> Path | None:
    """Fuzz one target for so long. Returns the input that it failed at."""
    folder = WORK / name
    kept = folder / "corpus"
    kept.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(corpus.read(name)):
        (kept / f"committed-{number:03d}").write_bytes(data)
    for old in folder.glob("found-*"):
        old.unlink()
    command = [
        sys.executable, "-m", "tests.fuzz.process", name, str(folder),
        f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={folder}/found-", "-print_final_stats=1", "-verbosity=1", str(kept),
    ]  # fmt: skip
    dictionary = corpus.FOLDER / f"{name}.dict"
    if dictionary.exists():
        command.insert(-1, f"-dict={dictionary}")
    with (folder / "log").open("wb") as log:
        code = subprocess.run(command, stdout=log, stderr=log, timeout=seconds + 400, check=False).returncode
    found = next(iter(sorted(folder.glob("found-*"))), None)
    if code and found is None:
        raise SystemExit(f"{name}: ended with status {code} and left no input: see {folder}/log")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz K2's readers of foreign bytes.")
    parser.add_argument("names", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for all of them together (default 60)")
    parser.add_argument("--list", action="store_true", help="name the targets and end")
    given = parser.parse_args()
    if given.list:
        print("\n".join(targets()))
        return 0
    if find_spec("atheris") is None:
        print("atheris is not installed here: make fuzz installs it (Linux on x86-64 has it)", file=sys.stderr)
        return 2
    names = given.names or targets()
    each = max(1, given.seconds // len(names))
    failed = 0
    for name in names:
        began = time.monotonic()
        found = search(name, each)
        said = (WORK / name / "log").read_text(errors="replace")
        runs = next((line.split()[-1] for line in said.splitlines() if "number_of_executed_units" in line), "?")
        state = "failed" if found else "ok"
        print(f"{name:<18} {state:<7} {runs:>9} inputs in {time.monotonic() - began:5.1f} s", flush=True)
        if found:
            failed += 1
            print(f"  {corpus.written([found.read_bytes()])}  what happened: {WORK / name}/log")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
