"""Looks for secrets in what is committed. What only looks like one stands in `not_secrets.txt`, as a digest."""

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.security.lock import ROOT

KNOWN = Path(__file__).with_name("not_secrets.txt")
_MOST = 4 << 20  # bytes of a file that is looked at
_PATTERNS = {
    "private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/]{16}",
    "AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": r"\b(?:gh[oprsu]_[A-Za-z0-9]{36}|github_pat_\w{40,})",
    "GitLab token": r"\bglpat-[\w-]{20}",
    "Slack token": r"\bxox[abprs]-[\w-]{10,}|hooks\.slack\.com/services/T\w+/B\w+/\w+",
    "Google key": r"\bAIza[\w-]{35}",
    "registry token": r"\b(?:pypi-AgE|npm_)[\w-]{30,}",
    "Stripe key": r"\b[sr]k_live_\w{20,}",
    "web token": r"\beyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{15,}",
    "API key of K2": r"\bk2_[0-9a-f]{8}_[\w-]{20,}",
    "password in an address": r"://[^/\s:@'\"{}<>$]+:[^/\s@'\"{}<>$]{3,}@",
    "password": r"(?i)(?:password|passwd|secret|api_?key|token)['\"]?\s*[:=]\s*['\"][^'\"\s{}<>$]{8,}['\"]",
}
_ALL = {what: re.compile(pattern) for what, pattern in _PATTERNS.items()}


def secrets(text: str) -> Iterator[tuple[str, str]]:
    """What looks like a secret in a text: its kind, and it."""
    for what, pattern in _ALL.items():
        for match in pattern.finditer(text):
            yield what, match[0]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def known() -> set[str]:
    """Digests of what is none."""
    return {line.split()[0] for line in KNOWN.read_text().splitlines() if line and not line.startswith("#")}


def committed() -> list[Path]:
    """All files under version control that exist."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def check() -> tuple[list[str], str]:
    """What is wrong, and what was looked at. The secret itself is not shown."""
    accepted, wrong, files = known(), [], 0
    for path in committed():
        data = path.read_bytes()[:_MOST]
        if b"\0" in data[:1024]:
            continue
        files += 1
        text = data.decode("utf-8", "replace")
        for what, found in secrets(text):
            if digest(found) not in accepted:
                line = text.count("\n", 0, text.index(found)) + 1
                wrong.append(
                    f"{path.relative_to(ROOT)}:{line}: {what}: take it out and revoke it; if it is none, add"
                    f" `{digest(found)}` to {KNOWN.relative_to(ROOT)}"
                )
    return wrong, f"{files} files"
