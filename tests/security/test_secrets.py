"""A platform with secrets in every place that takes one, under the most careless umask: nothing that it writes down,
says or answers holds any of them, and nobody else on the machine may look into its folder."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
from tests.integration.conftest import some_free_ports
from tests.patience import PATIENCE_S

from k2.config import load, without_secrets
from k2.metrics import read_status
from k2.store.server.request import Account

MARKS = {
    "store password": "mark-store-9f3a",
    "reader password": "mark-reader-71c2",
    "catalog password": "mark-catalog/@-55d0",
    "object storage key": "mark-s3-0b8e",
    "somebody's wrong password": "mark-wrong-c41d",
}


@dataclass
class Seen:
    """`words`: all that was written, said or answered, by where it stood. `modes`: of all files, before the end."""

    words: dict[str, bytes]
    modes: dict[str, int]
    key: str


def _get(url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> bytes:
    """The answer, headers and all, whatever its status."""
    try:
        with urlopen(Request(url, headers=dict(headers or {}), data=body), timeout=20) as answer:
            return bytes(answer.headers) + bytes(answer.read())
    except HTTPError as error:
        return bytes(error.headers) + error.read()
    except (OSError, HTTPException) as error:
        return repr(error).encode()


def _raw(port: int, data: bytes) -> bytes:
    """What is no HTTP. The answer quotes it to who said it; nothing else may."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        return connection.recv(1 << 16)


def _environ(folder: Path) -> dict[str, str]:
    settings = folder / "k2.toml"
    settings.write_text(f'[store]\npassword = "{MARKS["store password"]}"\n')
    store, ws, rest, web = some_free_ports(4)
    return {key: value for key, value in os.environ.items() if not key.startswith("K2_")} | {
        "K2_CONFIG": str(settings),
        "K2_DATA": str(folder / "data"),
        "K2_STORE_READONLY_PASSWORD": MARKS["reader password"],
        "K2_TIER_CATALOG": f"postgresql://archivist:{MARKS['catalog password']}@127.0.0.1:1/catalog",
        "AWS_SECRET_ACCESS_KEY": MARKS["object storage key"],
        "K2_TIER_EVERY_S": "1",
        "K2_STORE_PORT": str(store),
        "K2_SIM_WS_PORT": str(ws),
        "K2_SIM_REST_PORT": str(rest),
        "K2_WEB_PORT": str(web),
        "K2_METRICS_PORT": "0",
    }  # fmt: skip


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("secrets")
    environ = _environ(folder)
    config = load(environ={name: value for name, value in environ.items() if name.startswith("K2_")})
    words: dict[str, bytes] = {}

    def k2(*arguments: str) -> str:
        command = [sys.executable, "-m", "k2", *arguments]
        done = subprocess.run(
            command,
            env=environ,
            capture_output=True,
            text=True,
            timeout=90,
            umask=0,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if arguments[0] != "keys":
            words[f"k2 {' '.join(arguments)}"] = (done.stdout + done.stderr).encode()
        return done.stdout

    key = next(word for word in k2("keys", "create", "somebody").split() if word.startswith("k2_") and len(word) > 40)
    output = folder / "said"
    with output.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "k2", "demo"],
            env=environ, stdout=said, stderr=said, stdin=subprocess.DEVNULL, umask=0, start_new_session=True,
        )  # fmt: skip
    try:
        _until_all_run(config.run_dir, output)
        for service, word in read_status(config.run_dir).items():
            words[f"arguments of {service}"] = " ".join(psutil.Process(int(word["pid"])).cmdline()).encode()
            words[f"metrics of {service}"] = _get(f"http://127.0.0.1:{word['metrics_port']}/metrics")
        _ask_the_store(config.store.port, words)
        _ask_the_web(config.web.port, key, words)
        k2("check")
        k2("check", "--json", "--offline")
        k2("status", "--json")
        k2("archive")
        k2("sql", "SELECT count() FROM nowhere")
        modes = {str(path.relative_to(folder)): path.lstat().st_mode for path in (folder / "data").rglob("*")}
        modes["data"] = (folder / "data").stat().st_mode
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
    words["k2 demo"] = output.read_bytes()
    for path in (folder / "data").rglob("*"):
        if path.is_file():
            words[str(path.relative_to(folder))] = path.read_bytes()
    return Seen(words, modes, key)


def _until_all_run(run_dir: Path, output: Path) -> None:
    """All services, the failed archiver's first words too."""
    end = time.monotonic() + PATIENCE_S
    wanted = {"store", "loader", "web", "sim", "supervisor", "feed-handler-binance", "feed-handler-kraken"}
    log = run_dir / "archiver.log"
    while not (wanted <= read_status(run_dir).keys() and log.exists() and b"ERROR" in log.read_bytes()):
        assert time.monotonic() < end, f"not all of it runs: {output.read_text(errors='replace')[-3000:]}"
        time.sleep(0.1)


