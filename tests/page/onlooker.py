"""Somebody who looks at the status page: a page of headless Chromium that notices whatever goes wrong in it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, async_playwright, expect

PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)
DESKTOP, PHONE = (1280, 860), (375, 780)

SHOTS = os.environ.get("SCREENSHOTS")
"""The folder for pictures; none are taken without."""

_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium, or another that is called so."""
    path = shutil.which("chromium")
    assert path, "chromium is not here: `tools/provide chromium` gets it"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


class Onlooker:
    """One window with the page of one daemon."""

    def __init__(self, page: Page, port: int) -> None:
        self.page = page
        self.port = port
        self.complaints: list[str] = []
        """What the browser complained of; an answer that the daemon did not give is no complaint."""
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", self._on_request)

    @classmethod
    @asynccontextmanager
    async def at(
        cls,
        browser: Browser,
        port: int,
        *,
        size: tuple[int, int] = DESKTOP,
        scheme: Any = "light",
        scripts_of_tests: bool = False,
    ) -> AsyncIterator[Onlooker]:
        """Open the page, and see at the end that nothing was wrong with it. `scripts_of_tests` lifts the
        Content-Security-Policy for what a test itself injects."""
        context = await browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, bypass_csp=scripts_of_tests
        )
        onlooker = cls(await context.new_page(), port)
        await onlooker.page.goto(f"http://localhost:{port}/")
        yield onlooker
        await context.close()
        assert onlooker.complaints == []

    def _on_console(self, message: ConsoleMessage) -> None:
        is_unanswered = message.text.startswith("Failed to load resource") and message.location["url"].endswith(
            "/page/live.json"
        )
        if message.type in ("error", "warning") and not is_unanswered:
            self.complaints.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        if urlsplit(request.url).netloc != f"localhost:{self.port}":
            self.complaints.append(f"asked {request.url}")

    # What is to be seen

    @property
    def title(self) -> Locator:
        return self.page.locator("#title")

    def section(self, name: str) -> Locator:
        """One of the lists: holds, slow, caches, events."""
        return self.page.locator(f"#{name}-body")

    def rows(self, name: str) -> Locator:
        return self.section(name).locator("tbody tr")

    def row(self, name: str, text: str) -> Locator:
        return self.rows(name).filter(has_text=text)

    async def sees(self, title: str, *, within_s: float = 20.0) -> None:
        """The state's name, without a reload."""
        await expect(self.title).to_have_text(title, timeout=within_s * 1000)

    async def lease_s(self) -> float:
        """What the page says is left; 0 when it says that it is over."""
        text = await self.page.locator("#lease-value").inner_text()
        return 0.0 if text == "over" else float(text)

    async def counts_down_to(self, below_s: float) -> None:
        """Return when the lease that is shown is less than this, without another look from outside."""
        script = """below => new Promise(resolve => {
            const value = document.getElementById('lease-value');
            new MutationObserver(() => { if (Number(value.textContent) < below) resolve(); })
                .observe(value, {childList: true, characterData: true, subtree: true});
        })"""
        async with asyncio.timeout(PATIENCE_MS / 1000):
            await self.page.evaluate(script, below_s)

    async def width(self) -> int:
        """Of what can be scrolled to."""
        found: int = await self.page.evaluate("document.documentElement.scrollWidth")
        return found

    async def focused(self) -> str:
        """What the keyboard is at: its text, or its id."""
        found: str = await self.page.evaluate(
            "(document.activeElement.innerText || document.activeElement.id).replace(/\\s+/g, ' ').trim()"
        )
        return found

    async def violations(self) -> list[str]:
        """What axe finds fault with. Needs `scripts_of_tests`."""
        results = await Axe().run(self.page, options={"runOnly": {"type": "tag", "values": _RULES}})
        return [
            f"{each['id']} ({each['impact']}): {node['html']} {node['failureSummary']}"
            for each in results.response["violations"]
            for node in each["nodes"]
        ]

    async def shoot(self, name: str, *, height: int | None = None) -> None:
        """A picture for docs/status-page.md: of the window, or so high."""
        if SHOTS is None:
            return
        await self.page.evaluate("document.fonts.ready")
        size = self.page.viewport_size
        assert size is not None
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"]}
        await self.page.screenshot(path=Path(SHOTS, f"status-{name}.png"), full_page=True, clip=clip)  # type: ignore[arg-type]
