"""Silence: when does an open socket count as dead? Judged by data per channel, armed from the moment of dialling on.

A quiet symbol is not a dead one, so where a venue has heartbeats they decide; where it has none, any frame or ping
does. Trades themselves get a much longer rope over all symbols together: a trade channel that stays silent while the
socket lives is worth a new connection, not an alarm. `now` is monotonic seconds.
"""

from k2.core.exchange import Limits

TRADES_ROPE = 60.0  # s without a trade of any symbol on a subscribed connection
TRADES_ROPE_CAP = 960.0


class Watchdog:
    """One connection's. The caller reports what arrives; `silent` names what has been silent for too long, if any."""

    def __init__(self, limits: Limits, silence: float, now: float, trades_rope: float = TRADES_ROPE) -> None:
        self.limit = silence or limits.silence
        self.heartbeats = limits.heartbeat_channel
        self.trades_rope = trades_rope
        self._began = self._alive = self._traded = now
        self._beats: dict[str, float] = {}  # native symbol -> its last heartbeat, where heartbeats name one

    def on_frame(self, now: float) -> None:
        """Something was received; enough where the venue has no heartbeats."""
        if self.heartbeats is None:
            self._alive = now

    def on_heartbeat(self, channel: str, native: str | None, now: float) -> None:
        if channel == self.heartbeats:
            self._alive = now
        if native is not None:
            self._beats[native] = now

    def on_trade(self, now: float) -> None:
        self._alive = self._traded = now

    def forget(self, natives: set[str]) -> None:
        """Keep watch over these symbols' heartbeats only."""
        self._beats = {native: at for native, at in self._beats.items() if native in natives}

    def silent(self, now: float) -> str | None:
        """What has been silent for too long, in words; None while all is well."""
        if now - self._alive > self.limit:
            what = f"channel {self.heartbeats}" if self.heartbeats else "the connection"
            return f"{what} silent for {now - self._alive:.0f} s"
        for native, at in self._beats.items():
            if now - at > self.limit:
                return f"channel {self.heartbeats} of {native} silent for {now - at:.0f} s"
        return None

    def tradeless(self, now: float) -> str | None:
        """No trade at all for so long that the trade channel is suspect, in words."""
        if now - self._traded > self.trades_rope:
            return f"no trade on any symbol for {now - self._traded:.0f} s"
        return None

    def next_rope(self) -> float:
        """The rope for the connection that replaces this one: longer each time one brought no trade at all."""
        tradeless = self._traded == self._began
        return min(self.trades_rope * 2, TRADES_ROPE_CAP) if tradeless else TRADES_ROPE
