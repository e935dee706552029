"""A real Prometheus and a real Alertmanager over one platform, for drills and tests: time divided, on free ports."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from k2.config import Config
from k2.ops.targets import targets_file
from k2.ops.watch import routing, rules, yamltext
from k2.ops.watch.notices import Book, Notice, Webhook
from k2.ops.watch.rules import Pace

FACTOR = 60.0  # `for: 5m` is seen after five seconds
LEAST_S = 3.0  # but nothing is judged by less than some scrapes
SCRAPE_S = 0.5
READY_WITHIN_S = 30.0
STOP_WITHIN_S = 10.0
ALERTMANAGER = ("alertmanager", "prometheus-alertmanager")  # upstream's name, Debian's
_LOCAL = "127.0.0.1"


class WatchError(Exception):
    """The watch cannot be kept, or what was waited for did not come; the text says what, and where the logs are."""


class Watch:
    """Runs while inside `with`. Times are epoch seconds.

    `folder` is made, and holds configuration, data and logs of the two programs; it is left for whoever looks into a
    failure. The platform need not run yet, or any more: its processes are found by the file that its supervisor keeps.
    """

    def __init__(
        self, config: Config, folder: Path, factor: float = FACTOR, least_s: float = LEAST_S, scrape_s: float = SCRAPE_S
    ) -> None:
        self.pace = Pace(factor, least_s)
        self.book = Book()
        self.prometheus_url = self.alertmanager_url = ""
        self._config = config
        self._folder = folder.absolute()
        self._scrape_s = scrape_s
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            programs = program("prometheus"), program(*ALERTMANAGER)
            self._folder.mkdir(parents=True, exist_ok=True)
            webhook = Webhook(self.book)
            stack.callback(webhook.close)
            self._start_alertmanager(stack, programs[1], webhook)
            self._start_prometheus(stack, programs[0])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- questions -----------------------------------------------------------------------------------------------------

    @staticmethod
    def now() -> float:
        """A time to count from."""
        return time.time()

    def fired(self, name: str, since: float = 0.0, **labels: str) -> Notice | None:
        """The first time from then on that this alert was received; None: it was not."""
        return self.book.first(name, since, True, labels, 0.0)

    def cleared(self, name: str, since: float, **labels: str) -> Notice | None:
        """The first time from then on that it was received as resolved."""
        return self.book.first(name, since, False, labels, 0.0)

    def wait_fired(self, name: str, since: float, within: float, **labels: str) -> Notice:
        """Wait for it. Raises WatchError that says what fires instead."""
        return self._waited(self.book.first(name, since, True, labels, within), name, "fire", within)

    def wait_cleared(self, name: str, since: float, within: float, **labels: str) -> Notice:
        return self._waited(self.book.first(name, since, False, labels, within), name, "clear", within)

    def settle(self, within: float = 60.0, still: float = 2.0, only: Collection[str] = ()) -> None:
        """Until all that is to be scraped is up, and nothing but the Watchdog has been pending or firing for `still`
        seconds; `only`: none of these alerts. Raises WatchError."""
        deadline = time.monotonic() + within
        quiet_since: float | None = None
        while True:
            troubles = self._troubles(only)
            if troubles:
                quiet_since = None
            elif quiet_since is None:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= still:
                return
            if time.monotonic() > deadline:
                raise WatchError(f"not quiet within {within:.0f} s: {', '.join(troubles) or 'it only just became so'}")
            time.sleep(0.2)

    def firing(self) -> set[str]:
        """Names of the alerts that Prometheus has firing now, whether or not Alertmanager keeps them quiet."""
        return {alert["labels"]["alertname"] for alert in self._alerts() if alert["state"] == "firing"}

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """An instant query: (labels, value) of each series. Raises WatchError."""
        answer = _get(f"{self.prometheus_url}/api/v1/query?{urlencode({'query': expression})}")
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]

    def silence(self, name: str, seconds: float, comment: str) -> None:
        """Have Alertmanager keep one alert quiet."""
        begin = time.time()
        body = {
            "matchers": [{"name": "alertname", "value": name, "isRegex": False, "isEqual": True}],
            "startsAt": _rfc3339(begin), "endsAt": _rfc3339(begin + seconds), "createdBy": "k2", "comment": comment,
        }  # fmt: skip
        request = Request(
            f"{self.alertmanager_url}/api/v2/silences", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urlopen(request, timeout=10):
            return

    # -- within --------------------------------------------------------------------------------------------------------

    def _waited(self, notice: Notice | None, name: str, what: str, within: float) -> Notice:
        if notice is None:
            others = ", ".join(sorted(self.firing())) or "none"
            raise WatchError(
                f"{name} did not {what} within {within:.0f} s; firing now: {others};"
                f" logs of Prometheus and Alertmanager are in {self._folder}"
            )
        return notice

    def _troubles(self, only: Collection[str]) -> list[str]:
        standing = [(alert["labels"]["alertname"], alert["state"]) for alert in self._alerts()]
        alerts = [f"{name} {state}" for name, state in standing if not only or name in only]
        down = [labels.get("service", "?") for labels, value in self.query("up == 0") if not value]
        scraped = self.query('count(up{job="k2"})')
        found = [alert for alert in alerts if not alert.startswith("Watchdog ")] + [f"{name} is down" for name in down]
        return found if scraped else [*found, "nothing is scraped yet"]

    def _alerts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = _get(f"{self.prometheus_url}/api/v1/alerts")["data"]["alerts"]
        return found

    def _start_alertmanager(self, stack: ExitStack, program: str, webhook: Webhook) -> None:
        def receiver(name: str) -> dict[str, Any]:
            return {"webhook_configs": [{"url": f"{webhook.url}/{name}", "send_resolved": True}]}

        config = self._write("alertmanager.yaml", routing.alertmanager(receiver, quick=True))
        port = free_port()
        self.alertmanager_url = f"http://{_LOCAL}:{port}"
        command = [
            program, f"--config.file={config}", f"--storage.path={self._folder / 'alertmanager'}",
            f"--web.listen-address={_LOCAL}:{port}", "--cluster.listen-address=", "--log.level=warn",
        ]  # fmt: skip
        self._run(stack, "alertmanager", command, f"{self.alertmanager_url}/-/ready")

    def _start_prometheus(self, stack: ExitStack, program: str) -> None:
        rule_file = self._write("k2.rules.yaml", rules.rules(self.pace, self._scrape_s))
        alertmanager = self.alertmanager_url.removeprefix("http://")
        found_by = str(targets_file(self._config.run_dir))
        document = rules.prometheus([str(rule_file)], [found_by], [alertmanager], self._scrape_s)
        config = self._write("prometheus.yaml", document)
        port = free_port()
        self.prometheus_url = f"http://{_LOCAL}:{port}"
        command = [
            program, f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'prometheus'}",
            f"--web.listen-address={_LOCAL}:{port}", "--rules.alert.resend-delay=1s",
            "--storage.tsdb.retention.time=1d", "--query.lookback-delta=10s", "--log.level=warn",
        ]  # fmt: skip
        self._run(stack, "prometheus", command, f"{self.prometheus_url}/-/ready")

    def _write(self, name: str, document: Any) -> Path:
        file = self._folder / name
        file.write_text(yamltext.dump(document, f"Times divided by {self.pace.factor:g}: for a drill, not for duty."))
        return file

    def _run(self, stack: ExitStack, name: str, command: list[str], ready: str) -> None:
        log = self._folder / f"{name}.log"
        if setpriv := shutil.which("setpriv"):  # it ends with us, also if we are killed
            command = [setpriv, "--pdeathsig", "KILL", *command]
        with log.open("ab") as sink:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True, cwd=self._folder,
                env={**os.environ, "GOMAXPROCS": "1"},
            )  # fmt: skip
        stack.callback(_end, process)
        deadline = time.monotonic() + READY_WITHIN_S
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                words = log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing said"]
                raise WatchError(f"{name} did not start ({words[0]}); see {log}")
            time.sleep(0.05)


def program(*names: str) -> str:
    """The path of the first of these programs that is installed. Raises WatchError that says how to install them."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise WatchError(
        f"the program {names[0]} is not installed: on Debian `apt-get install prometheus prometheus-alertmanager`"
    )


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((_LOCAL, 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2):
            return True
    except (URLError, OSError):
        return False


def _get(url: str) -> Any:
    try:
        with urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except (URLError, OSError, ValueError) as error:
        raise WatchError(f"{url} does not answer: {error}") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
