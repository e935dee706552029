"""The store's process: opens the engine, listens, and closes it when told to stop."""

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress

import uvloop
from aiohttp import web

from k2.config import Config, ConfigError
from k2.door import Door, is_loopback
from k2.store import Store
from k2.store.embedded import EmbeddedStore, Engine
from k2.store.server.app import Server

_log = logging.getLogger("k2.store")
_GRACE = 1.5
CONNECTIONS = 512


def serve(config: Config, prepare: Callable[[Store], None], ready: Callable[[int], None]) -> None:
    """Open the store, `prepare` it (migrations), listen, call `ready` with the port, serve until told to stop.

    Raises StoreError if the directory cannot be opened or prepared, ConfigError if the address cannot be listened on.
    The process's working folder becomes `/`: the engine reads Iceberg tables only from below it, whatever it is told
    of `user_files_path`. So the paths in `config` must be absolute where others use them, too.
    """
    directory = config.store_dir
    _refuse_open_door(config)
    os.chdir("/")
    engine = Engine(directory, config.store.max_memory_mb, config.store.keep_free_mb)
    try:
        store = EmbeddedStore(engine)
        prepare(store)
        store.close()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(engine, config, ready))
    finally:
        engine.close()


def _refuse_open_door(config: Config) -> None:
    store = config.store
    if is_loopback(store.host):
        return
    for name, password in ((store.user, store.password), (store.readonly_user, store.readonly_password)):
        if not password:
            raise ConfigError(
                f"store.host = {store.host!r} can be reached from other machines and user {name!r} has no password:"
                " set store.password and store.readonly_password, or listen on 127.0.0.1"
            )


async def _serve(engine: Engine, config: Config, ready: Callable[[int], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(engine, config.store)
    door = Door("store-connections", CONNECTIONS)
    runner = web.AppRunner(
        server.application(door.middleware),
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=120,
        auto_decompress=False,
        shutdown_timeout=0,
    )
    await runner.setup()
    try:
        listener = await door.listen(runner, config.store.host, config.store.port, backlog=256)
    except OSError as error:
        await server.drain(0)
        raise ConfigError(
            f"cannot listen on {config.store.host}:{config.store.port} ({error.strerror}): "
            "another store may be running; choose another store.port"
        ) from None
    port = int(listener.sockets[0].getsockname()[1])
    sessions = loop.create_task(server.expire_sessions())
    _log.info("listening", extra={"host": config.store.host, "port": port})
    gc.freeze()  # what is here now stays: it need not be searched for garbage
    ready(port)
    await stop.wait()
    _log.info("stopping")
    listener.close()
    sessions.cancel()
    with suppress(asyncio.CancelledError):
        await sessions
    await server.drain(_GRACE)
    await runner.cleanup()
