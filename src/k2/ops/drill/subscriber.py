"""A reader of the live stream, as a user writes it, that remembers the id of every trade it was given."""

import threading
import time
from typing import Self

from k2.client import Client
from k2.client.api import Api
from k2.client.errors import K2Error
from k2.client.messages import Trade
from k2.core.islands import Islands
from k2.ops.drill.flow import Spans, Symbol


class Subscriber(threading.Thread):
    """Reads every trade from `k2 web` at `url` until left. A context manager.

    `ids` is what it was given, `twice` how many trades came again, `last_at` when the last one came (monotonic
    seconds), `error` what ended it before its time.
    """

    def __init__(self, url: str) -> None:
        super().__init__(name="subscriber", daemon=True)
        self.ids: dict[Symbol, Islands] = {}
        self.twice = 0
        self.last_at = 0.0
        self.error = ""
        self._api = Api(url)
        self._stream = Client(self._api).stream("trades", start="earliest")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stream.close()
        self.join(10.0)
        self._api.close()

    def run(self) -> None:
        try:
            for row in self._stream.rows():
                assert isinstance(row, Trade)
                known = self.ids.setdefault((row.exchange, row.symbol, row.epoch), Islands())
                self.twice += not known.add(row.trade_id)
                self.last_at = time.monotonic()
        except K2Error as error:
            self.error = str(error)

    def lacks(self, made: Spans) -> int:
        """How many of the trades that were made it has not been given."""
        none = Islands()
        return sum(
            last - first + 1
            for symbol, span in made.items()
            for first, last in self.ids.get(symbol, none).holes(span.first, span.last)
        )
