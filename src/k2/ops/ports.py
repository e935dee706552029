"""Ports for platforms that are made for a while."""

import random
import socket

# Below those that systems give out to connections: such a port would be lost again before the service listens on it.
_RANGE = range(15_000, 32_000)
_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port of this host that nobody listens on now; never the same one again. Raises OSError if there is none."""
    for port in random.sample(_RANGE, len(_RANGE)):
        if port not in _given and _free(host, port):
            _given.add(port)
            return port
    raise OSError(f"no port of {host} from {_RANGE.start} to {_RANGE.stop - 1} is free")


def _free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
