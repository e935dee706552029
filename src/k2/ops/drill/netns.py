"""A network of one host: a namespace joined to ours by a pair of virtual interfaces, whose wire can be cut.

The namespace is the exchange's side. Cutting makes both interfaces swallow whatever is sent: nobody is told, addresses
stay, the kernel's TCP retransmits as it would across an ocean. The addresses are from 198.18.0.0/15, which is set aside
for tests of networks (RFC 2544) and is used nowhere else.
"""

import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Self

from k2.ops.drill import DrillError
from k2.ops.drill.shell import run


class Namespace:
    """Made, and removed by `close` with everything that still runs in it. A context manager. Needs root.

    `here` and `there` are the addresses of the two ends, `under` what to put before a command to run it there.
    """

    def __init__(self, label: str) -> None:
        """Raises DrillError."""
        mark = f"{os.getpid() & 0xFFFFF:x}{random.randrange(256):02x}"
        self.name = f"k2-{label}-{mark}"
        self._near, self._far = f"k2n{mark}", f"k2f{mark}"
        block = random.randrange(0, 1 << 15) * 4
        second, third, last = 18 + (block >> 16), block >> 8 & 255, block & 255
        self.here, self.there = f"198.{second}.{third}.{last + 1}", f"198.{second}.{third}.{last + 2}"
        self.under = ["ip", "netns", "exec", self.name]
        try:
            run("ip", "netns", "add", self.name)
            run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.name)
            run("ip", "addr", "add", f"{self.here}/30", "dev", self._near)
            run("ip", "link", "set", self._near, "up")
            run(*self.under, "ip", "addr", "add", f"{self.there}/30", "dev", self._far)
            run(*self.under, "ip", "link", "set", self._far, "up")
            run(*self.under, "ip", "link", "set", "lo", "up")
        except DrillError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def cut(self) -> None:
        """Swallow everything, in both directions. Raises DrillError."""
        run("tc", "qdisc", "replace", "dev", self._near, "root", "blackhole")
        run(*self.under, "tc", "qdisc", "replace", "dev", self._far, "root", "blackhole")

    def heal(self) -> None:
        """Let everything through again. Raises DrillError."""
        run("tc", "qdisc", "del", "dev", self._near, "root")
        run(*self.under, "tc", "qdisc", "del", "dev", self._far, "root")

    def close(self) -> None:
        """Remove it. Idempotent."""
        with suppress(DrillError):
            run("ip", "link", "del", self._near)
        with suppress(DrillError):
            run("ip", "netns", "del", self.name)


def certificate(folder: Path, address: str) -> tuple[Path, Path]:
    """A fresh self-signed certificate for an address: its file and that of its key. Raises DrillError."""
    cert, key = folder / "venue.crt", folder / "venue.key"
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=k2 drill", "-addext", f"subjectAltName=IP:{address}", "-keyout", str(key),
        "-out", str(cert),
    )  # fmt: skip
    return cert, key
