"""One target's process: `python -m tests.fuzz.process TARGET FOLDER [libFuzzer options] CORPUS`.

An input that the target fails at is written to `FOLDER/found-failure`, and the process ends there and then: servers
have threads that would keep it.
"""

import os
import sys
import traceback
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["k2", "tests.fuzz.pure", "tests.fuzz.served"]):
    from tests.fuzz import targets


def main() -> None:
    target, folder = targets.TARGETS[sys.argv.pop(1)], Path(sys.argv.pop(1))

    def one(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            (folder / "found-failure").write_bytes(data)
            os._exit(1)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