def _ask_the_store(port: int, words: dict[str, bytes]) -> None:
    url, wrong = f"http://127.0.0.1:{port}/", MARKS["somebody's wrong password"]
    reader = {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": MARKS["reader password"]}
    writer = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": MARKS["store password"]}
    words["store: wrong password"] = _get(f"{url}?query=SELECT+1&user=default&password={wrong}")
    words["store: wrong header"] = _get(url, {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": wrong}, b"SELECT 1")
    words["store: reader's error"] = _get(url, reader, b"SELECT nothing FROM nowhere")
    words["store: settings"] = _get(url, writer, b"SELECT * FROM system.settings")
    words["store: processes"] = _get(url, writer, b"SELECT * FROM system.processes")
    _raw(port, f"GET /?password={wrong}\xff HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))


def _ask_the_web(port: int, key: str, words: dict[str, bytes]) -> None:
    url = f"http://127.0.0.1:{port}"
    right = {"Authorization": f"Bearer {key}"}
    words["web: no key"] = _get(f"{url}/v1/trades")
    words["web: wrong key"] = _get(f"{url}/v1/trades", {"X-API-Key": MARKS["somebody's wrong password"]})
    words["web: key in the URL"] = _get(f"{url}/v1/trades?key={key}")
    words["web: unknown"] = _get(f"{url}/v1/nowhere?key={key}")
    words["web: trades"] = _get(f"{url}/v1/trades?limit=1", right)
    words["web: statement that fails"] = _get(
        f"{url}/v1/sql", {**right, "Content-Type": "application/json"}, json.dumps({"query": "SELECT x"}).encode()
    )
    for path in ("/v1/status", "/v1/platform", "/health", "/ready", "/v1/archive", "/openapi.json"):
        words[f"web: {path}"] = _get(f"{url}{path}", right)
    _raw(port, f"GET /v1/stream?key={key}&x=\xff HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))


@pytest.mark.slow
def test_no_secret_is_written_said_or_answered(seen: Seen) -> None:
    marks = {**MARKS, "API key": seen.key, "secret half of the API key": seen.key.split("_", 2)[2]}
    assert len(seen.words) > 60
    assert b"archivist" not in seen.words["k2 check"]
    found = [
        f"{what} in {where}"
        for where, text in seen.words.items()
        for what, mark in marks.items()
        if mark.encode() in text
    ]
    assert not found


@pytest.mark.slow
def test_what_was_looked_at_is_what_it_should_be(seen: Seen) -> None:
    """The test above would pass on empty words."""
    assert b"k2_" in seen.words["metrics of store"]
    assert b"max_memory_usage" in seen.words["store: settings"]
    assert b"AUTHENTICATION_FAILED" in seen.words["store: wrong password"]
    assert b'"data"' in seen.words["web: trades"]
    assert b"***" in seen.words["k2 check"]
    assert b"cannot be opened" in seen.words["k2 archive"]
    assert b"request" in seen.words["data/run/web.log"]


@pytest.mark.slow
def test_nobody_else_may_look(seen: Seen) -> None:
    open_ = [
        f"{stat.filemode(mode)} {name}"
        for name, mode in seen.modes.items()
        if mode & 0o077 and not stat.S_ISLNK(mode) and not stat.S_ISSOCK(mode)
    ]
    assert not open_
    assert {"data/keys.json", "data/log", "data/store", "data/run/web.log", "data/run/store.json"} <= seen.modes.keys()


def test_shown_settings_have_no_secrets() -> None:
    config = load(environ={"K2_STORE_PASSWORD": "hunter2", "K2_TIER_CATALOG": "postgresql://u:p/w@d@h/db?sslkey=tell"})
    for text in (repr(config), str(config.store), repr(config.tier), f"{config}", repr(Account("u", "hunter2", True))):
        assert "hunter2" not in text
        assert "p/w@d" not in text
        assert "tell" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://u:p@h:5432/db failed", "postgresql://***@h:5432/db failed"),
        ("GET /v1/stream?key=k2_0123abcd_QWERTYUIOP&start=now", "GET /v1/stream?key=***&start=now"),
        ("the key k2_0123abcd_QWERTYUIOP", "the key k2_0123abcd_***"),
        ("s3://bucket/path and 17 @ 3", "s3://bucket/path and 17 @ 3"),
        ("?s3.secret-access-key=x;region=y", "?s3.secret-access-key=***;region=y"),
    ],
)
def test_texts_without_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
