"""The stream as server-sent events: one subscription, named by the URL; `Last-Event-ID` resumes it."""

import asyncio

import msgspec
from aiohttp import web

from k2.metrics import SUBSCRIBERS
from k2.web.problems import Problem
from k2.web.stream.connection import Connection
from k2.web.stream.hub import Hub
from k2.web.stream.messages import Subscribe
from k2.web.stream.session import Session
from k2.web.stream.websocket import TransportSink

MEDIA_TYPE = "text/event-stream"
_END_WITHIN = 3.0  # s for what is left
_positions = msgspec.json.Decoder(dict[str, int])


class ChunkedSink(TransportSink):
    """A `Sink` that writes HTTP/1.1 chunks."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self.write = self._chunk

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


def resumed(asked: Subscribe, last_event_id: str | None) -> Subscribe:
    """The subscription, from where its last event was. Raises Problem."""
    if not last_event_id:
        return asked
    try:
        return msgspec.structs.replace(asked, start=_positions.decode(last_event_id))
    except msgspec.MsgspecError:
        detail = f"{last_event_id[:80]!r} is no event id of this stream"
        raise Problem(
            400, "Invalid header", detail, "leave Last-Event-ID out, and give a start", "invalid-parameter"
        ) from None


async def serve(hub: Hub, request: web.Request, asked: Subscribe) -> web.StreamResponse:
    """One client, to the end. Raises Problem before."""
    hub.require_room()
    headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers=headers)
    chunked = request.version >= (1, 1)
    if chunked:
        response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(b": k2\n\n")
    assert request.transport is not None
    sink = ChunkedSink(request.transport) if chunked else TransportSink(request.transport)
    connection = Connection(hub, sink, "sse")
    hub.enter(connection)
    SUBSCRIBERS.labels("sse").inc()
    try:
        await Session(hub, connection).begin(asked)
        await sink.ended
        await _end(response, sink)
    finally:
        hub.leave(connection)
        SUBSCRIBERS.labels("sse").dec()
    return response


async def _end(response: web.StreamResponse, sink: TransportSink) -> None:
    try:
        async with asyncio.timeout(_END_WITHIN):
            await response.write_eof()
            while sink.unsent():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pass
    finally:
        sink.abort()
