"""One target's process: `python -m tests.fuzz.process TARGET FOLDER [libFuzzer options] CORPUS`.

An input that the target fails at is written to `FOLDER/found-failure`, and the process ends there and then: servers
have threads that would keep it.
"""

import os
import sys
import traceback
from pathlib import Path

import atheris

NAME = sys.argv.pop(1)
with atheris.instrument_imports(include=["k2", "tests.fuzz.pure", "tests.fuzz.served"]):
    if NAME in ("api", "store-http", "stream"):
        from tests.fuzz.served import TARGETS
    else:
        from tests.fuzz.pure import TARGETS


def main() -> None:
    target, folder = TARGETS[NAME], Path(sys.argv.pop(1))

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
