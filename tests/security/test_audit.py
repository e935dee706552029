"""The audit finds what it is for, and what is committed passes it."""

import json

import pytest
from tests.security import advisories, licences, sbom, secret_scan
from tests.security.lock import locked


def test_the_bill_of_materials_is_the_lock() -> None:
    assert sbom.check()[0] == []
    said = json.loads(sbom.FILE.read_text())
    assert [(c["name"], c["version"]) for c in said["components"]] == [(p.name, p.version) for p in locked()]
    assert all(component.get("licenses") for component in said["components"])
    refs = {c["bom-ref"] for c in said["components"]} | {said["metadata"]["component"]["bom-ref"]}
    assert {one for d in said["dependencies"] for one in (d["ref"], *d["dependsOn"])} <= refs
    assert said["serialNumber"] == sbom.document()["serialNumber"], "the lock has changed: run `make sbom`"


def test_everything_locked_has_hashes() -> None:
    assert all(package.hashes for package in locked())


def test_licences_of_what_users_install() -> None:
    assert licences.check()[0] == []
    bad = [("a", "GPL-3.0-only"), ("b", "GNU Affero General Public License v3"), ("c", ""), ("d", "LGPL-2.1")]
    assert len(list(licences.judged(bad))) == 4
    assert not list(licences.judged([("a", "MIT OR GPL-2.0-only"), ("b", "MPL-2.0"), ("c", "BSD License")]))


def test_no_secret_is_committed() -> None:
    assert secret_scan.check()[0] == []


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("AWS key", "AKIA" + "IOSFODNN7EXAMPLE"),
        ("private key", "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA"),
        ("GitHub token", "ghp_" + "a1" * 18),
        ("Slack token", "https://hooks.slack.com/" + "services/T01/B02/abc"),
        ("API key of K2", "k2_0123abcd_" + "x" * 43),
        ("password in an address", "postgresql://u:" + "pass@host/db"),
        ("password", "smtp_auth_password: '" + "correct-horse'"),
    ],
)
def test_secrets_are_found(what: str, text: str) -> None:
    assert [found for found, _ in secret_scan.secrets(f"x = {text}\n")] == [what]


def test_a_package_that_was_not_asked_about_is_not_clean() -> None:
    clean = {"name": "a", "version": "1", "vulns": []}
    skipped = {"name": "b", "skip_reason": "not found"}
    bad = {"name": "c", "version": "2", "vulns": [{"id": "X-1", "aliases": [], "fix_versions": ["3"]}]}
    assert advisories.judged({"dependencies": [clean]}) == []
    assert "c 2: X-1" in advisories.judged({"dependencies": [clean, skipped, bad]})[0]
    for report in ({"dependencies": [clean, skipped]}, {"dependencies": []}):
        with pytest.raises(advisories.NotAsked):
            advisories.judged(report)
