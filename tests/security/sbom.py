"""The software bill of materials: what users install with K2, as CycloneDX 1.6 (ECMA-424).

It has no date and no random number, so the same lock gives the same document. Hashes of every file that may be
installed stand in `requirements.lock`, which the installer holds to them.
"""

import importlib.metadata
import json
import re
import tomllib
import uuid
from typing import Any

from tests.security.licences import licence
from tests.security.lock import LOCK, ROOT, Locked, locked

FILE = ROOT / "docs" / "sbom.cdx.json"
_NAMESPACE = uuid.UUID("6f0d6c1e-3f5b-5b0e-9a55-7b1c4e0f2a11")
_SPDX = re.compile(r"[A-Za-z0-9.+-]+")
_NAMES = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def purl(package: Locked) -> str:
    """The package's name as a package URL."""
    return f"pkg:pypi/{package.name.lower().replace('_', '-')}@{package.version}"


def document() -> dict[str, Any]:
    """The document, as it is to be written."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = locked()
    root = f"pkg:pypi/{about['name']}@{about['version']}"
    direct = {_plain(re.split(r"[^\w.-]", text)[0]) for text in about["dependencies"]}
    depends = [{"ref": root, "dependsOn": sorted(purl(p) for p in packages if _plain(p.name) in direct)}]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, LOCK.read_text())}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": about["name"],
                "version": about["version"],
                "description": about["description"],
                "licenses": [{"license": {"id": about["license"]}}],
                "purl": root,
            }
        },
        "components": [_component(package) for package in packages],
        "dependencies": depends + [{"ref": purl(p), "dependsOn": _needs(p, packages)} for p in packages],
    }


def _component(package: Locked) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version,
        "purl": purl(package),
    }
    try:
        text = licence(importlib.metadata.distribution(package.name))
    except importlib.metadata.PackageNotFoundError:
        text = ""
    text = _NAMES.get(text, text)
    if re.search(r" (AND|OR|WITH) ", text):
        found["licenses"] = [{"expression": text}]
    elif text:
        found["licenses"] = [{"license": {"id" if _SPDX.fullmatch(text) and text != "BSD" else "name": text}}]
    if package.marker:
        found["properties"] = [{"name": "k2:installed-where", "value": package.marker}]
    return found


def _needs(package: Locked, packages: list[Locked]) -> list[str]:
    """What a package requires of the others, extras aside."""
    try:
        required = importlib.metadata.requires(package.name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    names = {_plain(re.split(r"[^\w.-]", text)[0]) for text in required if "extra ==" not in text}
    return sorted(purl(other) for other in packages if _plain(other.name) in names)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def write() -> None:
    """Write the document to where it is committed."""
    FILE.write_text(json.dumps(document(), indent=1) + "\n")


def check() -> tuple[list[str], str]:
    """What is wrong with the committed document: it must name exactly what the lock does."""
    said = json.loads(FILE.read_text()) if FILE.exists() else {"components": []}
    there = {component["purl"] for component in said["components"]}
    wanted = {purl(package) for package in locked()}
    wrong = [f"docs/sbom.cdx.json lacks {name}: run `make sbom`" for name in sorted(wanted - there)]
    wrong += [f"docs/sbom.cdx.json names {name}, which is not in the lock: run `make sbom`" for name in there - wanted]
    return wrong, f"{len(wanted)} packages"
