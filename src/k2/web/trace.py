"""What is noted of a request on its way through the frame: for its headers, its metrics and the access log."""

from dataclasses import dataclass, field

from aiohttp import web

from k2.web.problems import Problem


@dataclass
class Trace:
    """`headers` are added to whatever is answered. `sent` in bytes of the body. `broken`: why an answer was cut."""

    route: str = "none"
    key: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    sent: int = 0
    prepared: bool = False
    broken: Problem | None = None


TRACE = web.RequestKey("trace", Trace)
