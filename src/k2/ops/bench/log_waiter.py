"""Follows a stream in a process of its own: `python -m k2.ops.bench.log_waiter STREAM COUNT`.

Says `{"ready": 1}`, then, when COUNT records were read, `{"woke": [[end, ns], ...]}`: at which time it held the records
before offset `end` in its hands.
"""

import json
import sys
import time

from k2.config import load
from k2.wire import open_log


def follow(stream: str, count: int) -> list[tuple[int, int]]:
    """Read `count` records from the stream's present end on."""
    log = open_log(load())
    try:
        at = log.bounds(stream)[1]
        last = at + count
        say({"ready": 1})
        woke: list[tuple[int, int]] = []
        while at < last:
            if log.wait({stream: at}, 1.0):
                for batch in log.read(stream, at):
                    at = batch.end
                woke.append((at, time.time_ns()))
        return woke
    finally:
        log.close()


def say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    say({"woke": follow(sys.argv[1], int(sys.argv[2]))})
