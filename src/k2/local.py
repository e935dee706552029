"""What answers for a data folder on this machine: its running `k2 web`, its running store, or the folder itself.

A folder that nothing runs on is read through a store of our own, `k2 store --read-only`, in a process beside this one:
the engine allows one process a folder and wants a working folder of its own. It changes nothing, it ends when nobody
has asked for a while, and a platform that starts sends it away.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from k2.client import Client
from k2.client.api import Api
from k2.client.direct import Direct
from k2.client.errors import AccessDenied, K2Error, Unavailable
from k2.client.source import Source
from k2.config import Config, ConfigError, load
from k2.metrics import read_status
from k2.store import Store
from k2.wire import open_reader

STARTS_WITHIN = 30.0
FOUND_WITHIN = 20.0  # who has the folder open says where it answers, or lets go
IDLE_S = 60.0
_LOOK_S = 2.0
_PLATFORM = ("loader", "sim")  # where one of them runs, the store is theirs to start


def connect(url: str | None = None, key: str | None = None, data: str | os.PathLike[str] | None = None) -> Client:
    """As `k2.connect`."""
    if url is not None:
        if data is not None:
            raise K2Error("Two places at once", "both url and data were given", "give one of them")
        api = Api(url, key)
        api.json("/v1/exchanges")  # so that a wrong address or key is told now
        return Client(api)
    try:
        config = load(data=None if data is None else os.fspath(data))
    except ConfigError as error:
        raise K2Error("The configuration cannot be used", str(error)) from None
    return Client(_web(config, key) or store_of(config))


def store_of(config: Config) -> Direct:
    """The data folder's store, running or not. Raises K2Error."""
    folder = Folder(config)
    folder.open().close()
    return Direct(str(config.data_dir), folder.open, folder.close)


def _web(config: Config, key: str | None) -> Source | None:
    """The folder's own `k2 web`, if it runs and lets us in."""
    word = read_status(config.run_dir).get("web")
    if word is None:
        return None
    api = Api(str(word.get("address") or config.web_url), key, ca_file=config.web.tls_cert or None)
    try:
        api.json("/v1/exchanges")
    except Unavailable:
        return None
    except AccessDenied:
        if key is not None:
            raise
        return None
    return api


class Folder:
    """Connections to the store of a data folder, wherever it runs just now. Thread-safe."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._guard = threading.Condition()
        self._address = ""
        self._own: subprocess.Popen[bytes] | None = None
        self._said = ""
        self._active = 0
        self._used = 0.0

    def open(self, again: bool = False) -> "Lease":
        """A connection that may only read. `again`: look anew. Raises K2Error."""
        with self._guard:
            if again or not self._address:
                self._address = self._find()
            self._active += 1
            return Lease(open_reader(self._config, self._address), self._release)

    def close(self) -> None:
        """End our own store, if one runs. Idempotent."""
        with self._guard:
            self._end()
            self._guard.notify_all()

    def _release(self) -> None:
        with self._guard:
            self._active -= 1
            self._used = time.monotonic()

    def _find(self) -> str:
        self._end()
        deadline = time.monotonic() + FOUND_WITHIN
        while True:
            words = read_status(self._config.run_dir)
            for name in ("store", "reader"):
                if address := words.get(name, {}).get("address"):
                    return str(address)
            if not self._config.store_dir.is_dir():
                raise K2Error(
                    "No data here",
                    f"{self._config.data_dir} holds no store of K2",
                    "name the folder (data=...) or the address of `k2 web` (url=...), or make data with `k2 demo`",
                )
            if words.keys() & set(_PLATFORM):
                said = f"a platform runs on {self._config.data_dir}, and its store does not answer"
            elif address := self._start():
                return address
            else:
                said = self._said
            if time.monotonic() > deadline or ("already open" not in said and not words.keys() & set(_PLATFORM)):
                raise Unavailable("The folder cannot be opened", said, "look with `k2 status`")
            time.sleep(0.2)  # its owner has yet to say where it answers

    def _start(self) -> str:
        """Start our own store; its address. Empty where it ended before it answered: `_said` is why."""
        command = [sys.executable, "-m", "k2.child", "--data", str(self._config.data_dir), "store"]
        command += ["--host", "127.0.0.1", "--port", "0", "--read-only"]
        with tempfile.TemporaryFile() as words:
            own = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=words, stderr=words, env={**os.environ, "K2_METRICS_PORT": "0"},
                start_new_session=True,
            )  # fmt: skip
            deadline = time.monotonic() + STARTS_WITHIN
            while own.poll() is None:
                if address := self._address_of(own.pid):
                    self._own = own
                    self._used = time.monotonic()
                    threading.Thread(target=self._end_when_idle, args=(own,), name="k2-idle", daemon=True).start()
                    return address
                if time.monotonic() > deadline:
                    own.kill()
                time.sleep(0.02)
            self._said = _last_line(words)
        return ""

    def _address_of(self, pid: int) -> str:
        try:
            word = json.loads((self._config.run_dir / "reader.json").read_text())
        except (OSError, ValueError):
            return ""
        return str(word["address"]) if word.get("pid") == pid else ""

    def _end_when_idle(self, own: subprocess.Popen[bytes]) -> None:
        """Also as soon as a platform wants the folder."""
        with self._guard:
            while self._own is own:
                wanted = read_status(self._config.run_dir).keys() & set(_PLATFORM)
                if not self._active and (wanted or time.monotonic() - self._used > IDLE_S):
                    self._end()
                    return
                self._guard.wait(_LOOK_S)

    def _end(self) -> None:
        self._address = ""
        own, self._own = self._own, None
        if own is None:
            return
        own.terminate()
        try:
            own.wait(5)
        except subprocess.TimeoutExpired:
            own.kill()
            own.wait()
        assert own.stdin is not None
        own.stdin.close()


class Lease:
    """A connection that says when it is done with."""

    def __init__(self, store: Store, done: Callable[[], None]) -> None:
        self._store = store
        self._done: Callable[[], None] | None = done

    def rows(self, sql: str, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._store.rows(sql, params)

    def stream(self, sql: str, fmt: str, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        return self._store.stream(sql, fmt, params)

    def close(self) -> None:
        """Idempotent."""
        self._store.close()
        done, self._done = self._done, None
        if done is not None:
            done()


def _last_line(words: IO[bytes]) -> str:
    words.seek(0)
    lines = words.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("Error: ").strip() if lines else ""
