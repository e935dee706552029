"""One request's turn with the engine: SELECTs out through a pipe, INSERTs in as their data arrive, all else at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future

from aiohttp import web

from k2.store import StoreError
from k2.store.embedded import Answer
from k2.store.server import answers
from k2.store.server.gate import Gate
from k2.store.server.incoming import Incoming
from k2.store.server.native import Blocks
from k2.store.server.pipes import Feed, Pipe
from k2.store.server.status import refusal
from k2.store.server.work import INLINE, Work

STOP_WITHIN = 10.0


class Turn:
    """Carries out one request. `headers` are those of its answer, and grow on the way."""

    def __init__(self, http: web.Request, incoming: Incoming, form: str, gate: Gate, work: Work) -> None:
        self._http = http
        self._incoming = incoming
        self._ask = incoming.ask
        self._statement = incoming.statement
        self._form = form
        self._gate = gate
        self._work = work
        self._began = time.perf_counter()

    async def take(self, headers: dict[str, str]) -> web.StreamResponse:
        """Run the statement and answer. Raises StoreError while an HTTP error can still be given."""
        statement = self._statement
        if statement.answers:
            headers["X-ClickHouse-Format"] = self._form
        if statement.kind == "select":
            return await self._select(headers)
        if statement.kind == "insert":
            answer = await self._insert()
        elif statement.kind == "insert_select" and statement.reads_input and statement.format:
            answer = await self._insert_stream(self._incoming.first, self._incoming.rest)
        else:
            answer = await self._gate.run(self._work.plain, self._ask, statement, self._form)
        body = answer.body
        if statement.answers:
            headers["Content-Type"] = answers.content_type(self._form)
            body = Blocks(self._revision()).feed(body, last=True) if self._revision() else body
        return answers.whole(self._ask, body, self._summed(headers, answer))

    def _summed(self, headers: dict[str, str], answer: Answer) -> dict[str, str]:
        return {**headers, "X-ClickHouse-Summary": answers.summary(answer, time.perf_counter() - self._began)}

    async def _select(self, headers: dict[str, str]) -> web.StreamResponse:
        pipe = Pipe(self._revision())
        ask = self._ask._replace(encoding="") if self._revision() else self._ask
        work = self._gate.submit(self._work.select, ask, self._statement, self._form, pipe.writer, self._incoming.files)
        work.add_done_callback(lambda _: pipe.close_writer())
        done = asyncio.wrap_future(work)
        try:
            chunks, whole = await answers.held(pipe)
            packed = {**headers, "Content-Type": answers.content_type(self._form)}
            if self._ask.encoding and not self._revision():
                packed["Content-Encoding"] = self._ask.encoding
            if whole:
                return answers.whole(self._ask, b"".join(chunks), self._summed(packed, await done))
            if self._ask.buffered:
                return await self._spool(packed, pipe, chunks, done)
            return await self._stream(packed, pipe, chunks, done)
        finally:
            pipe.close()
            done.add_done_callback(_heard)

    def _revision(self) -> int:
        """The Native revision that the answer must be rewritten to; 0 for none."""
        return self._ask.protocol_version if self._form.lower() == "native" else 0

    async def _spool(
        self, headers: dict[str, str], pipe: Pipe, chunks: list[bytes], done: "asyncio.Future[Answer]"
    ) -> web.StreamResponse:
        """`wait_end_of_query`: nothing is sent before the end is known to be good."""
        with await answers.spooled(pipe, chunks) as file:
            stream = answers.Stream(self._http, self._ask, self._summed(headers, await done))
            await stream.begin()
            while chunk := await asyncio.to_thread(file.read, answers.WHOLE):
                await stream.write(chunk)
            return await stream.end()

    async def _stream(
        self, headers: dict[str, str], pipe: Pipe, chunks: list[bytes], done: "asyncio.Future[Answer]"
    ) -> web.StreamResponse:
        stream = answers.Stream(self._http, self._ask, headers)
        await stream.begin()
        for chunk in chunks:
            await stream.write(chunk)
        chunks.clear()
        while chunk := await pipe.read():
            await stream.write(chunk)
        try:
            await done
        except StoreError as error:
            return await stream.break_off(error)
        return await stream.end()

    async def _insert(self) -> Answer:
        if self._ask.method != "POST":
            raise refusal(164, "READONLY", "Cannot execute query in readonly mode: INSERT needs POST")
        whole = bytearray(self._incoming.first)
        rest = self._incoming.rest
        if rest is not None:
            async for piece in rest:
                whole += piece
                if len(whole) > INLINE:
                    return await self._insert_stream(bytes(whole), rest)
        if not whole:
            raise refusal(108, "NO_DATA_TO_INSERT", "No data to insert")
        return await self._gate.run(self._work.insert, self._ask, self._statement, self._form, bytes(whole))

    async def _insert_stream(self, first: bytes, rest: AsyncIterator[bytes] | None) -> Answer:
        """The data go through a pipe that the engine reads as a file, as they come.

        Its end is closed only when the statement is over, whoever has gone away: the engine opens it by its number, and
        that number must not be another statement's by then.
        """
        feed = Feed()
        work = self._gate.submit(self._work.insert_from, self._ask, self._statement, self._form, feed.reader)
        work.add_done_callback(lambda _: feed.close_reader())
        done = asyncio.wrap_future(work)
        done.add_done_callback(_heard)
        try:
            reading = await feed.write(first)
            if rest is not None:
                async for piece in rest:
                    reading = reading and await feed.write(piece)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._stop, work))
            raise
        finally:
            feed.close()
        return await done

    def _stop(self, work: "Future[Answer]") -> None:
        """The data that came must not count as all of them: the engine has to know before it sees their end."""
        deadline = time.monotonic() + STOP_WITHIN
        while not work.cancel() and not work.done() and not self._work.kill(self._ask.query_id):
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)


def _heard(done: "asyncio.Future[Answer]") -> None:
    """Nobody waits for this any more: its failure is no news."""
    if not done.cancelled():
        done.exception()
