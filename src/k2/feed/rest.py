"""One GET to a venue: bounded in time and size, with the answer, or why there is none."""

import asyncio
import ssl
import time
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from k2 import __version__
from k2.feed.socket import check_url

if TYPE_CHECKING:
    import aiohttp

MAX_ANSWER = 32 << 20


class RestError(Exception):
    """No answer: the venue could not be reached, was too slow, or said too much. `outcome` is a slug for the metric."""

    def __init__(self, outcome: str, message: str) -> None:
        super().__init__(message)
        self.outcome = outcome


class Answer(NamedTuple):
    """`retry_after` is what the venue asked for, in seconds, or None."""

    status: int
    body: bytes
    retry_after: float | None


class Rest:
    """A venue's REST interface. One per handler; close it."""

    def __init__(self, url: str, context: ssl.SSLContext, timeout: float) -> None:
        check_url(url, "https", "http")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._context = context
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> "aiohttp.ClientSession":
        """Get ready. Loading the HTTP library takes a while: it is done here, in nobody's way."""
        if self._session is None:
            await asyncio.to_thread(import_module, "aiohttp")
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._context, limit=2),
                timeout=aiohttp.ClientTimeout(total=self.timeout),
                headers={"User-Agent": f"k2/{__version__}", "Accept": "application/json"},
            )
        return self._session

    async def get(self, path: str) -> Answer:
        """Ask for `path?query`. Any HTTP status is an answer. Raises RestError."""
        session = await self.open()
        import aiohttp
        from yarl import URL

        try:
            async with session.get(URL(self.url + path, encoded=True), allow_redirects=False) as response:
                body = await response.content.read(MAX_ANSWER + 1)
                while len(body) <= MAX_ANSWER and (more := await response.content.read(MAX_ANSWER + 1 - len(body))):
                    body += more
                retry_after = _retry_after(response.headers.get("Retry-After"))
        except TimeoutError:
            raise RestError("timeout", f"no answer within {self.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise RestError("unreachable", str(error) or type(error).__name__) from None
        if len(body) > MAX_ANSWER:
            raise RestError("too-large", f"an answer of more than {MAX_ANSWER >> 20} MB")
        return Answer(response.status, body, retry_after)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _retry_after(text: str | None) -> float | None:
    """RFC 9110, 10.2.3: seconds, or a date."""
    if text is None:
        return None
    if text.isascii() and text.strip().isdigit():
        return float(text.strip())
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
