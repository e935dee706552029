"""The page in a real browser over a small served platform: views, keys, themes, a phone, live trades, an API key."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from tests.page.looking import PHONE, VIEWS, Looking, number
from tests.patience import PATIENCE_S
from tests.web.serving import Served, trade

from k2.web.keys import create
from k2.web.stream import websocket


def test_every_view_shows_what_is_there(browser: Browser, served: Served) -> None:
    look = Looking(browser, served.url)
    page = look.open("/")
    expect(page.locator(".matrix tbody tr")).to_have_count(2)
    expect(page.get_by_role("button", name="BTC-USDT on binance")).to_be_visible()
    expect(page.locator(".chartbox canvas").first).to_be_visible()
    for index, view in enumerate(VIEWS, 1):
        page.keyboard.press(str(index))
        expect(page.locator(f"main.view-{view}")).to_be_visible()
        expect(page.locator(".tabs [aria-current]")).to_contain_text(view.capitalize())
        assert page.url == f"{served.url}/{view}"
    expect(page.locator(".streams tbody tr")).to_have_count(7)
    expect(page.locator(".records tbody tr").first).to_be_visible()
    page.go_back()
    expect(page.locator("main.view-archive")).to_be_visible()
    page.keyboard.press("3")
    expect(page.locator(".ledger tbody tr")).to_have_count(5)
    page.locator("#gap-search").fill("kraken 203")
    expect(page.locator(".ledger tbody tr")).to_have_count(1)
    page.locator(".ledger tbody tr").click()
    expect(page.locator(".picked .ranges")).to_have_text("201–205")
    look.clean()
    look.context.close()


def test_leaving_a_view_while_the_stream_connects_is_no_error(
    browser: Browser, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly = websocket.serve

    async def slowly(*asked: Any) -> Any:
        await asyncio.sleep(0.5)
        return await quickly(*asked)

    monkeypatch.setattr(websocket, "serve", slowly)
    look = Looking(browser, served.url)
    heard: list[str] = []
    look.page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: heard.append(str(frame))))
    page = look.open("/archive")
    expect(page.locator("main.view-archive")).to_be_visible()
    for key in "14141":  # without the market's, no view wants the stream
        page.keyboard.press(key)
        expect(page.locator("main.view-market" if key == "1" else "main.view-archive")).to_be_visible()
    expect(page.locator(".matrix tbody tr")).to_have_count(2)
    deadline = time.monotonic() + PATIENCE_S
    while not all(
        any('"subscribed"' in frame and channel in frame for frame in heard) for channel in ("trades", "candles")
    ):
        assert time.monotonic() < deadline, heard
        page.wait_for_timeout(50)
    look.clean()
    look.context.close()


def test_trades_arrive_by_themselves(browser: Browser, served: Served) -> None:
    look = Looking(browser, served.url)
    page = look.open("/market?symbol=binance:BTC-USDT")
    expect(page.locator("[data-price]")).to_be_visible()
    first = 2001 + sum(one.exchange == "binance" and one.symbol == "BTC-USDT" for one in served.trades) - 2000
    news = [trade("binance", "BTC-USDT", first + i, time.time_ns() + i * 1000) for i in range(3)]
    served.say(news)
    expect(page.locator(f'.tape [title*="#{news[-1].trade_id},"]')).to_be_visible()
    expect(page.locator("[data-price]")).to_have_text(f"{float(news[-1].price):,.2f}")
    assert number(page.locator(".legend b").last.text_content()) == float(news[-1].price)
    page.keyboard.press("i")
    expect(page.locator('.segments [aria-pressed="true"]').first).to_have_text("5m")
    page.keyboard.press("/")
    page.keyboard.type("kraken")
    page.keyboard.press("Enter")
    expect(page.locator(".chart .symbol")).to_contain_text("kraken")
    look.clean()
    look.context.close()


def test_dark_light_and_a_phone(browser: Browser, served: Served) -> None:
    look = Looking(browser, served.url, PHONE, "light")
    page = look.open("/market")
    expect(page.locator(".matrix tbody tr")).to_have_count(2)
    light = look.colour("bg")
    page.get_by_role("button", name="Dark theme").click()
    assert look.colour("bg") != light
    for view in VIEWS:
        page.get_by_role("link", name=view.capitalize(), exact=False).last.click()
        expect(page.locator(f"main.view-{view}")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, view
    page.reload()
    assert look.colour("bg") != light
    look.clean()
    look.context.close()


def test_a_key_is_asked_for_once(browser: Browser, served: Served, tmp_path: Path) -> None:
    _, text = create(tmp_path / "keys.json", "page")
    guarded = served.another(tmp_path)
    look = Looking(browser, guarded.url)
    page = look.open("/archive")
    page.get_by_label("API key", exact=True).fill(text)
    page.get_by_role("button", name="Use it").click()
    expect(page.locator(".figures")).to_be_visible()
    page.reload()
    expect(page.locator(".figures")).to_be_visible()
    expect(page.locator("dialog")).to_have_count(0)
    assert page.evaluate("Object.keys(localStorage).length") == 0
    assert all("401" in fault for fault in look.faults)  # the browser itself tells of the first answers
    look.context.close()


@pytest.mark.parametrize(
    ("path", "text"), [("/docs", "/v1/candles/{interval}"), ("/docs/problems", "unknown-parameter")]
)
def test_what_explains_the_api_needs_no_exception_from_the_content_policy(
    browser: Browser, served: Served, path: str, text: str
) -> None:
    look = Looking(browser, served.url)
    page = look.open(path)
    expect(page.locator("body")).to_contain_text(text)
    assert page.evaluate("getComputedStyle(document.body).margin") != "8px"
    look.clean()
    look.context.close()
