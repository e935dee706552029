"""Where alerts go: Alertmanager's configuration.

Severity decides how loud (critical pages, warning and info are chat), team decides whom. The Watchdog goes to a dead
man's switch, which raises the alarm when it stops coming. Secrets stand in files, never in the configuration:

    secrets/pager-token      bearer token of the webhook that pages
    secrets/smtp-password    password of the mail account
    secrets/chat-url         incoming webhook of the chat (Slack's protocol)
"""

from collections.abc import Callable
from typing import Any

from k2.ops.watch.alerts import ALERTS, Alert

SECRETS = "/etc/alertmanager/secrets"
TEAMS = tuple(sorted({alert.team for alert in ALERTS.values()}))
HEARTBEAT, UNROUTED = "heartbeat", "unrouted"
LOUD = {"critical": "page", "warning": "chat", "info": "chat"}

# What follows from a platform that is down. What it had found before (lost trades, a failed audit) is still news.
AFTERMATH = (
    "ServiceDown", "ServiceRestarting", "ScrapeDown", "FeedHandlerDown", "FeedSilent", "FeedReconnectLoop",
    "SymbolSilent", "ConsumerLagHigh", "CandleDelay", "StoreInsertFailure", "OffloadLag",
)  # fmt: skip

Receiver = Callable[[str], dict[str, Any]]


def receiver_of(alert: Alert) -> str:
    """The receiver that an alert is meant to reach."""
    return HEARTBEAT if alert.name == "Watchdog" else f"{LOUD[alert.severity]}-{alert.team}"


def route(quick: bool = False) -> dict[str, Any]:
    """The routing tree. All alerts of one name come as one message, whatever venues and services they speak of.

    `quick`: no waiting for more of the same, for drills.
    """
    wait, again, repeat = ("0s", "1s", "1h") if quick else ("30s", "5m", "4h")
    return {
        "receiver": UNROUTED,
        "group_by": ["alertname"],
        "group_wait": wait,
        "group_interval": again,
        "repeat_interval": repeat,
        "routes": [
            {"matchers": ['alertname="Watchdog"'], "receiver": HEARTBEAT, "group_wait": "0s",
             "group_interval": "1s" if quick else "1m", "repeat_interval": "1s" if quick else "1m"},
            *(_of_team(team, quick) for team in TEAMS),
        ],
    }  # fmt: skip


def _of_team(team: str, quick: bool) -> dict[str, Any]:
    page = {"matchers": ['severity="critical"'], "receiver": f"page-{team}"}
    info = {"matchers": ['severity="info"'], "receiver": f"chat-{team}"}
    if not quick:
        page |= {"group_wait": "10s", "repeat_interval": "1h"}
        info |= {"group_wait": "5m", "repeat_interval": "24h"}
    return {"matchers": [f'team="{team}"'], "receiver": f"chat-{team}", "routes": [page, info]}


def inhibitions() -> list[dict[str, Any]]:
    """What keeps quiet while something wider is wrong, so that one cause is one page."""
    down = 'alertname="ServiceDown"'
    return [
        # Nothing comes in at all: that every service, venue and symbol is concerned goes without saying.
        {"source_matchers": ['alertname="PlatformDown"'],
         "target_matchers": [f'alertname=~"{"|".join(AFTERMATH)}"']},
        # A feed handler that does not run: its venue (the label `exchange` is on both).
        {"source_matchers": [down, 'exchange!=""'], "target_matchers": ['scope=~"venue|symbol"'],
         "equal": ["exchange"]},
        # A service that does not run cannot be scraped, and that it was restarted is known.
        {"source_matchers": [down], "target_matchers": ['alertname=~"ScrapeDown|ServiceRestarting"'],
         "equal": ["service"]},
        # Without store or loader, everything behind them is late.
        {"source_matchers": [down, 'service=~"store|loader|clickhouse"'],
         "target_matchers": ['alertname=~"CandleDelay|ConsumerLagHigh"']},
        {"source_matchers": ['alertname="StoreInsertFailure"'],
         "target_matchers": ['alertname=~"CandleDelay|ConsumerLagHigh"']},
        # No trade of a venue: that it is silent, and each of its symbols, is the same story.
        {"source_matchers": ['alertname="FeedHandlerDown"'],
         "target_matchers": ['alertname=~"FeedSilent|FeedReconnectLoop|SymbolSilent"'], "equal": ["exchange"]},
        # What is lost was missing first.
        {"source_matchers": ['alertname="TradesLost"'], "target_matchers": ['alertname=~"GapUnhealable|GapOpen"'],
         "equal": ["exchange"]},
        # That offloading fails says why the cold tier is behind.
        {"source_matchers": ['alertname="OffloadFailure"'], "target_matchers": ['alertname="OffloadLag"']},
    ]  # fmt: skip


def alertmanager(receiver: Receiver | None = None, quick: bool = False) -> dict[str, Any]:
    """Alertmanager's configuration. `receiver` gives what a receiver of this name does; None: as on duty."""
    names = [HEARTBEAT, UNROUTED, *(f"{way}-{team}" for team in TEAMS for way in ("page", "chat"))]
    document: dict[str, Any] = {
        "route": route(quick),
        "inhibit_rules": inhibitions(),
        "receivers": [{"name": name, **(receiver or on_duty)(name)} for name in names],
    }
    if receiver is None:
        mail = {"smtp_smarthost": "smtp.example.org:587", "smtp_from": "k2@example.org", "smtp_auth_username": "k2",
                "smtp_auth_password_file": f"{SECRETS}/smtp-password",
                "slack_api_url_file": f"{SECRETS}/chat-url"}  # fmt: skip
        document = {"global": {"resolve_timeout": "5m", **mail}, **document}
    return document


def on_duty(name: str) -> dict[str, Any]:
    """Pages go to a webhook and by e-mail, all else to the chat. Addresses are examples: put your own."""
    way, _, team = name.partition("-")
    if name == HEARTBEAT:
        return {"webhook_configs": [{"url": "https://heartbeat.example.org/k2", "send_resolved": False}]}
    if way == "page":
        bearer = {"authorization": {"type": "Bearer", "credentials_file": f"{SECRETS}/pager-token"}}
        return {
            "webhook_configs": [{"url": f"https://pager.example.org/k2/{team}", "http_config": bearer}],
            "email_configs": [{"to": f"{team}-oncall@example.org", "send_resolved": True}],
        }
    return {"slack_configs": [{"channel": f"#k2-{team or 'alerts'}", "send_resolved": True, "title": TITLE,
                               "text": TEXT}]}  # fmt: skip


TITLE = "{{ .Status | toUpper }} {{ .CommonLabels.severity }}: {{ .CommonLabels.alertname }}"
TEXT = (
    "{{ range .Alerts }}{{ .Annotations.summary }}\n{{ .Annotations.description }}\n"
    "Runbook: {{ .Annotations.runbook }}\n{{ end }}"
)
