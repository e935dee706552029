"""A real browser that loads the page, in its own process: `python -m k2.ops.bench.serve_browser URL ROUNDS FOLDER`.

It says `{"browser": name, "loads": [{...}, ...]}`: of each load in a fresh profile, ms from the navigation until the
page's frame was shown (`shown`, from then on it answers keys and clicks), its candles were drawn (`candles`), the
document was parsed (`parsed`) and everything was loaded (`loaded`). Or `{"browser": null, "why": ...}`.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NONE = "no browser: none of " + ", ".join(NAMES) + " is on the PATH (`apt-get install chromium` gets one)"
_WITHIN_S = 60.0
_MARKS = """JSON.stringify({
  shown: performance.getEntriesByName("k2-shown")[0]?.startTime,
  candles: performance.getEntriesByName("k2-candles")[0]?.startTime,
  parsed: performance.getEntriesByType("navigation")[0]?.domInteractive,
  loaded: performance.getEntriesByType("navigation")[0]?.loadEventEnd,
})"""


class Browser:
    """What the browser is told, by the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)

    async def do(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """The result of a command. Raises RuntimeError."""
        number = next(self._numbers)
        await self._socket.send_json(
            {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        )
        while True:
            said = await self._socket.receive_json(timeout=_WITHIN_S)
            if said.get("id") == number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error'].get('message')}")
                result: dict[str, Any] = said["result"]
                return result

    async def load(self, url: str) -> dict[str, float]:
        """Load the page as somebody does who was never here."""
        context = (await self.do("Target.createBrowserContext"))["browserContextId"]
        target = await self.do(
            "Target.createTarget", url="about:blank", browserContextId=context, width=1440, height=900
        )
        session = (await self.do("Target.attachToTarget", targetId=target["targetId"], flatten=True))["sessionId"]
        await self.do("Page.navigate", session, url=url)
        deadline, found = time.monotonic() + _WITHIN_S, dict[str, float]()
        while not (found.get("candles") and found.get("loaded")):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the page did not draw its candles within {_WITHIN_S:.0f} s; it told {found}")
            await asyncio.sleep(0.05)
            answer = await self.do("Runtime.evaluate", session, expression=_MARKS)
            found = json.loads(answer["result"]["value"])
        await self.do("Target.disposeBrowserContext", browserContextId=context)
        return {name: round(value, 1) for name, value in found.items()}


async def loads(url: str, rounds: int, address: str) -> list[dict[str, float]]:
    """Load the page so many times; the first load, which also warms the server, is among them."""
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        browser = Browser(socket)
        return [await browser.load(url) for _ in range(rounds)]


def _address(folder: Path, browser: subprocess.Popen[bytes]) -> str:
    """Where the browser listens, which it writes into its profile."""
    word, deadline = folder / "DevToolsActivePort", time.monotonic() + _WITHIN_S
    while time.monotonic() < deadline and browser.poll() is None:
        with suppress(OSError, ValueError):
            port, path = word.read_text().split()
            return f"ws://127.0.0.1:{port}{path}"
        time.sleep(0.02)
    raise RuntimeError(f"the browser did not start (exit code {browser.poll()})")


def measure(url: str, rounds: int, folder: Path) -> dict[str, Any]:
    """What the process says."""
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        return {"browser": None, "why": NONE}
    folder.mkdir(parents=True, exist_ok=True)
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # chromium refuses to run as root with it
    words = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run", *sandbox]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    browser = subprocess.Popen(
        [program, *words, *quiet, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_WITHIN_S, check=False)
        found = asyncio.run(loads(url, rounds, _address(folder, browser)))
        return {"browser": version.stdout.strip() or program, "loads": found}
    except (RuntimeError, aiohttp.ClientError, TypeError, TimeoutError) as error:  # TypeError: it closed the connection
        return {"browser": None, "why": f"{program} could not measure: {error}"}
    finally:
        browser.terminate()
        try:
            browser.wait(10)
        except subprocess.TimeoutExpired:
            browser.kill()
            browser.wait()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))) + "\n")
    sys.stdout.flush()
    sys.stdin.read()  # until it is stopped
