"""Known vulnerabilities of what users install, asked for with pip-audit.

pip-audit ends well when it could not ask about a single package. Here a package that was not asked about is not clean.
"""

import json
import subprocess
import sys
from typing import Any

from tests.security.lock import LOCK

WITHIN_S = 300


class NotAsked(Exception):
    """The source of advisories did not answer, for all packages or some; the text says which and why."""


def asked() -> dict[str, Any]:
    """pip-audit's report. Raises NotAsked."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes", "--disable-pip",
        "--format", "json", "--progress-spinner", "off",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
        report: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise NotAsked(f"no answer within {WITHIN_S} s") from None
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotAsked(f"pip-audit gave no report: {last[:300]}") from None
    return report


def judged(report: dict[str, Any]) -> list[str]:
    """What is vulnerable. Raises NotAsked when nothing is, of those that were asked about, and others were not."""
    wrong = [
        f"{package['name']} {package['version']}: {found['id']} ({', '.join(found['aliases']) or 'no other name'}),"
        f" mended in {', '.join(found['fix_versions']) or 'no version yet'}"
        for package in report["dependencies"]
        for found in package.get("vulns", ())
    ]
    skipped = [package["name"] for package in report["dependencies"] if "skip_reason" in package]
    if not wrong and (skipped or not report["dependencies"]):
        raise NotAsked(f"{len(skipped)} of {len(report['dependencies'])} packages were not answered for")
    return wrong


def check() -> tuple[list[str], str]:
    """What is wrong, and what was looked at. Raises NotAsked."""
    report = asked()
    return judged(report), f"{len(report['dependencies'])} packages"
