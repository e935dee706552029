"""The processes' own logs: one JSON object a line, rotated, in `run/<service>.log`; warnings also on stderr, unless a
supervisor stands between the process and the person."""

import json
import logging
import sys
import time
from logging.handlers import RotatingFileHandler
from typing import Any

from k2.config import Config, without_secrets

MAX_BYTES = 10 << 20
KEPT = 5
_PLAIN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (RFC 3339, UTC), level, service, logger, message, and what `extra=` gave."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        seconds, millis = divmod(int(record.created * 1000), 1000)
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{millis:03d}Z",
            "level": record.levelname,
            "service": self.service,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        more = {key: value for key, value in record.__dict__.items() if key not in _PLAIN}
        line.update({key: without_secrets(value) if isinstance(value, str) else value for key, value in more.items()})
        if record.exc_info:
            line["exception"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


to_stderr = True  # a supervised process and its supervisor switch this off: theirs is the file alone


def setup(config: Config, service: str, verbose: bool = False) -> None:
    """Send this process's log to `run/<service>.log` and its warnings (all of it if `verbose`) to stderr."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    file = RotatingFileHandler(config.run_dir / f"{service}.log", maxBytes=MAX_BYTES, backupCount=KEPT)
    handlers: list[logging.Handler] = [file]
    if to_stderr:
        person = logging.StreamHandler(sys.stderr)
        person.setLevel(logging.INFO if verbose else logging.WARNING)
        handlers.append(person)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in handlers:
        handler.setFormatter(JsonLines(service))
        root.addHandler(handler)
    root.setLevel(logging.INFO)
