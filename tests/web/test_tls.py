"""HTTPS, with a certificate authority of the tests' own."""

import ssl
from pathlib import Path

import pytest
import trustme
from tests.web.serving import Served, WebProcess, ask

from k2.config import ConfigError, WebConfig
from k2.web.server import tls


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def files(authority: trustme.CA, folder: Path) -> dict[str, str]:
    issued = authority.issue_cert("127.0.0.1", "localhost")
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return {"tls_cert": str(chain), "tls_key": str(key)}


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_https_only(served: Served, authority: trustme.CA, tmp_path: Path) -> None:
    web = served.another(**files(authority, tmp_path))
    assert web.url.startswith("https://")
    assert ask(web.url, "/healthz", context=trusting(authority)).status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(web.url, "/healthz", context=ssl.create_default_context())
    with pytest.raises((OSError, ValueError)):
        ask(web.url.replace("https", "http"), "/healthz")
    context = tls(web.config.web)
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_command_tells_what_is_wrong_with_a_certificate(
    served: Served, authority: trustme.CA, tmp_path: Path
) -> None:
    good = files(authority, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ConfigError, match="belong together"):
        tls(WebConfig(tls_cert=good["tls_cert"]))
    with pytest.raises(ConfigError, match="no certificate with its key"):
        tls(WebConfig(tls_cert=good["tls_cert"], tls_key=files(authority, other)["tls_key"]))
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ConfigError, match="two PEM files"):
        tls(WebConfig(tls_cert=str(tmp_path / "empty.pem"), tls_key=good["tls_key"]))
    environ = {**served.environ, "K2_WEB_TLS_CERT": str(tmp_path / "none.pem"), "K2_WEB_TLS_KEY": good["tls_key"]}
    failed = WebProcess(environ)
    assert failed.process.returncode == 1
    assert "No such file" in "".join(failed.said)
    assert tls(WebConfig()) is None
