"""What a drill may need of the machine, and how to come by it."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple


class Need(NamedTuple):
    """`here` tells whether it is there; `how` says what to do if not."""

    here: Callable[[], bool]
    how: str


def _program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def faketime_library() -> Path | None:
    """The library that gives a process a clock of its own; None if it is not installed."""
    return next((file for file in sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


NEEDS: dict[str, Need] = {
    "root": Need(lambda: os.geteuid() == 0, "run it as root"),
    "linux": Need(lambda: Path("/proc/self/ns").is_dir(), "run it on Linux"),
    "faketime": Need(lambda: faketime_library() is not None, "install libfaketime (a Debian package)"),
    "strace": Need(_program("strace"), "install strace (a Debian package)"),
    "ip": Need(_program("ip"), "install iproute2 (a Debian package)"),
    "iptables": Need(_program("iptables"), "install iptables (a Debian package)"),
    "versitygw": Need(_program("versitygw"), "put versitygw, an S3 gateway, on the PATH"),
    "prometheus": Need(_program("prometheus"), "install Prometheus (Debian: prometheus)"),
    "alertmanager": Need(
        lambda: any(map(shutil.which, ("alertmanager", "prometheus-alertmanager"))),
        "install Alertmanager (Debian: prometheus-alertmanager)",
    ),
}


def missing(needs: Iterable[str]) -> list[str]:
    """What is needed and is not here, each with what to do."""
    return [f"{name}: {NEEDS[name].how}" for name in needs if not NEEDS[name].here()]
