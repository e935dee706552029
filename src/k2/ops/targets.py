"""Where Prometheus finds the platform's processes: a file in its `file_sd` form that the supervisor keeps up to date.

A process that has died stays in it, with the port that it had: Prometheus is to see that it is down.
"""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k2.config import Config


def targets_file(run_dir: Path) -> Path:
    """The file of a run folder."""
    return run_dir / "prometheus" / "targets.json"


def group(config: Config, service: str, port: int) -> dict[str, Any]:
    """One process. `instance` is the machine, so that a restart on another port goes on with the same series."""
    host = config.metrics.host if config.metrics.host not in ("", "0.0.0.0", "::") else "127.0.0.1"
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return {"targets": [address], "labels": {"service": service, "instance": socket.gethostname()}}


class Targets:
    """Writes the file whenever a port has changed. Ports: service -> port; 0 for one that has not said yet."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._file = targets_file(config.run_dir)
        self._ports: dict[str, int] = {}

    def update(self, ports: Mapping[str, int]) -> None:
        """Raises OSError."""
        known = {**self._ports, **{service: port for service, port in ports.items() if port}}
        if known == self._ports:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps([group(self._config, *one) for one in sorted(known.items())], indent=2) + "\n")
        part.replace(self._file)
        self._ports = known
