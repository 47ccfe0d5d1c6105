"""The page of a daemon with work to do: what it shows, to the eye, to the keyboard and to a screen reader."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.ops.process import DaemonProcess
from tests.page.conftest import Work
from tests.page.onlooker import PHONE, Onlooker
from zkside.client import Scope

ROOT = Path(__file__).resolve().parents[2]

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "{{constructor}}${7*7}&lt;b&gt;",
    "\u202egnp.exe",
    "zero\u200bwidth\u2066and\u2069isolates",
    "a" * 300,
    "javascript:alert(1)",
    "  two  spaces  ",
)


async def busy(work: Work) -> None:
    """Locks with a queue, a leadership, members, a semaphore, caches with subscribers."""
    client = work.client
    await work.hold(client.lock("/locks/backup", owner="db-1:4711", cancel_on_loss=False))
    for number in (2, 3, 4):
        work.wait_for(client.lock("/locks/backup", owner=f"db-{number}:4711", cancel_on_loss=False))
    await work.hold(client.lock("/locks/reindex/nightly", owner="search-7:19", cancel_on_loss=False))
    await work.hold(client.campaign("/leaders/scheduler", candidate_id="scheduler-5c9f:17", cancel_on_loss=False))
    for number in range(1, 4):
        await work.hold(client.lock("/pools/import", permits=4, owner=f"import-{number}:8", cancel_on_loss=False))
    await work.hold(client.join("/services/api", member_id="api-5c9f", cancel_on_loss=False))
    for name in ("limits", "flags", "routes"):
        await client.create(f"/app/config/{name}", b"x" * 400, make_parents=True)
    await work.watch(client.watch("/app/config", scope=Scope.SUBTREE))
    await work.watch(client.watch("/services/api", scope=Scope.CHILDREN))
    await work.watch(client.watch("/app/absent"))


@asynccontextmanager
async def slow_reader(daemon: DaemonProcess, work: Work, path: str) -> AsyncIterator[None]:
    """A process that watches the path and never reads; returns when that shows."""
    await work.client.create(path, make_parents=True)
    reader = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.prometheus.reader", daemon.address, path),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    assert await reader.stdout.readline() == b"watching\n"
    while "zkside_stream_unread_max_seconds 0.0" in (await asyncio.to_thread(daemon.get, "/metrics"))[1]:
        await work.client.set(path, os.urandom(900_000))
    try:
        yield
    finally:
        reader.stdin.close()
        await reader.wait()


async def test_everything_that_goes_on_is_there_and_stays_current_by_itself(
    browser: Browser, daemon: DaemonProcess
) -> None:
    async with Work.at(daemon) as work, Onlooker.at(browser, daemon.http_port) as page:
        await page.sees("Connected")
        await page.page.evaluate("window.isTheSame = true")
        await busy(work)
        await expect(page.page.locator("#ease")).to_contain_text("This host leads 1 election and holds 6 more.")
        await expect(page.page.locator("#holds-sum")).to_have_text("7 held · 3 waiting")
        await expect(page.row("holds", "/locks/backup")).to_contain_text("db-1:4711")
        await expect(page.row("holds", "/locks/backup").locator("summary")).to_contain_text("3, longest")
        await expect(page.row("holds", "/leaders/scheduler")).to_contain_text("scheduler-5c9f:17 leads")
        for number in (1, 2, 3):
            await expect(page.row("holds", "/pools/import")).to_contain_text(f"import-{number}:8")
        await expect(page.row("caches", "/app/config")).to_contain_text("a recursive watch")
        await expect(page.row("caches", "/app/config")).to_contain_text("over the Unix socket")
        await expect(page.row("caches", "/app/config").locator("td").nth(2)).to_have_text("4")
        await expect(page.section("events")).to_contain_text("Granted")

        await work.client.create("/app/config/quotas", b"1")
        await expect(page.row("caches", "/app/config").locator("td").nth(2)).to_have_text("5")
        async with work.client.lock("/locks/brief", owner="brief"):
            await expect(page.row("holds", "/locks/brief")).to_be_visible()
        await expect(page.row("holds", "/locks/brief")).to_have_count(0)
        await expect(page.section("events")).to_contain_text("/locks/brief")
        assert await page.page.evaluate("window.isTheSame")


async def test_a_subscriber_that_does_not_read_is_named_until_it_does(browser: Browser, daemon: DaemonProcess) -> None:
    """W8: one that really does not read."""
    async with Work.at(daemon) as work, Onlooker.at(browser, daemon.http_port) as page:
        await work.watch(work.client.watch("/app"))
        async with slow_reader(daemon, work, "/feeds/prices"):
            await expect(page.rows("slow")).to_have_count(1)
            row = page.rows("slow").first
            await expect(row).to_contain_text("over the Unix socket")
            await expect(row).to_contain_text("WatchService/Watch")
            await expect(row).to_contain_text("/feeds/prices")
            await expect(page.page.locator("#attention")).to_contain_text("1 subscriber not reading, for")
            await expect(page.row("caches", "/feeds/prices")).to_contain_text("not reading")
        await expect(page.rows("slow")).to_have_count(0)
        await expect(page.section("slow").locator(".empty")).to_have_text("Every subscriber keeps up.")


async def test_what_others_named_is_text_and_nothing_else(browser: Browser, daemon: DaemonProcess) -> None:
    """O1: names of nodes and owners that would be markup, or would mislead the eye."""
    async with Work.at(daemon) as work, Onlooker.at(browser, daemon.http_port, size=PHONE) as page:
        for number, name in enumerate(HOSTILE):
            path = f"/hostile/{name.replace('/', '|')}"
            await work.client.create(path, make_parents=True)
            await work.watch(work.client.watch(path))
            await work.hold(work.client.lock(f"{path}/lock", owner=f"{name}\n{number}", cancel_on_loss=False))
        await expect(page.rows("holds")).to_have_count(len(HOSTILE))
        await expect(page.rows("caches")).to_have_count(len(HOSTILE))
        text = await page.page.inner_text("main")
        assert "/hostile/<img src=x onerror=alert(1)>" in text
        assert "U+202Egnp.exe" in text
        assert "zeroU+200BwidthU+2066andU+2069isolates" in text
        assert "U+000A" in text
        assert "  two  spaces  " in text
        lists = ", ".join(f"#{name}-body :is(img, script, b, a)" for name in ("holds", "caches", "events"))
        found = await page.page.locator(lists).count()
        assert found == 0
        assert await page.width() <= PHONE[0]


async def test_the_browser_refuses_what_the_page_never_does(browser: Browser, daemon: DaemonProcess) -> None:
    """The Content-Security-Policy is in force: no inline script, no markup from a string, no other host."""
    async with Onlooker.at(browser, daemon.http_port) as page:
        refused = await page.page.evaluate(
            """async () => {
                const refused = [];
                addEventListener('securitypolicyviolation', event => refused.push(event.effectiveDirective));
                try { document.body.innerHTML = '<b>x</b>'; } catch (error) { refused.push('innerHTML'); }
                const script = document.createElement('script');
                try { script.textContent = 'window.ran = true'; document.body.append(script); } catch { }
                await fetch('http://127.0.0.1:1/').catch(() => refused.push('fetch'));
                await new Promise(resolve => setTimeout(resolve, 100));
                return [...new Set(refused), String(window.ran)];
            }"""
        )
        assert {"innerHTML", "connect-src", "fetch", "undefined"} <= set(refused)
        page.complaints.clear()  # they were meant to be refused


async def test_on_a_phone_nothing_scrolls_sideways(browser: Browser, daemon: DaemonProcess) -> None:
    async with Work.at(daemon) as work, Onlooker.at(browser, daemon.http_port, size=PHONE) as page:
        await busy(work)
        await expect(page.row("holds", "/pools/import")).to_contain_text("import-3:8")
        assert await page.width() <= PHONE[0]
        await page.shoot("busy-phone-light", height=1560)
        await page.page.set_viewport_size({"width": 320, "height": 640})
        assert await page.width() <= 320
        small = await page.page.evaluate(
            "[...document.querySelectorAll('a[href], button, summary')].filter(node => node.offsetParent !== null)"
            ".map(node => node.getBoundingClientRect()).filter(box => box.height < 24).length"
        )
        assert small == 0, "targets that are too small for a finger"


async def test_the_keyboard_reaches_everything_in_the_order_of_the_page(
    browser: Browser, daemon: DaemonProcess
) -> None:
    async with Work.at(daemon) as work, Onlooker.at(browser, daemon.http_port) as page:
        await busy(work)
        summary = page.row("holds", "/locks/backup").locator("summary")
        await expect(summary).to_contain_text("3, longest")
        stops = []
        for _ in range(40):
            await page.page.keyboard.press("Tab")
            stops.append(await page.focused())
            if stops[-1] == "healthz":
                break
        order = [stop.split(" ")[0] for stop in stops if not stop.startswith(("ZooKeeper takes", "The event loop"))]
        assert order == [
            *("Skip", "Pause", "Holds", "Slow", "Caches", "Events"),
            *("3,", "metrics", "statusz", "readyz", "healthz"),
        ]
        outline = await page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"

        # Unfolded, it stays so, with the focus in it, while the page goes on.
        await summary.focus()
        await page.page.keyboard.press("Enter")
        queue = page.row("holds", "/locks/backup").locator(".queue")
        await expect(queue).to_contain_text("db-4:4711")
        age = await page.page.locator("#freshness").inner_text()
        await expect(page.page.locator("#freshness")).not_to_have_text(age)
        await work.client.create("/app/config/more")
        await expect(page.row("caches", "/app/config").locator("td").nth(2)).to_have_text("5")
        await expect(queue).to_be_visible()
        assert (await page.focused()).startswith("3,")

        # The skip link and the index lead where they say.
        await page.page.locator(".skip").focus()
        await page.page.keyboard.press("Enter")
        assert await page.page.evaluate("document.activeElement.id") == "main"
        await page.page.get_by_role("link", name="Caches").press("Enter")
        assert await page.page.evaluate("document.activeElement.id") == "caches"


async def test_pausing_stops_all_movement_until_it_is_resumed(browser: Browser, daemon: DaemonProcess) -> None:
    async with Work.at(daemon) as work, Onlooker.at(browser, daemon.http_port) as page:
        await page.sees("Connected")
        pause = page.page.get_by_role("button")
        await pause.focus()
        await page.page.keyboard.press("Space")
        await expect(pause).to_have_attribute("aria-pressed", "true")
        await expect(page.page.locator("#freshness")).to_have_text("paused")
        asked: list[str] = []
        page.page.on("request", lambda request: asked.append(request.url))
        await work.hold(work.client.lock("/locks/backup", cancel_on_loss=False))
        moved = await page.page.evaluate(
            "new Promise(resolve => { let moved = 0;"
            " new MutationObserver(() => { moved += 1; }).observe(document.body,"
            " {childList: true, subtree: true, characterData: true});"
            " setTimeout(() => resolve(moved), 2500); })"
        )
        assert (moved, asked) == (0, [])
        await page.page.keyboard.press("Space")
        await expect(page.row("holds", "/locks/backup")).to_be_visible()


async def test_a_screen_reader_is_told_of_states_and_not_of_numbers(browser: Browser, daemon: DaemonProcess) -> None:
    async with Work.at(daemon) as work, Onlooker.at(browser, daemon.http_port) as page:
        await page.sees("Connected")
        live = page.page.locator("[aria-live], [role=status], [role=alert], [role=timer], [role=log]")
        await expect(live).to_have_count(1)
        told = await live.inner_text()
        await busy(work)
        await expect(page.row("holds", "/locks/backup").locator("summary")).to_contain_text("3, longest")
        assert await live.inner_text() == told
        roles = await page.page.locator("body").aria_snapshot()
        for landmark in (
            "banner",
            "main",
            'navigation "On this page"',
            "contentinfo",
            'region "Holds"',
            'table "Holds"',
        ):
            assert landmark in roles, landmark


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), PHONE], ids=["desktop", "phone"])
async def test_axe_finds_no_fault(browser: Browser, daemon: DaemonProcess, scheme: Any, size: tuple[int, int]) -> None:
    """With everything there is on the page, and then with nothing but a daemon that has gone."""
    async with (
        Work.at(daemon) as work,
        Onlooker.at(browser, daemon.http_port, size=size, scheme=scheme, scripts_of_tests=True) as page,
    ):
        await busy(work)
        async with slow_reader(daemon, work, "/feeds/prices"):
            await expect(page.rows("slow")).to_have_count(1)
            await page.row("holds", "/locks/backup").locator("summary").click()
            assert await page.violations() == []
            if size != PHONE:
                await page.shoot(f"busy-desktop-{scheme}", height=1500)
            elif scheme == "dark":
                await page.shoot("busy-phone-dark", height=1560)
        for tone in ("ok", "warn", "bad", "info", "off"):
            await page.page.get_by_role("button").evaluate("button => button.ariaPressed === 'true' || button.click()")
            await page.page.locator("#session").evaluate("(node, tone) => { node.dataset.tone = tone; }", tone)
            assert await page.violations() == [], tone
        await page.page.evaluate("document.body.dataset.link = 'down'")
        assert await page.violations() == []


async def test_dark_and_light_are_two_sets_of_colours(browser: Browser, daemon: DaemonProcess) -> None:
    async with Onlooker.at(browser, daemon.http_port) as page:
        await page.sees("Connected")
        seen = {}
        schemes: tuple[Any, ...] = ("light", "dark")
        for scheme in schemes:
            await page.page.emulate_media(color_scheme=scheme)
            seen[scheme] = await page.page.evaluate(
                "['body', '#title', '#session'].map(at => document.querySelector(at)).flatMap(node =>"
                " [getComputedStyle(node).color, getComputedStyle(node).backgroundColor])"
            )
        background = {scheme: sum(map(int, colours[1][4:-1].split(","))) for scheme, colours in seen.items()}
        assert background["light"] > 3 * 200
        assert background["dark"] < 3 * 50
        assert seen["light"][0] != seen["dark"][0]
        assert seen["light"][2] != seen["dark"][2]
