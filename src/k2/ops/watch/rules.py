"""Alerts as Prometheus reads them: the rules, and how it finds the platform's processes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from k2.config import Config
from k2.metrics import read_status
from k2.ops.targets import group
from k2.ops.watch.alerts import GROUPS, Alert

SCRAPE_S = 15.0
JOB = "k2"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MARK = re.compile(r"<(\d+[smhd])( in s)?>")


@dataclass(frozen=True)
class Pace:
    """How fast time goes for the rules: durations are divided by `factor`, but none becomes shorter than `least_s`; how
    long something has to hold only if it is a minute or more."""

    factor: float = 1.0
    least_s: float = 0.0

    def seconds(self, duration: str) -> float:
        """A duration such as `5m` at this pace, in seconds. 0s stays 0."""
        plain = int(duration[:-1]) * _SECONDS[duration[-1]]
        return max(plain / self.factor, self.least_s) if plain else 0.0

    def duration(self, duration: str) -> str:
        """The same as Prometheus writes it."""
        return duration if self.factor == 1.0 else f"{round(self.seconds(duration) * 1000)}ms"

    def hold(self, duration: str) -> str:
        """How long it has to hold, as Prometheus writes it."""
        least_s = min(self.least_s, self.least_s * Pace().seconds(duration) / 60)
        return Pace(self.factor, least_s).duration(duration)

    def expression(self, marked: str) -> str:
        """An alert's expression with its marked durations filled in."""

        def fill(mark: re.Match[str]) -> str:
            return f"{self.seconds(mark[1]):g}" if mark[2] else self.duration(mark[1])

        return _MARK.sub(fill, marked)


ON_DUTY = Pace()


def rule(alert: Alert, pace: Pace = ON_DUTY) -> dict[str, Any]:
    """One alerting rule."""
    return {
        "alert": alert.name,
        "expr": pace.expression(alert.expr),
        "for": pace.hold(alert.hold),
        "labels": {"severity": alert.severity, "team": alert.team, "scope": alert.scope},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook": alert.runbook,
        },
    }


def rules(pace: Pace = ON_DUTY, interval_s: float = SCRAPE_S) -> dict[str, Any]:
    """The rule file."""
    return {
        "groups": [
            {"name": f"k2-{name}", "interval": _ms(interval_s), "rules": [rule(alert, pace) for alert in alerts]}
            for name, alerts in GROUPS.items()
        ]
    }


def prometheus(
    rule_files: Sequence[str], target_files: Sequence[str], alertmanagers: Sequence[str], interval_s: float = SCRAPE_S
) -> dict[str, Any]:
    """Prometheus's configuration. `alertmanagers` are host:port.

    Labels of our own processes win over Prometheus's: what the supervisor says of a service keeps that service's name.
    """
    return {
        "global": {"scrape_interval": _ms(interval_s), "evaluation_interval": _ms(interval_s),
                   "scrape_timeout": _ms(min(interval_s, 10.0))},
        "rule_files": list(rule_files),
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]},
        "scrape_configs": [
            {
                "job_name": JOB,
                "honor_labels": True,
                "file_sd_configs": [{"files": list(target_files), "refresh_interval": _ms(max(interval_s, 1.0))}],
            }
        ],
    }  # fmt: skip


def targets(config: Config) -> list[dict[str, Any]]:
    """What runs on this data folder now, in the form of Prometheus's `file_sd`."""
    return [group(config, name, int(word["metrics_port"])) for name, word in read_status(config.run_dir).items()]


def _ms(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds * 1000:.0f}ms"
