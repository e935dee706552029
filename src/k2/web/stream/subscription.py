"""One subscription: what is wanted, and how far it is, as cursors."""

from collections.abc import Mapping

from k2.core.codec import GAPS_STREAM, trades_stream
from k2.web.stream.encode import Want
from k2.web.stream.messages import SCHEMA, Encoding, Interval, Subscribe
from k2.web.stream.selection import Selection, select
from k2.web.stream.step import Signature
from k2.web.stream.windows import Window


def wants(asked: Subscribe, ident: str | int, encoding: Encoding) -> tuple[Selection, dict[str, Want]]:
    """What is wanted of each stream. Raises Problem."""
    selection = select(asked.symbols)
    found = {}
    if "trades" in asked.channels:
        for exchange in selection.exchanges():
            found[trades_stream(exchange)] = Want("trades", ident, encoding, selection.keys(exchange))
    if "gaps" in asked.channels:
        found[GAPS_STREAM] = Want("gaps", ident, encoding, None, selection)
    return selection, found


class Subscription:
    """`cursors`: each stream's next offset wanted. From `live_from` on its records are live. `joined` once every cursor
    has been there. `behind_since`: when the way to the client was first full, until it has caught up; monotonic."""

    def __init__(
        self,
        ident: str | int,
        asked: Subscribe,
        selection: Selection,
        wanted: Mapping[str, Want],
        begin: Mapping[str, int],
        live_from: Mapping[str, int],
        signature: Signature,
    ) -> None:
        self.id = ident
        self.selection = selection
        self.channels = tuple(dict.fromkeys(asked.channels))
        self.intervals: tuple[Interval, ...] = tuple(dict.fromkeys(asked.intervals))
        self.conflates = asked.slow == "conflate"
        self.wants = dict(wanted)
        self.signature = signature
        self.cursors = {stream: begin[stream] for stream in wanted}
        self.live_from = {stream: live_from[stream] for stream in wanted}
        self.read_ts = dict.fromkeys(wanted, 0)  # how far history was read in each stream, in time
        self.candles: dict[Window, bytes] = {}  # to be sent, the newest of each
        self.joined = False
        self.conflating = False  # the newest trades are being gathered
        self.behind_since: float | None = None
        self.sent_at = 0.0

    def accepted(self) -> dict[str, object]:
        """The members of the message `subscribed`."""
        return {
            "id": self.id,
            "schema": {channel: SCHEMA[channel] for channel in self.channels},
            "positions": dict(self.live_from),
            "start": dict(self.cursors),
        }

    def caught_up(self) -> None:
        """Every cursor is at the end of what there is."""
        self.behind_since = None
        self.joined = self.joined or all(self.cursors[s] >= offset for s, offset in self.live_from.items())
