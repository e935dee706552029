"""Every alert, declared once: what Prometheus asks, how long it must hold, how bad it is, whose it is, what to do.

`rules.py` writes them for Prometheus, `routing.py` says where Alertmanager sends them, drills fire them for real.

In an expression `<5m>` is a duration and `<5m in s>` the same as a number of seconds. They are marked so that a drill
can have all times divided: what holds five minutes on duty then holds five seconds, and all else stays as it is.
"""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning", "info", "none"]
Team = Literal["feeds", "data", "platform"]
Scope = Literal["platform", "service", "venue", "symbol"]


@dataclass(frozen=True)
class Alert:
    """One alert. `hold` is Prometheus's `for`; `scope` is what it speaks of: the wider silences the narrower.

    `summary` and `description` may use the labels of the expression as `{{ $labels.x }}`; the description names the
    remedy. `drills` fire it as well (`k2 drill NAME`); `k2 alerts prove` fires every one.
    """

    name: str
    expr: str
    hold: str
    severity: Severity
    team: Team
    scope: Scope
    summary: str
    description: str
    drills: tuple[str, ...]

    @property
    def runbook(self) -> str:
        """Its runbook, as a path in the repository."""
        return f"docs/runbooks/{self.name}.md"


_LIVE = 'increase(k2_trades_total{source="live"}[<2m>])'
# Frames and gaps are loaded every few seconds only, with the next commit.
_TRADES = '{consumer!="archiver", stream=~"market[.]crypto[.]trades[.][^.]+"}'
_ENABLED = "max by (exchange) (k2_venue_enabled)"

PLATFORM = (
    Alert(
        "Watchdog", "vector(1)", "0s", "none", "platform", "platform",
        "Alerting works",
        "Always fires. Whoever receives it raises the alarm when it stops: then Prometheus or Alertmanager is down.",
        (),
    ),
    Alert(
        "PlatformDown", f'(sum(up{{job="k2"}}) or vector(0)) == 0 or (sum({_LIVE}) or vector(0)) == 0',
        "30s", "critical", "platform", "platform",
        "No venue brings any trade",
        "No process answers, or no live trade of any venue was captured in 2 minutes: platform or network are down. "
        "Look with `k2 status`; start it with `k2 up`. What is missed is healed from the venues' REST interfaces.",
        ("platform-killed",),
    ),
    Alert(
        "ServiceDown",
        "label_replace(min by (instance, service) (k2_service_up) == 0"
        ' or (min by (instance, service) (up{job="k2"}) == 0 unless on (instance) k2_service_up),'
        ' "exchange", "$1", "service", "feed-handler-(.+)")',
        "1m", "critical", "platform", "service",
        "{{ $labels.service }} does not run",
        "{{ $labels.service }} has not been up for a minute and restarting did not help. "
        "Its last words stand in run/{{ $labels.service }}.err of the data folder, its log beside it.",
        ("service-down",),
    ),
    Alert(
        "ServiceRestarting",
        "sum by (instance, service) (increase(k2_service_restarts_total[<30m>])) >= 3"
        ' or sum by (instance, service) (increase(k2_service_restarts_total{reason="out-of-memory"}[<30m>])) > 0',
        "0s", "warning", "platform", "service",
        "{{ $labels.service }} restarts again and again, or ran out of memory",
        "{{ $labels.service }} was started again {{ $value | humanize }} times in 30 minutes, or once after it ran out "
        "of memory. `k2_service_restarts_total` tells how it ended, run/{{ $labels.service }}.err its last words.",
        ("random-kills", "memory-limit"),
    ),
    Alert(
        "ScrapeDown", 'min by (instance, service) (up{job="k2"}) == 0', "2m", "warning", "platform", "service",
        "{{ $labels.service }} does not answer for its metrics",
        "Prometheus has not been able to read the metrics of {{ $labels.service }} for 2 minutes: it hangs, or its "
        "port has changed. Compare `k2 alerts targets` with Prometheus's targets; a hanging process is ended by hand "
        "(`kill`), the supervisor starts it again.",
        ("process-frozen",),
    ),
    Alert(
        "DiskFilling",
        "min by (instance) (predict_linear(k2_disk_free_bytes[<30m>], <4h in s>)) < 0"
        " or min by (instance) (k2_disk_free_bytes) < 1073741824",
        "5m", "warning", "platform", "platform",
        "The disk of the data folder on {{ $labels.instance }} runs full",
        "At this pace no space is left within 4 hours, or less than 1 GiB is left. The store writes nothing more below "
        "store.keep_free_mb. Free space, lower log.max_age_days or store.trades_days, or give it a larger disk.",
        ("disk-full",),
    ),
)  # fmt: skip

