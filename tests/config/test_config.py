"""Settings: where they come from, which wins, and what an error says."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.config import Config, ConfigError, instruments, load, masked, settings, variable


def _file(folder: Path, text: str) -> Path:
    file = folder / "k2.toml"
    file.write_text(text)
    return file


def test_defaults_need_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(environ={}) == Config()


def test_file_then_environment_then_command_line(tmp_path: Path) -> None:
    file = _file(tmp_path, 'data = "a"\n[store]\nport = 1\nuser = "u"\n[exchanges.kraken]\nenabled = false\n')
    config = load(file, {"K2_DATA": "b", "K2_STORE_PORT": "2"}, data="c")
    assert (config.data, config.store.port, config.store.user, config.exchanges.kraken.enabled) == ("c", 2, "u", False)


@pytest.mark.parametrize(
    ("text", "named", "nearest"),
    [
        ("[stor]\nport = 1", "stor", "store"),
        ("[store]\nprot = 1", "store.prot", "store.port"),
        ("[exchanges.binance]\nurl = ''", "exchanges.binance.url", "exchanges.binance"),
        ("dta = 'x'", "dta", "data"),
    ],
)
def test_unknown_key_names_the_nearest(tmp_path: Path, text: str, named: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(_file(tmp_path, text), {})
    assert named in str(caught.value)
    assert f"did you mean {nearest}" in str(caught.value)


def test_unknown_variable_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"K2_STOREPORT .*did you mean K2_STORE_PORT"):
        load(environ={"K2_STOREPORT": "1"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[store]\nport = 'x'", "port"),
        ("store = 3", "store"),
        ("data = [", "not valid TOML"),
        ("[feed]\nlinger_ms = true", "linger_ms"),
    ],
)
def test_wrong_value_names_its_place(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(_file(tmp_path, text), {})


def test_missing_named_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "none.toml", {})


@given(
    st.sampled_from([s.path for s in settings() if s.type is str and s.path != ("tier", "maintain_at")]),
    st.text(st.characters(codec="ascii", categories=["L", "N"])),
)
def test_every_text_setting_can_come_from_its_variable(path: tuple[str, ...], text: str) -> None:
    value = load(environ={variable(path): text})
    for key in path:
        value = getattr(value, key)
    assert value == text


@pytest.mark.parametrize("text", ["2:00", "24:00", "02:60", "noon"])
def test_a_time_of_day_is_one(text: str) -> None:
    with pytest.raises(ConfigError, match="maintain_at"):
        load(environ={"K2_TIER_MAINTAIN_AT": text})
    assert load(environ={"K2_TIER_MAINTAIN_AT": "23:59"}).tier.maintain_at == "23:59"


def test_a_password_in_an_address_is_masked() -> None:
    config = load(environ={"K2_TIER_CATALOG": "postgresql+psycopg2://k2:hunter2@db/cold"})
    assert masked(config)["tier"]["catalog"] == "postgresql+psycopg2://***@db/cold"


def test_secrets_are_masked() -> None:
    config = load(environ={"K2_STORE_PASSWORD": "hunter2", "K2_STORE_READONLY_PASSWORD": "hunter3"})
    assert "hunter" not in str(masked(config))
    assert masked(config)["store"]["password"] == "***"


def test_the_34_default_instruments() -> None:
    listed = instruments(Config().instruments_file)
    assert {name: len(symbols) for name, symbols in listed.items()} == {"binance": 12, "coinbase": 11, "kraken": 11}
    assert "BNB-USDT" in listed["binance"]
    assert not any(symbol.startswith("BNB") for name in ("coinbase", "kraken") for symbol in listed[name])


@pytest.mark.parametrize(
    "text", ['binance = ["btc-usdt"]', 'binance = ["BTCUSDT"]', "binance = 3", 'binnance = ["BTC-USDT"]']
)
def test_wrong_instruments_are_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "instruments.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"instruments\.toml"):
        instruments(file)
