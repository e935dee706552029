"""The page over a running demo: what moves must be seen to move, what stands must be seen to stand.

Pictures are kept in build/page-screenshots.
"""

import os
import signal
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.page.demo import Demo
from tests.page.looking import PHONE, VIEWS, Looking, number

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def look(browser: Browser, demo: Demo) -> Iterator[Looking]:
    tab = Looking(browser, demo.url)
    yield tab
    tab.context.close()


def test_market(look: Looking) -> None:
    page = look.open("/market")
    expect(page.locator(".matrix tbody tr")).to_have_count(12)
    expect(page.locator(".quote")).to_have_count(4)
    before = page.locator(".legend").text_content()
    newest = page.locator(".tapelong .taperow").first
    seen = newest.get_attribute("title")
    expect(newest).not_to_have_attribute("title", seen or "")
    expect(page.locator(".legend")).not_to_have_text(before or "")
    page.locator(".tapebox").hover()
    expect(page.locator(".tape .tag")).to_contain_text("new")
    held = newest.get_attribute("title")
    page.wait_for_timeout(1200)
    assert newest.get_attribute("title") == held
    page.mouse.move(700, 300)
    expect(page.locator(".tape .tag")).to_have_count(0)
    for _ in range(6):
        page.keyboard.press("i")
        expect(page.locator(".chartbox .over")).to_have_count(0)
    page.keyboard.press("j")
    expect(page.locator(".chart .symbol")).not_to_contain_text("binance")
    page.keyboard.press("/")
    page.keyboard.type("doge krak")
    page.keyboard.press("Enter")
    expect(page.locator(".chart .symbol")).to_contain_text("DOGE-USD")
    look.shoot("market")
    look.clean()


def test_a_lost_connection_is_told_and_resumed_without_a_gap(look: Looking, demo: Demo) -> None:
    page = look.open("/market?symbol=coinbase:BTC-USD")
    page.get_by_role("button", name="this", exact=True).click()
    rows = page.locator(".tapelong .taperow")
    expect(rows.nth(3)).to_be_visible()

    def newest() -> int:
        return max(shown(page))

    last = newest()
    os.kill(demo.pid("web"), signal.SIGTERM)  # the supervisor starts it again
    expect(page.get_by_text("offline")).to_be_visible()
    expect(page.get_by_text("offline")).to_have_count(0, timeout=60_000)
    deadline = time.monotonic() + 60
    while newest() < last + 15 and time.monotonic() < deadline:
        page.wait_for_timeout(200)
    found = set()
    page.locator(".tapebox").hover()  # it stands still
    for top in range(0, page.evaluate("document.querySelector('.tapelong').offsetHeight"), 300):
        page.evaluate("(top) => { document.querySelector('.tapebox').scrollTop = top }", top)
        page.wait_for_timeout(60)
        found |= shown(page)
    assert min(found) <= last < last + 15 <= max(found)
    assert sorted(found) == list(range(min(found), max(found) + 1))


def shown(page: Page) -> set[int]:
    """Ids of the tape's rows that are drawn."""
    titles = page.evaluate("[...document.querySelectorAll('.tapelong .taperow')].map((row) => row.title)")
    return {int(title.split("#")[1].split(",")[0]) for title in titles}


def test_pipeline_moves_and_tells_what_stands(look: Looking, demo: Demo) -> None:
    page = look.open("/pipeline")
    expect(page.locator(".node")).to_have_count(14)
    expect(page.locator(".spark canvas").first).to_be_visible()
    offset = page.locator('[data-node="log kraken"] .line').first
    before = number(offset.text_content())
    expect(offset).not_to_have_text(f"offset {before:,.0f}")
    assert number(offset.text_content()) > before
    expect(page.locator(".processes tbody tr").filter(has_text="answers").first).to_be_visible()
    look.shoot("pipeline")
    look.clean()
    feed = demo.pid("feed-handler-kraken")
    os.kill(feed, signal.SIGSTOP)
    try:
        expect(page.locator(".worries")).to_contain_text("kraken", timeout=60_000)
        expect(page.locator('[data-node="feed kraken"].stopped')).to_be_visible()
        expect(page.locator(".tabs .alert")).to_be_visible()
        look.shoot("pipeline-stands")
    finally:
        os.kill(feed, signal.SIGCONT)


def test_integrity(look: Looking) -> None:
    page = look.open("/integrity")
    expect(page.locator(".completeness header")).to_contain_text("of")
    page.locator(".heatbox").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".heatfoot output")).to_contain_text("trades")
    page.keyboard.press("Enter")
    expect(page.locator(".picked")).to_contain_text("Missing ids")
    page.get_by_role("button", name="healed", exact=True).click()
    row = page.locator(".ledger tbody tr").first
    expect(row).to_contain_text("healed")
    newest = row.text_content()
    expect(row).not_to_have_text(newest or "", timeout=60_000)  # the simulator drops frames all the time
    page.locator(".ledger header").click()
    page.keyboard.press("j")
    expect(page.locator(".picked")).to_contain_text("fetched over REST")
    look.shoot("integrity")
    look.clean()


def test_archive(look: Looking) -> None:
    page = look.open("/archive")
    trades = page.locator(".figure dd").first
    expect(trades).not_to_have_text("0")
    before = number(trades.text_content())
    expect(page.locator(".snapshots tbody tr").first).to_be_visible()
    page.keyboard.press("j")
    expect(page.locator('.snapshots [aria-selected="true"]')).to_have_count(1)
    expect(page.locator(".beside")).to_contain_text("Watermark")
    deadline = time.monotonic() + 60
    while number(trades.text_content()) <= before and time.monotonic() < deadline:
        page.wait_for_timeout(500)
    assert number(trades.text_content()) > before
    look.shoot("archive")
    look.clean()


def test_log(look: Looking) -> None:
    page = look.open("/log")
    expect(page.locator(".streams tbody tr")).to_have_count(7)
    first = page.locator(".records tbody td").first
    seen = first.text_content()
    expect(first).not_to_have_text(seen or "")
    page.keyboard.press("/")
    page.keyboard.type("ETH-USDT")
    page.keyboard.press("Enter")
    expect(page.locator(".records tbody tr").first).to_contain_text("ETH-USDT")
    keys = page.locator(".records tbody td:nth-child(3)").all_text_contents()
    assert set(keys) == {"ETH-USDT"}
    page.keyboard.press("j")
    expect(page.locator(".whole")).to_contain_text("native_symbol")
    page.locator(".streams tbody tr").filter(has_text="kraken.raw").click()
    expect(page.locator(".records tbody tr").first).to_contain_text("ws")
    look.shoot("log")
    look.clean()


@pytest.mark.parametrize("view", VIEWS)
def test_on_a_phone_in_light(browser: Browser, demo: Demo, view: str) -> None:
    look = Looking(browser, demo.url, PHONE, "light")
    page = look.open(f"/{view}")
    expect(page.locator("main .panel").first).to_be_visible()
    page.wait_for_timeout(700)
    look.shoot(f"{view}-phone")
    look.clean()
    look.context.close()


def test_how_soon_it_can_be_used(browser: Browser, demo: Demo) -> None:
    """Printed (pytest -s), not judged: this machine may be busy."""
    for _ in range(3):
        look = Looking(browser, demo.url)
        page = look.open("/market")
        expect(page.locator(".legend")).to_be_visible()
        expect(page.locator(".chartbox .over")).to_have_count(0)
        print(look.timing())
        assert {"shown", "candles"} <= look.timing().keys()
        look.context.close()
