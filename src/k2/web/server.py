"""The web server: where it may listen, its TLS, and how it starts and ends."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from k2.config import Config, ConfigError, WebConfig
from k2.door import Door
from k2.web.app import Frame, routes
from k2.web.parts import Parts

_GRACE = 1.0  # s for answers under way, when the server ends
_BACKLOG = 512
_CONNECTIONS = 256  # besides those of live streams
_LINE = 64 << 10  # bytes of a request's first line: lists of symbols, statements


def tls(config: WebConfig) -> ssl.SSLContext | None:
    """The certificate that `web.tls_cert` and `web.tls_key` name; None without. Raises ConfigError."""
    if not config.tls_cert and not config.tls_key:
        return None
    if not (config.tls_cert and config.tls_key):
        raise ConfigError("web.tls_cert and web.tls_key belong together: set both, or neither")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(Path(config.tls_cert).expanduser(), Path(config.tls_key).expanduser())
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else str(error)
        raise ConfigError(
            f"web.tls_cert = {config.tls_cert!r} and web.tls_key = {config.tls_key!r} are no certificate with its key"
            f" ({reason}): name two PEM files"
        ) from None
    return context


async def serve(
    parts: Parts, stop: asyncio.Event, ready: Callable[[str], None], before_end: Callable[[], Awaitable[None]]
) -> None:
    """Listen, call `ready` with the address, answer until `stop` is set. Then nothing new is let in, `before_end` is
    awaited (it ends live streams), and what runs has a second. Raises ConfigError."""
    config: Config = parts.config
    context = tls(config.web)
    door = Door("web-connections", config.web.subscribers + _CONNECTIONS)
    runner = web.AppRunner(
        Frame(parts, routes()).application(door.middleware),
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=75,
        shutdown_timeout=_GRACE,
        max_line_size=_LINE,
        auto_decompress=False,
    )
    await runner.setup()
    try:
        try:
            listener = await door.listen(runner, config.web.host, config.web.port, _BACKLOG, context)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {config.web.host}:{config.web.port} ({error.strerror}): end what uses it, or choose"
                " another web.port"
            ) from None
        port = listener.sockets[0].getsockname()[1]
        host = f"[{config.web.host}]" if ":" in config.web.host else config.web.host
        ready(f"{'https' if context else 'http'}://{host}:{port}")
        await stop.wait()
        listener.close()
        await before_end()
    finally:
        await runner.cleanup()
