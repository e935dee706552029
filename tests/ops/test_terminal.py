"""What a table does in a terminal that is too narrow for it."""

import sys

import pytest

from k2.terminal import emit

COLUMNS = ("symbol", "price", "received")
ROW = ("BTC-USDT", "105000.12", "2026-11-23 08:24:21.925490983")


@pytest.mark.parametrize(("width", "left_out"), [("60", False), ("40", True)])
def test_a_narrow_terminal_does_without_the_spare_columns(
    width: str, left_out: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    emit(COLUMNS, [ROW], spare=("received",))
    shown = capsys.readouterr()
    assert ("received" not in shown.out) == left_out
    assert ("left out for want of width: received" in shown.err) == left_out
    assert len(shown.out.splitlines()) == 2, "no cell is broken over two lines"


def test_a_pipe_gets_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    emit(COLUMNS, [ROW], spare=("received",))
    assert capsys.readouterr().out.splitlines() == ["\t".join(COLUMNS), "\t".join(ROW)]
