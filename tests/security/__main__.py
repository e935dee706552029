"""The audit: `make audit`, or `python -m tests.security [CHECK ...]`.

    advisories   known vulnerabilities of what users install
    licences     none that binds what is built with it
    secrets      none in what is committed
    sbom         docs/sbom.cdx.json names what the lock does; `--write` writes it

Exit status: 0 all is well; 1 something was found; 3 nothing was found, and not all could be asked.
"""

import argparse
import sys
from collections.abc import Callable

from tests.security import advisories, licences, sbom, secret_scan

CHECKS: dict[str, Callable[[], tuple[list[str], str]]] = {
    "licences": licences.check,
    "secrets": secret_scan.check,
    "sbom": sbom.check,
    "advisories": advisories.check,
}
FOUND, NOT_ASKED = 1, 3


def main() -> int:
    parser = argparse.ArgumentParser(description="Audit what K2 brings and what is committed.")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; default: all")
    parser.add_argument("--write", action="store_true", help="write docs/sbom.cdx.json first")
    given = parser.parse_args()
    if unknown := set(given.checks) - CHECKS.keys():
        parser.error(f"no check {', '.join(sorted(unknown))}: there are {', '.join(CHECKS)}")
    if given.write:
        sbom.write()
    code = 0
    for name in given.checks or CHECKS:
        try:
            wrong, seen = CHECKS[name]()
        except advisories.NotAsked as reason:
            print(f"{name:<11} COULD NOT ASK: {reason}")
            code = code or NOT_ASKED
            continue
        print(f"{name:<11} {f'{len(wrong)} FOUND' if wrong else 'ok'} ({seen})")
        for text in wrong:
            print(f"  {text}")
        code = FOUND if wrong else code
    return code


if __name__ == "__main__":
    sys.exit(main())
