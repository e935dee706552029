"""Which licences come with what users install: permissive ones, and such as bind only their own files (MPL)."""

import importlib.metadata
import re
from collections.abc import Iterable, Iterator

from tests.security.lock import locked

_FINE = re.compile(
    r"MIT|BSD|Apache|PSF|Python Software Foundation|MPL|Mozilla Public|ISC|Zlib|CC0|OLDAP|Unlicense", re.I
)
_REFUSED = re.compile(r"GPL|Affero|SSPL|Server Side Public|BUSL|Business Source|Commons Clause|Elastic-?2", re.I)
_TEXTS = {
    "MIT": "Permission is hereby granted, free of charge",
    "Apache-2.0": "Apache License",
    "BSD": "Redistribution and use",
}


def licence(distribution: importlib.metadata.Distribution) -> str:
    """What a package says of its licence: the expression, else the classifiers, else the field, else the file."""
    about = distribution.metadata
    if expression := about.get("License-Expression"):
        return str(expression)
    found = [text.rpartition("::")[2].strip() for text in about.get_all("Classifier", []) if text.startswith("License")]
    if found:
        return ", ".join(found)
    if field := (about.get("License") or "").strip():
        return str(field).splitlines()[0]
    for file in distribution.files or ():
        if file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            text = file.read_text()
            return next((name for name, words in _TEXTS.items() if words in text), "")
    return ""


def judged(licences: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What is wrong with (package, licence) pairs."""
    for name, text in licences:
        if _REFUSED.search(text) and not re.search(r"\bOR\b", text):
            yield f"{name} is under {text}, which binds what is built with it: do without it"
        elif not _FINE.search(text):
            yield f"{name} says {text or 'nothing'} of its licence: find out, and add what it says to {__name__}"


def check() -> tuple[list[str], str]:
    """What is wrong, and what was looked at."""
    found, absent = [], []
    for package in locked():
        try:
            found.append((package.name, licence(importlib.metadata.distribution(package.name))))
        except importlib.metadata.PackageNotFoundError:
            absent.append(package.name)
    seen = f"{len(found)} packages" + (f"; not installed here, so not seen: {', '.join(absent)}" if absent else "")
    return list(judged(found)), seen