FEEDS = (
    Alert(
        "FeedHandlerDown",
        f"(sum by (exchange) ({_LIVE}) == 0 or ({_ENABLED} unless on (exchange) sum by (exchange) ({_LIVE})))"
        f" and on () (sum({_LIVE}) > 0 or sum(increase(k2_frames_total[<2m>])) > 0)",
        "0s", "critical", "feeds", "venue",
        "No trade of {{ $labels.exchange }} for 2 minutes",
        "{{ $labels.exchange }} has brought no live trade for 2 minutes while heartbeats or other venues flow. See "
        "run/feed-handler-{{ $labels.exchange }}.log and the venue's status page; what is missed is healed over REST.",
        ("silent-channel",),
    ),
    Alert(
        "FeedSilent",
        "time() - max by (exchange) (k2_last_frame_timestamp_seconds) > <1m in s>"
        f" or ({_ENABLED} unless on (exchange) max_over_time(k2_last_frame_timestamp_seconds[<1m>]))",
        "0s", "warning", "feeds", "venue",
        "{{ $labels.exchange }} is silent",
        "Nothing at all, not even a heartbeat, has come from {{ $labels.exchange }} for a minute. The handler dials "
        "again by itself; if it cannot reach the venue, check the network and the venue's status page.",
        ("exchange-silent",),
    ),
    Alert(
        "FeedReconnectLoop",
        'sum by (exchange) (increase(k2_reconnects_total{reason!="planned"}[<10m>])) >= 5',
        "0s", "warning", "feeds", "venue",
        "{{ $labels.exchange }} is dialled again and again",
        "The connection to {{ $labels.exchange }} was lost {{ $value | humanize }} times in 10 minutes. "
        "`k2_reconnects_total` tells why: the venue closes it, the network drops it, or dialling fails.",
        ("exchange-closing",),
    ),
    Alert(
        "FeedFaults", "sum by (exchange) (increase(k2_faults_total[<5m>])) > 20",
        "0s", "warning", "feeds", "venue",
        "{{ $labels.exchange }} sends what cannot be understood",
        "{{ $value | humanize }} frames of {{ $labels.exchange }} in 5 minutes could not be decoded. They are kept in "
        "the raw stream. See the log's `reason`; if the venue changed its format, mend the decoder and `k2 rederive`.",
        ("exchange-junk",),
    ),
    Alert(
        "BackfillRefused",
        'sum by (exchange) (increase(k2_backfill_requests_total{outcome!="ok"}[<10m>])) >= 5',
        "0s", "warning", "feeds", "venue",
        "{{ $labels.exchange }} refuses requests for missing trades",
        "{{ $value | humanize }} REST requests to {{ $labels.exchange }} failed in 10 minutes. "
        "`k2_backfill_requests_total` tells how. Rate limits pass; a ban needs another address or patience.",
        ("rest-rate-limited",),
    ),
    Alert(
        "SymbolSilent",
        "time() - max by (exchange, symbol) (k2_last_trade_timestamp_seconds) > <30m in s>"
        f" and on (exchange) sum by (exchange) ({_LIVE}) > 0",
        "0s", "info", "feeds", "symbol",
        "No trade of {{ $labels.symbol }} at {{ $labels.exchange }} for 30 minutes",
        "Other symbols of {{ $labels.exchange }} trade. It may be quiet, halted or delisted: compare with the venue, "
        "and take it out of the instruments file if it is gone.",
        (),
    ),
    Alert(
        "ClockSkew", "abs(max by (exchange) (k2_exchange_clock_offset_seconds)) > 1",
        "2m", "warning", "feeds", "venue",
        "Our clock and that of {{ $labels.exchange }} differ by {{ $value | humanizeDuration }}",
        "Receive time less exchange time is more than a second for 2 minutes. All venues at once: our clock is wrong, "
        "see `chronyc tracking` or `timedatectl`. One venue: it, or the way to it, is late. Nothing is lost by it.",
        ("clock-skew",),
    ),
    Alert(
        "GapOpen", "max by (exchange) (k2_gaps_open) > 0", "2m", "warning", "feeds", "venue",
        "Trades of {{ $labels.exchange }} have been missing for 2 minutes",
        "{{ $value }} gaps of {{ $labels.exchange }} are open and healing takes longer than it should. See `k2 gaps` "
        "and the outcomes in `k2_backfill_requests_total`.",
        ("rest-down",),
    ),
    Alert(
        "GapUnhealable", "max by (exchange) (k2_gaps_unhealable) > 0",
        "0s", "warning", "feeds", "venue",
        "A gap of {{ $labels.exchange }} does not heal",
        "The REST interface of {{ $labels.exchange }} was asked twice or more and does not have what is missing. "
        "`k2 gaps` names the ids; after four such answers they are given up and count as lost.",
        (),
    ),
    Alert(
        "TradesLost",
        "sum by (exchange) (increase(k2_trades_lost_total[<1h>])) > 0"
        " or max by (exchange) (k2_verify_missing_trades) > 0",
        "0s", "critical", "feeds", "venue",
        "Trades of {{ $labels.exchange }} are lost",
        "{{ $value | humanize }} trades of {{ $labels.exchange }} were given up, or `k2 verify` misses them. `k2 gaps` "
        "and `k2 verify --exchange {{ $labels.exchange }}` name the ids; another source must fill them.",
        (),
    ),
)  # fmt: skip

