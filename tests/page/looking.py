"""A real browser that looks at the page, and notes what a page must not do: complain, or ask another host."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, expect
from playwright.sync_api import Error as BrowserError
from tests.patience import PATIENCE_S

VIEWS = ("market", "pipeline", "integrity", "archive", "log")
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
SHOTS = Path(__file__).parents[2] / "build" / "page-screenshots"
GET_A_BROWSER = "no browser: `apt-get install chromium` gets one, or `playwright install chromium`"
PATIENCE_MS = PATIENCE_S * 1000
expect.set_options(timeout=PATIENCE_MS)


def launch(playwright: Playwright) -> Browser | None:
    """The distribution's chromium, else Playwright's own; None where there is neither."""
    own = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # chromium refuses to run as root with it
    try:
        return playwright.chromium.launch(executable_path=own, args=sandbox)
    except BrowserError as error:
        if "Executable doesn't exist" in error.message:
            return None
        raise


class Looking:
    """One tab on one address. `faults` must stay empty: see `clean`."""

    def __init__(self, browser: Browser, url: str, size: Mapping[str, int] | None = None, theme: str = "dark") -> None:
        wanted = size or DESKTOP
        phone = wanted["width"] < 600
        self.context = browser.new_context(
            viewport={"width": wanted["width"], "height": wanted["height"]},
            color_scheme="light" if theme == "light" else "dark",
            has_touch=phone,
            is_mobile=phone,
            device_scale_factor=2 if phone else 1,
        )
        self.url = url
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.faults: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._asked)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc and not request.url.startswith("data:"):
            self.faults.append(f"asked {request.url}")

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.url}/{path.removeprefix('/')}")
        return self.page

    def shoot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")

    def clean(self) -> None:
        """Nothing went wrong, and nothing sticks out at the side."""
        assert not self.faults, self.faults
        assert self.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0

    def colour(self, name: str) -> str:
        return str(self.page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')"))

    def timing(self) -> dict[str, float]:
        """ms from the navigation to: the frame shown, the candles shown, everything loaded."""
        found: dict[str, Any] = self.page.evaluate(
            """() => ({
              shown: performance.getEntriesByName("k2-shown")[0]?.startTime,
              candles: performance.getEntriesByName("k2-candles")[0]?.startTime,
              interactive: performance.getEntriesByType("navigation")[0].domInteractive,
              loaded: performance.getEntriesByType("navigation")[0].loadEventEnd,
            })"""
        )
        return {name: round(float(value), 1) for name, value in found.items() if value}


def number(text: str | None) -> float:
    """The first number in a text, without its commas."""
    found = re.search(r"-?[\d,]+(\.\d+)?", text or "")
    assert found, text
    return float(found[0].replace(",", ""))
