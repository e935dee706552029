"""Plain values as YAML text: what Prometheus and Alertmanager are configured with, made to be read by people."""

import json
import re
from collections.abc import Iterator
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./*-]*")  # needs no quotes, and is no number
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def dump(document: Any, comment: str = "") -> str:
    """Dicts, lists, strings, numbers and truth values as YAML in block style, under a comment."""
    head = [f"# {line}" for line in comment.splitlines()]
    return "\n".join([*head, *_lines(document)]) + "\n"


def _lines(node: Any) -> Iterator[str]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _entry(f"{_scalar(key)}:", value)
    elif isinstance(node, list) and node:
        for value in node:
            first, *rest = _lines(value)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(node)


def _entry(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield key
        yield from (f"  {line}" for line in _lines(value))
    else:
        yield f"{key} {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if isinstance(value, str) and '"' in value and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value, ensure_ascii=False)