DATA = (
    Alert(
        "ConsumerLagHigh",
        f"(max by (consumer, stream) (k2_consumer_lag_records{_TRADES}) > 1000"
        " and max by (consumer, stream) (k2_consumer_lag_seconds) > 1)"
        f" or max by (consumer, stream) (k2_consumer_lag_seconds{_TRADES}) > <1m in s>"
        ' or max by (consumer, stream) (k2_consumer_lag_seconds{consumer!="archiver"}) > <10m in s>',
        "5m", "warning", "data", "service",
        "{{ $labels.consumer }} is behind on {{ $labels.stream }}",
        "{{ $labels.consumer }} has had more than 1,000 records, or a minute, of {{ $labels.stream }} yet to read for "
        "5 minutes. Nothing is lost: the log keeps what is unread. See its log, and the store's load with `k2 status`.",
        ("store-frozen",),
    ),
    Alert(
        "CandleDelay", "max by (exchange) (k2_candle_delay_seconds) > <30s in s>",
        "30s", "warning", "data", "venue",
        "Candles of {{ $labels.exchange }} are {{ $value | humanizeDuration }} behind",
        "Trades of {{ $labels.exchange }} are in the log and not yet in the candles. The loader or the store is slow "
        "or stuck: see run/loader.log and `k2 status`.",
        ("store-frozen",),
    ),
    Alert(
        "StoreInsertFailure",
        "max(k2_insert_failing_seconds) > <15s in s>"
        ' or sum(increase(k2_insert_failures_total{reason!="unavailable"}[<5m>])) >= 3',
        "0s", "critical", "data", "service",
        "The store does not take what the loader writes",
        "Writing to the store has failed for 15 seconds, or was refused three times. run/loader.log has the store's "
        "words: a full disk, a store that is down, a wrong password. The log keeps everything.",
        ("store-down",),
    ),
    Alert(
        "OffloadLag", 'max(k2_consumer_lag_seconds{consumer="archiver"}) > <30m in s>',
        "5m", "warning", "data", "service",
        "The cold tier is {{ $value | humanizeDuration }} behind",
        "The oldest record that the cold tier lacks is older than 30 minutes. See `k2_archive_runs_total` and "
        "run/archiver.log; `k2 archive` offloads now.",
        (),
    ),
    Alert(
        "OffloadFailure", "max by (job) (k2_archive_failures_in_a_row) > 2",
        "0s", "critical", "data", "service",
        "{{ $labels.job }} of the cold tier has failed {{ $value }} times in a row",
        "run/{{ $labels.job }}.err has the last words: object storage or catalog cannot be reached, a disk is full, "
        "permissions. The log keeps what is not offloaded; once mended it goes on by itself.",
        (),
    ),
    Alert(
        "AuditFailed", "min(k2_audit_ok) == 0",
        "0s", "critical", "data", "service",
        "The cold tier differs from the log",
        "The last `k2 archive audit` found differences, named in cold/last_audit.json. Do not let the log expire "
        "(log.max_age_days); `k2 restore` and a new audit show what can be had back.",
        (),
    ),
    Alert(
        "VerifyFailed", "min(k2_verify_ok) == 0",
        "0s", "critical", "data", "service",
        "The store could not be proven from the log",
        "The last `k2 verify` found trades that are missing or there twice, or candles that differ from their "
        "recomputation. Run `k2 verify` again; what it names is loaded anew from the log.",
        (),
    ),
)  # fmt: skip

GROUPS: dict[str, tuple[Alert, ...]] = {"platform": PLATFORM, "feeds": FEEDS, "data": DATA}
ALERTS: dict[str, Alert] = {alert.name: alert for group in GROUPS.values() for alert in group}
