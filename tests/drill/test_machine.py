"""What drills break machines with, and drills of each kind of it, for real. Most of it needs root; none of it lasts."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.drill.test_drills import play, proven

from k2.ops.drill.cgroup import MemoryGroup
from k2.ops.drill.netns import Namespace
from k2.ops.drill.volume import Volume

ANYBODY = ("exchanges-cut", "loader-cut-from-store", "subscriber-cut", "log-write-refused")
ROOT = ("exchanges-cut-wire", "disk-full", "cold-disk-full", "log-disk-slow", "memory-limit", "power-loss")


@pytest.mark.peers
def test_what_was_not_synced_is_gone_with_the_power(tmp_path: Path) -> None:
    with Volume(tmp_path / "at", tmp_path / "image", 64) as volume:
        with (volume.at / "synced").open("wb") as file:
            file.write(b"here")
            file.flush()
            os.fsync(file.fileno())
        (volume.at / "written").write_bytes(b"gone")
        volume.lose_power()
        with pytest.raises(OSError):
            (volume.at / "later").write_bytes(b"never")
        volume.unmount()
        volume.mount()
        assert (volume.at / "synced").read_bytes() == b"here"
        written = volume.at / "written"
        assert not written.exists() or not written.read_bytes()
    assert not volume.at.is_mount()
    assert not volume.image.exists()


@pytest.mark.peers
def test_a_full_volume_takes_nothing_until_space_is_given_back(tmp_path: Path) -> None:
    with Volume(tmp_path / "at", tmp_path / "image", 64) as volume:
        volume.fill()
        with pytest.raises(OSError, match="No space"):
            (volume.at / "more").write_bytes(bytes(1 << 16))
        volume.give_back()
        (volume.at / "more").write_bytes(bytes(1 << 20))


@pytest.mark.peers
def test_a_cut_wire_swallows_everything_and_heals() -> None:
    with Namespace("test") as network:
        server = subprocess.Popen(
            [*network.under, sys.executable, "-c", SERVE, network.there], stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            with socket.create_connection((network.there, port), timeout=20) as one:
                one.sendall(b"a")
                assert one.recv(1) == b"a"
                network.cut()
                one.sendall(b"b")
                one.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    one.recv(1)
                network.heal()
                one.settimeout(20)
                assert one.recv(1) == b"b"
        finally:
            server.kill()
            server.communicate()
    assert (
        network.name not in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    )


SERVE = """
import socket, sys
listening = socket.create_server((sys.argv[1], 0))
print(listening.getsockname()[1], flush=True)
one, _ = listening.accept()
while data := one.recv(100):
    one.sendall(data)
"""


@pytest.mark.peers
def test_a_group_beyond_its_memory_is_killed_and_counted() -> None:
    hungry = subprocess.Popen([sys.executable, "-c", "input(); x = bytearray(200 << 20)"], stdin=subprocess.PIPE)
    try:
        with MemoryGroup("test") as group:
            group.limit(32)
            group.take(hungry.pid)
            hungry.communicate(b"\n", timeout=30)
            assert hungry.returncode == -9
            assert group.kills() == 1
        assert not group.folder.exists()
    finally:
        hungry.kill()
        hungry.wait()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ANYBODY)
def test_drill(name: str, tmp_path: Path) -> None:
    proven(play(name, tmp_path))


@pytest.mark.peers
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", [*ROOT, "object-storage-gone"])
def test_drill_with_peers(name: str, tmp_path: Path) -> None:
    proven(play(name, tmp_path))
