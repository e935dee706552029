"""Keys: made, listed and revoked by the command; wrong, revoked, expired and misplaced ones are refused."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.patience import PATIENCE_S
from tests.web.serving import Served, WebProcess, WebThread, ask, until

from k2.web import keys as keys_module
from k2.web.keys import Key, KeyRefused, Keys, KeysError, create, last_used, listed, revoke

DAY = 86_400_000_000_000


def k2(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin", "K2_DATA": str(data)}
    command = [sys.executable, "-m", "k2", "keys", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=PATIENCE_S, check=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys.json"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_kept_as_a_hash_only(file: Path) -> None:
    key, text = create(file, "notebook")
    assert text.startswith(key.prefix)
    content = file.read_text()
    assert text not in content
    assert text.removeprefix(key.prefix) not in content
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(text.removeprefix(key.prefix)) >= 43  # 256 bits
    assert Keys(file).check(text) == key
    hashes = [record["hash"] for record in json.loads(content)["keys"]]
    create(file, "another")
    assert len({record["hash"] for record in json.loads(file.read_text())["keys"]} - set(hashes)) == 1


def test_two_keys_are_not_named_alike_while_both_count(file: Path) -> None:
    first, _ = create(file, "notebook")
    with pytest.raises(KeysError, match="already named"):
        create(file, "notebook")
    revoke(file, "notebook")
    second, _ = create(file, "notebook")
    assert [key.id for key in listed(file)] == [first.id, second.id]
    assert revoke(file, second.prefix).id == second.id
    with pytest.raises(KeysError, match="no key"):
        revoke(file, "nobody")


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines"])
def test_names_are_short_and_printable(file: Path, name: str) -> None:
    with pytest.raises(KeysError):
        create(file, name)


def test_what_is_no_key_is_refused(file: Path) -> None:
    key, text = create(file, "notebook")
    keys = Keys(file)
    wrong = [
        "", "k2_", "Bearer", text[:-1], text + "x", text.upper(), f"k2_00000000_{text[12:]}", key.prefix,
        f" {text}", "k2_" + "\udcff" * 60, "é" * 2000, text.replace("_", "-"), text[:12] + "\0" + text[13:],
    ]  # fmt: skip
    for given in wrong:
        with pytest.raises(KeyRefused) as refused:
            keys.check(given)
        assert refused.value.reason == "unknown"


def test_an_unknown_id_takes_the_same_way_as_a_known_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = create(file, "notebook")
    keys = Keys(file)
    ways: list[tuple[int, int, int]] = []
    compare, hashed = keys_module.hmac.compare_digest, keys_module._hashed

    def watched(one: str, other: str) -> bool:
        ways[-1] = (ways[-1][0], ways[-1][1] + 1, len(one))
        return compare(one, other)

    def counted(secret: str, salt: bytes) -> str:
        ways[-1] = (ways[-1][0] + 1, *ways[-1][1:])
        return hashed(secret, salt)

    monkeypatch.setattr(keys_module.hmac, "compare_digest", watched)
    monkeypatch.setattr(keys_module, "_hashed", counted)
    for given in (f"{key.prefix}{'x' * 43}", f"k2_00000000_{'x' * 43}", "nonsense"):
        ways.append((0, 0, 0))
        with pytest.raises(KeyRefused):
            keys.check(given)
    assert ways == [(1, 1, 64)] * 3  # hashed once, compared once by compare_digest, at full length


def test_what_the_command_writes_counts_within_a_second(file: Path) -> None:
    clock = Clock()
    keys = Keys(file, clock=clock)
    assert not keys.required
    key, text = create(file, "notebook")
    clock.now = 1.0
    assert keys.check(text) == key
    assert keys.required
    revoke(file, "notebook")
    clock.now = 2.0
    with pytest.raises(KeyRefused, match="revoked"):
        keys.check(text)
    assert not keys.counts(key)
    assert keys.required  # revoking the last key does not open the door


def test_a_key_expires(file: Path) -> None:
    now = time.time_ns()
    assert Key("a", "b", now, expires=now + DAY).state(now + DAY - 1) == "active"
    assert Key("a", "b", now, expires=now + DAY).state(now + DAY) == "expired"
    _, text = create(file, "short", expires=now + 1)
    with pytest.raises(KeyRefused, match="expired"):
        Keys(file).check(text)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"keys": 1}', b'{"keys": [{"id": "x"}]}', b"\xff\xfe"])
def test_a_damaged_file_lets_nobody_in(file: Path, damage: bytes) -> None:
    clock = Clock()
    key, text = create(file, "notebook")
    keys = Keys(file, clock=clock)
    whole = file.read_bytes()
    file.write_bytes(damage)
    clock.now = 1.0
    with pytest.raises(KeysError, match="no file of keys"):
        keys.check(text)
    assert keys.required
    assert not keys.counts(key)
    assert not keys.counts(None)
    with pytest.raises(KeysError):
        create(file, "another")  # what cannot be read is not overwritten
    file.write_bytes(whole)
    clock.now = 2.0
    assert keys.check(text) == key


def test_uses_are_noted(file: Path, tmp_path: Path) -> None:
    key, text = create(file, "notebook")
    keys, noted = Keys(file), tmp_path / "used.json"
    keys.note_used(noted)
    assert not noted.exists()
    before = time.time_ns()
    keys.check(text)
    keys.note_used(noted)
    assert last_used(noted)[key.id] >= before


def test_makers_do_not_lose_each_others_keys(file: Path) -> None:
    script = "import sys; from pathlib import Path; from k2.web.keys import create\n"
    script += "for i in range(10): create(Path(sys.argv[1]), sys.argv[2] + str(i))"
    makers = [subprocess.Popen([sys.executable, "-c", script, str(file), name]) for name in "abc"]
    assert [maker.wait(PATIENCE_S) for maker in makers] == [0, 0, 0]
    assert len(listed(file)) == 30


def test_the_command(tmp_path: Path) -> None:
    data = tmp_path / "data"
    made = k2(data, "create", "notebook", "--rate", "5", "--expires", "30d")
    assert (made.returncode, len(made.stdout.splitlines())) == (0, 1)
    text = made.stdout.strip()
    assert text.startswith("k2_")
    assert text not in made.stderr
    (row,) = [json.loads(line) for line in k2(data, "list", "--json").stdout.splitlines()]
    assert (row["key"], row["name"], row["state"], row["rate_per_s"]) == (text[:12], "notebook", "active", 5.0)
    assert text not in json.dumps(row)
    as_json = json.loads(k2(data, "create", "other", "--json").stdout)
    assert as_json["secret"].startswith(as_json["key"])
    assert k2(data, "revoke", "notebook").returncode == 0
    assert "revoked" in k2(data, "list").stdout
    for wrong in (["revoke", "nobody"], ["create", "other"], ["create", "x", "--expires", "2020-01-01T00:00:00Z"]):
        refused = k2(data, *wrong)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("k2 keys: ")


class Guarded:
    """A web that needs keys. `file` has one, `text`, before the web starts."""

    def __init__(self, web: WebThread, text: str) -> None:
        self.web = web
        self.file = web.config.keys_file
        self.text = text

    def get(self, path: str = "/v1/status", **headers: str) -> Any:
        return self.web.get(path, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture(scope="module")
def guarded(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    data = tmp_path_factory.mktemp("guarded")
    _, text = create(data / "keys.json", "first")
    return Guarded(served.another(data=data), text)


def test_a_key_opens_the_door(guarded: Guarded) -> None:
    assert guarded.get(Authorization=f"Bearer {guarded.text}").status == 200
    assert guarded.get(Authorization=f"bearer  {guarded.text}").status == 200
    assert guarded.get(X_API_Key=guarded.text).status == 200
    assert guarded.get(X_API_Key=guarded.text, Authorization=f"Bearer {guarded.text}").status == 200


def test_without_a_key_nothing_but_open_routes(guarded: Guarded) -> None:
    document = guarded.web.get("/openapi.json").json()
    needing = [
        path
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method == "get" and operation["security"] and "{" not in path
    ]
    assert len(needing) >= 5
    for path in needing:
        reply = guarded.get(path)
        assert reply.status == 401, path
        assert reply.headers["www-authenticate"].startswith('Bearer realm="k2"')
        assert "k2 keys create" in reply.json()["remedy"]
    for path in ("/healthz", "/docs", "/docs/problems", "/docs/swagger-ui.css", "/openapi.json", "/"):
        assert guarded.get(path).status == 200, path


def test_wrong_keys_and_wrong_places(guarded: Guarded) -> None:
    text = guarded.text
    refused = [
        {"Authorization": text},
        {"Authorization": f"Basic {text}"},
        {"Authorization": f"Bearer {text}x"},
        {"Authorization": "Bearer"},
        {"X_API_Key": text[:-1]},
        {"X_API_Key": f"Bearer {text}"},
        {"X_API_Key": text, "Authorization": f"Bearer {text[:-1]}x"},
        {"Cookie": f"key={text}"},
        {"X_API_Key": "x" * 7000},
    ]
    for headers in refused:
        assert guarded.get(**headers).status == 401, headers
    in_url = guarded.get(f"/v1/status?key={text}")
    assert (in_url.status, in_url.json()["title"]) == (400, "Key in the URL")
    assert text not in in_url.body.decode()
    body = ask(
        guarded.web.url, "/v1/status", "POST", {"Content-Type": "application/json"}, f'{{"key":"{text}"}}'.encode()
    )
    assert body.status == 405


def test_a_revoked_key_counts_no_more_within_a_second(guarded: Guarded) -> None:
    _, text = create(guarded.file, "passing")
    until(lambda: guarded.get(X_API_Key=text).status == 200)
    revoke(guarded.file, "passing")
    until(lambda: guarded.get(X_API_Key=text).status != 200)
    reply = guarded.get(X_API_Key=text)
    assert (reply.status, reply.json()["detail"]) == (401, "the key is revoked")
    assert 'error="invalid_token"' in reply.headers["www-authenticate"]


def test_the_log_never_shows_a_key(served: Served, tmp_path: Path) -> None:
    environ = {**served.environ, "K2_DATA": str(tmp_path / "data")}
    _, text = create(tmp_path / "data" / "keys.json", "logged")
    web = WebProcess(environ)
    try:
        assert web.get("/v1/status", {"X-API-Key": text}).status == 200
        assert web.get(f"/v1/status?key={text}").status == 400
        assert web.get(f"/v1/stream?channels=x&key={text}").status >= 400
        assert web.get("/v1/status", {"Authorization": f"Basic {text}"}).status == 401
    finally:
        assert web.stop() == 0
    lines = [json.loads(line) for line in (tmp_path / "data" / "run" / "web.log").read_text().splitlines()]
    asked = [line for line in lines if line["logger"] == "k2.web.access"]
    assert [line["status"] for line in asked][:2] == [200, 400]
    assert asked[0]["key"] == text[3:11]
    assert text[12:] not in json.dumps(lines) + "".join(web.said)
    used = last_used(tmp_path / "data" / "run" / "keys-used.json")
    assert list(used) == [text[3:11]]


def test_a_host_for_all_needs_a_key_first(tmp_path: Path) -> None:
    environ = {"K2_DATA": str(tmp_path / "data"), "K2_WEB_HOST": "0.0.0.0", "K2_WEB_RATE_PER_S": "0"}
    refused = WebProcess(environ)
    assert refused.process.returncode == 1
    assert "k2 keys create" in "".join(refused.said)
    _, text = create(tmp_path / "data" / "keys.json", "only")
    web = WebProcess(environ)
    try:
        url = web.url.replace("0.0.0.0", "127.0.0.1")
        assert ask(url, "/v1/status").status == 401
        assert ask(url, "/v1/status", headers={"X-API-Key": text, "Host": "k2.example"}).status == 200
        os.remove(tmp_path / "data" / "keys.json")
        until(lambda: ask(url, "/v1/status", headers={"X-API-Key": text}).status == 401)
        assert ask(url, "/v1/status").status == 401  # without a file nobody comes in: this is no loopback
    finally:
        assert web.stop() == 0
