"""Recorded sets of three foreign formats to K2's capture format (docs/CAPTURE_FORMAT.md).

usage: convert.py CAPTURES_DIR TARGET_DIR

`binance-spot-2024`: gzip lines of `<receive ns> <frame>`, a REST answer being a frame without "stream".
`coinbase-exchange-2021`: `<receive s>: <frame>`; lines with `<-` or `<->` are what the recorder sent.
`kraken-v2-2026`: `CBCAP1 ...`, then `<receive ns> <length>\\n<bytes>\\n`.
Every received frame of every channel is kept, verbatim.
"""

import gzip
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

from k2.sim.capture import Header, Recorded, recorded, write


def binance(folder: Path) -> Iterator[Recorded]:
    for file in sorted(folder.glob("*.gz")):
        with gzip.open(file, "rb") as lines:
            for line in lines:
                received, _, payload = line.rstrip(b"\n").partition(b" ")
                if payload:
                    yield recorded(int(received), payload, "ws" if b'"stream"' in payload[:20] else "rest")


def coinbase(folder: Path) -> Iterator[Recorded]:
    for file in sorted(folder.glob("COINBASE.ws.*")):
        for line in file.read_bytes().splitlines():
            received, _, payload = line.partition(b": ")
            if not received.startswith(b"wss:") and payload:
                yield recorded(int(Decimal(received.decode()) * 10**9), payload)


def kraken(folder: Path) -> Iterator[Recorded]:
    for file in sorted(folder.glob("*.cbcap")):
        with file.open("rb") as stream:
            if not stream.readline().startswith(b"CBCAP1 "):
                raise SystemExit(f"{file} does not begin with CBCAP1")
            while head := stream.readline():
                received, length = head.split()
                yield recorded(int(received), stream.read(int(length)))
                stream.read(1)


SETS: dict[str, tuple[str, Callable[[Path], Iterator[Recorded]]]] = {
    "binance-spot-2024": ("binance", binance),
    "coinbase-exchange-2021": ("coinbase", coinbase),
    "kraken-v2-2026": ("kraken", kraken),
}


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    found = [name for name in SETS if (source / name).is_dir()]
    if not found:
        raise SystemExit(f"{source} holds none of {', '.join(SETS)}")
    for name in found:
        exchange, read = SETS[name]
        file = target / f"{name}.jsonl.gz"
        count = write(file, Header(1, exchange, note=f"converted from {name}"), read(source / name))
        print(f"{file}: {count} frames")


if __name__ == "__main__":
    main()
