"""Does each part work? One probe a part; a probe never changes anything and never raises."""

import json
import os
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple
from urllib.parse import urlsplit

from k2.config import EXCHANGES, Config, ConfigError, instruments
from k2.exchanges import venue
from k2.log import LogError
from k2.store import StoreError
from k2.tier import TierError
from k2.wire import open_log, open_store, read_heads

LOW_DISK = 2 << 30


class Finding(NamedTuple):
    """`ok` None: not running or not reachable now, which may be as intended."""

    part: str
    ok: bool | None
    detail: str


def probes(config: Config) -> Iterator[Finding]:
    """Probe data folder, instruments, log, store, cold tier, web and exchanges, in this order."""
    yield _folder(config)
    yield _instruments(config)
    yield _log(config)
    yield _store(config)
    yield _cold(config)
    yield _web(config)
    for name in EXCHANGES:
        if config.exchange(name).enabled:
            yield _exchange(config, name)
        else:
            yield Finding(f"exchange {name}", None, "switched off in the configuration")


def _folder(config: Config) -> Finding:
    folder = config.data_dir
    parent = next(p for p in (folder, *folder.parents) if p.exists())
    if not os.access(parent, os.W_OK):
        return Finding(
            "data folder", False, f"{parent} cannot be written: change its owner or name another with --data"
        )
    free = shutil.disk_usage(parent).free
    detail = f"{folder}, {free / 1e9:.1f} GB free"
    if folder.exists() and folder.stat().st_mode & 0o077:
        detail += f"; others on this machine may look into it: `chmod 700 {folder}` ends that"
    return Finding("data folder", free > LOW_DISK, detail + ("" if free > LOW_DISK else ": make room, at least 2 GB"))


def _instruments(config: Config) -> Finding:
    try:
        listed = instruments(config.instruments_file)
    except ConfigError as error:
        return Finding("instruments", False, str(error))
    count = ", ".join(f"{len(symbols)} on {name}" for name, symbols in listed.items())
    return Finding("instruments", bool(listed), f"{count} ({config.instruments_file})")


def _log(config: Config) -> Finding:
    if not config.log_dir.exists():
        return Finding("log", None, f"{config.log_dir} does not exist yet: the first start makes it")
    try:
        log = open_log(config)
        try:
            streams = log.streams()
        finally:
            log.close()
    except LogError as error:
        return Finding("log", False, str(error))
    return Finding("log", True, f"{len(streams)} streams, {sum(s.size for s in streams) / 1e6:,.1f} MB")


def _store(config: Config) -> Finding:
    try:
        store = open_store(config)
        try:
            ((version,),) = store.rows("SELECT version()")
        finally:
            store.close()
    except StoreError as error:
        return Finding("store", None, f"{config.store_url} does not answer ({error}): `k2 up` starts it")
    return Finding("store", True, f"{config.store_url}, ClickHouse {version}")


def _cold(config: Config) -> Finding:
    try:
        heads = read_heads(config)
    except (TierError, ConfigError) as error:
        return Finding("cold tier", False, str(error))
    if not heads:
        return Finding("cold tier", None, f"{config.cold_dir} holds no tables yet: the first `k2 archive` makes them")
    rows = ", ".join(f"{head.rows:,} {name}" for name, head in heads.items() if head.rows)
    newest = max(head.committed_ms for head in heads.values()) / 1000
    return Finding("cold tier", True, f"{rows or 'empty tables'}; last commit {_ago(time.time() - newest)} ago")


def _web(config: Config) -> Finding:
    if not config.web.port:
        return Finding("web", None, "switched off in the configuration (web.port = 0)")
    parts = urlsplit(config.web_url)
    host, port = parts.hostname or "", parts.port or 0
    connection: HTTPConnection = (
        HTTPSConnection(host, port, timeout=5, context=_any_certificate())
        if parts.scheme == "https"
        else HTTPConnection(host, port, timeout=5)
    )
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        said = json.loads(answer.read())
    except (OSError, HTTPException, ValueError) as error:
        return Finding("web", None, f"{config.web_url} does not answer ({error}): `k2 up` starts it")
    finally:
        connection.close()
    if answer.status == 200:
        return Finding("web", True, f"{config.web_url}, data flows")
    return Finding("web", False, f"{config.web_url}: {said.get('detail', f'HTTP status {answer.status}')}")


def _any_certificate() -> ssl.SSLContext:
    """For asking our own process how it is: nothing secret is sent, and its certificate may name another host."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _exchange(config: Config, name: str) -> Finding:
    settings, known = config.exchange(name), venue(name)
    details = []
    for url in (settings.ws_url or known.ws_url, settings.rest_url or known.rest_url):
        parts = urlsplit(url)
        secure = parts.scheme in ("wss", "https")
        address = (parts.hostname or "", parts.port or (443 if secure else 80))
        try:
            with socket.create_connection(address, timeout=5) as plain:
                if secure:
                    context = ssl.create_default_context()
                    if settings.ca_file:
                        context.load_verify_locations(settings.ca_file)
                    context.wrap_socket(plain, server_hostname=address[0]).close()
        except OSError as error:
            why = f"{address[0]}:{address[1]} cannot be reached ({error}): check network and TLS, or try `k2 demo`"
            return Finding(f"exchange {name}", None, why)
        details.append(f"{address[0]}:{address[1]}")
    return Finding(f"exchange {name}", True, " and ".join(details) + " answer")
