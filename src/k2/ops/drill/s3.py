"""An object store that speaks S3 on loopback: versitygw, files below a folder."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

from k2.ops.drill import DrillError

BUCKET = "k2cold"  # a bucket's name has three characters or more
ACCESS = "k2-drill"
REGION = "us-east-1"
READY_WITHIN_S = 20.0


class ObjectStore:
    """Started at once; `kill` and `start` it again as often as you like. A context manager. Raises DrillError."""

    def __init__(self, folder: Path, port: int, secret: str) -> None:
        self.folder, self.port = folder, port
        self._secret = secret
        self._server: subprocess.Popen[bytes] | None = None
        (folder / "store" / BUCKET).mkdir(parents=True)
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it answers."""
        with (self.folder / "server.err").open("ab") as words:
            self._server = subprocess.Popen(
                ["versitygw", "--port", f"127.0.0.1:{self.port}", "--quiet", "--health", "/health", "--region", REGION,
                 "posix", str(self.folder / "store")],
                env={**os.environ, "ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": self._secret},
                stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise DrillError(f"versitygw did not start; see {self.folder / 'server.err'}")
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9. Idempotent."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def client_settings(self, endpoint: str) -> dict[str, str]:
        """Environment variables with which K2's cold tier finds it: PyIceberg's own."""
        path = "PYICEBERG_CATALOG__K2__S3__"
        return {
            f"{path}ENDPOINT": endpoint,
            f"{path}REGION": REGION,
            f"{path}ACCESS_KEY_ID": ACCESS,
            f"{path}SECRET_ACCESS_KEY": self._secret,
        }

    def data_files(self) -> set[Path]:
        """The objects that are data files of tables."""
        return set((self.folder / "store" / BUCKET).glob("**/data/**/*.parquet"))

    def commits(self) -> int:
        """How many commits were ever made, of all tables: each writes a metadata file."""
        return sum(1 for _ in (self.folder / "store" / BUCKET).glob("**/metadata/*.metadata.json"))

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=1.0)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def k2_json(environ: Mapping[str, str], *arguments: str, within_s: float = 120.0, **settings: str) -> tuple[int, Any]:
    """Run a `k2` command with `--json`: its exit code, and what it printed (None: nothing). Raises DrillError."""
    command = ["k2", *arguments, "--json"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command], env={**environ, **settings}, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=within_s, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else done.stderr.decode(errors="replace")
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise DrillError(f"{' '.join(command)}: {error}") from None
