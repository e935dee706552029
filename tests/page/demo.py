"""A `k2 demo` on free ports, as a person would start it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from tests.integration.conftest import some_free_ports
from tests.patience import PATIENCE_S

START_WITHIN = 90.0  # s


class Demo:
    """Ready when made: every symbol has trades in the store, and the web answers. `url` is the page's."""

    def __init__(self, folder: Path) -> None:
        store, ws, rest, web = some_free_ports(4)
        self.data = folder / "data"
        self.url = f"http://127.0.0.1:{web}"
        environ = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "K2_DATA": str(self.data),
            "K2_STORE_PORT": str(store),
            "K2_SIM_WS_PORT": str(ws),
            "K2_SIM_REST_PORT": str(rest),
            "K2_WEB_PORT": str(web),
            "K2_METRICS_PORT": "0",
            "K2_TIER_EVERY_S": "5",
            "K2_LOADER_FLUSH_S": "1",
            "K2_SIM_RATE": "150",
        }
        self._said = (folder / "demo.txt").open("w")
        command = [sys.executable, "-m", "k2", "demo", "--fault", "drop:binance:p=0.02"]
        self._process = subprocess.Popen(command, stdout=self._said, stderr=self._said, env=environ)
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_WITHIN
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if len(self.get("/v1/symbols?limit=100")["data"]) == 34 and self.get("/v1/snapshots")["data"]:
                    return
            except (URLError, ConnectionError, TimeoutError):
                pass
            time.sleep(0.5)
        said = Path(self._said.name).read_text()
        self.stop()
        raise AssertionError(f"the demo did not start within {START_WITHIN:.0f} s; it said:\n{said}")

    def get(self, path: str) -> Any:
        with urlopen(self.url + path, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def pid(self, service: str) -> int:
        word = json.loads((self.data / "run" / f"{service}.json").read_text())
        return int(word["pid"])

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self._said.close()
