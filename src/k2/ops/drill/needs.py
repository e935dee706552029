"""What a drill may need of the machine, and how to come by it."""

import os
import shutil
import subprocess
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
    "tc": Need(_program("tc"), "install iproute2 (a Debian package)"),
    "openssl": Need(_program("openssl"), "install openssl (a Debian package)"),
    "namespaces": Need(lambda: _may("unshare", "-n", "-m", "true"), "run it where root may make namespaces and mounts"),
    "ext4": Need(
        lambda: shutil.which("mkfs.ext4") is not None and Path("/dev/loop-control").exists(),
        "run it where loop devices are, with e2fsprogs (a Debian package)",
    ),
    "cgroup": Need(
        lambda: memory_controller() is not None, "run it where the memory controller of cgroups is writable"
    ),
    "versitygw": Need(_program("versitygw"), "put versitygw, an S3 gateway, on the PATH"),
    "prometheus": Need(_program("prometheus"), "install Prometheus (Debian: prometheus)"),
    "alertmanager": Need(
        lambda: any(map(shutil.which, ("alertmanager", "prometheus-alertmanager"))),
        "install Alertmanager (Debian: prometheus-alertmanager)",
    ),
}


def memory_controller() -> Path | None:
    """Where groups with a memory limit are made, of cgroups' first version or second; None if we may not."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    if (first / "memory.limit_in_bytes").exists():
        return first if os.access(first / "cgroup.procs", os.W_OK) else None
    try:
        on = (second / "cgroup.subtree_control").read_text().split()
    except OSError:
        return None
    return second if "memory" in on and os.access(second / "cgroup.procs", os.W_OK) else None


def _may(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def missing(needs: Iterable[str]) -> list[str]:
    """What is needed and is not here, each with what to do."""
    return [f"{name}: {NEEDS[name].how}" for name in needs if not NEEDS[name].here()]
