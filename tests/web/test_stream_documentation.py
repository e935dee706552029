"""docs/STREAM.md shows the protocol as it is: every example is valid, and every message and member is there."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from k2.core.codec import decode_gap, decode_trade
from k2.web.stream.messages import SCHEMA, Ping, Subscribe, Unsubscribe, heard
from k2.web.stream.windows import Candle

TEXT = (Path(__file__).parents[2] / "docs" / "STREAM.md").read_text()
EXAMPLES = [
    json.loads(line)
    for block in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    for line in re.split(r"\n(?=\{)", block.strip())
]


@pytest.mark.parametrize("example", [one for one in EXAMPLES if "op" in one], ids=lambda one: one["op"])
def test_what_clients_say_is_understood(example):
    said = heard(json.dumps(example), binary=False)
    assert type(said) in (Subscribe, Unsubscribe, Ping)
    assert {name for name in example if name != "op"} == {field.name for field in msgspec.structs.fields(type(said))}


def test_every_message_is_shown():
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "src/k2/web/stream").glob("*.py"))
    told = set(re.findall(r'tell\((?:subscription, )?"(\w+)"', source)) | {"trades", "candles", "gaps", "summary"}
    assert {one["type"] for one in EXAMPLES if "type" in one} == told


def test_records_are_shown_whole():
    (trades, _) = [one for one in EXAMPLES if one.get("type") == "trades"]
    (candles,) = [one for one in EXAMPLES if one.get("type") == "candles"]
    (gaps,) = [one for one in EXAMPLES if one.get("type") == "gaps"]
    assert decode_trade(json.dumps(trades["trades"][0]).encode()).symbol == "BTC-USDT"
    assert list(trades["trades"][0]) == [one["name"] for one in SCHEMA["trades"] if one["name"] != "epoch"]
    msgspec.convert(candles["candles"][0], Candle)
    assert list(candles["candles"][0]) == [one["name"] for one in SCHEMA["candles"]] == list(Candle.__struct_fields__)
    assert decode_gap(json.dumps(gaps["gaps"][0]).encode()).state == "open"
