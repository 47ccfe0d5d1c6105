"""Each state of the page, with its real cause, and the way out of it without a reload."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

from playwright.async_api import Browser, expect

from tests.ops.process import DaemonProcess
from tests.page.conftest import NAMED, PACE, Work
from tests.page.onlooker import PHONE, Onlooker
from zkside.cli.zookeeper import ZooKeeperServer, free_port


async def test_a_daemon_that_nobody_uses_says_what_would_appear(browser: Browser, daemon: DaemonProcess) -> None:
    async with Onlooker.at(browser, daemon.http_port) as page:
        await page.sees("Connected")
        await expect(page.page.locator("#ease")).to_contain_text("No client yet.")
        await expect(page.page.locator("#lease-note")).to_have_text("Nothing is held, so nothing has to be proven.")
        await expect(page.section("holds")).to_contain_text("No process holds or waits for anything.")
        await expect(page.section("holds").locator("code")).to_have_text("zkside lock /locks/backup -- backup.sh")
        await expect(page.section("slow").locator(".empty")).to_have_text("Nobody subscribes.")
        await expect(page.section("caches")).to_contain_text("Nothing is watched or cached.")
        await expect(page.section("events").locator("li")).to_have_count(1)
        for name in ("holds", "slow", "caches"):
            await expect(page.section(name).get_by_role("table")).to_have_count(0)
        await page.shoot("empty-desktop-light")


async def test_stopping_zookeeper_is_suspended_then_lost_and_then_another_epoch(
    browser: Browser, tmp_path: Path, slow_zookeeper: ZooKeeperServer
) -> None:
    """The countdown runs down to its end, and the page never says more than the daemon knows."""
    daemon = DaemonProcess(tmp_path, launcher=NAMED, ZOOKEEPER_HOSTS=slow_zookeeper.hosts, **PACE)
    async with (
        _serving(daemon),
        Work.at(daemon) as work,
        Onlooker.at(browser, daemon.http_port) as page,
        Onlooker.at(browser, daemon.http_port, size=PHONE, scheme="dark") as phone,
    ):
        await work.hold(work.client.lock("/locks/backup", owner="db-1:4711", cancel_on_loss=False))
        await work.hold(work.client.campaign("/leader/scheduler", candidate_id="scheduler:17", cancel_on_loss=False))
        await work.client.create("/app/config", b"1", make_parents=True)
        await work.watch(work.client.watch("/app"))
        await expect(page.page.locator("#ease")).to_contain_text("This host leads 1 election and holds 1 more.")
        assert await page.lease_s() > 5
        await page.page.evaluate("window.isTheSame = true")

        await asyncio.to_thread(slow_zookeeper.kill)
        await page.sees("Suspended")
        await expect(page.page.locator("#summary")).to_contain_text("2 holds in jeopardy")
        await expect(page.page.locator("#reason")).not_to_be_empty()
        await expect(page.page.locator("#attention li", has_text="stale")).to_have_count(0)  # the state says that
        await expect(page.row("holds", "/locks/backup")).to_contain_text("in jeopardy")
        await expect(page.row("caches", "/app")).to_contain_text("stale")
        before_s = await page.lease_s()
        await page.counts_down_to(before_s - 1)
        await phone.sees("Suspended")
        await page.shoot("suspended-desktop-light")
        await phone.shoot("suspended-phone-dark")

        await page.sees("Session lost")
        await phone.sees("Session lost")
        await expect(page.page.locator("#lease-value")).to_have_text("over")
        await expect(page.page.locator("#reason")).to_have_text(re.compile(r"nothing from ZooKeeper .*,\s.*\ss ago"))
        await expect(page.section("holds")).to_contain_text("No process holds or waits")
        await expect(page.section("events")).to_contain_text(re.compile("Lost with the session .2"))
        await page.page.emulate_media(color_scheme="dark")
        await page.shoot("lost-desktop-dark")

        await asyncio.to_thread(slow_zookeeper.start)
        await page.sees("Connected")
        await expect(page.page.locator("#facts > div").first.locator(".value")).to_have_text("2")
        await expect(page.row("caches", "/app")).to_contain_text("current")
        assert await page.page.evaluate("window.isTheSame")


async def test_without_zookeeper_it_is_connecting_and_then_connected(
    browser: Browser, tmp_path: Path, slow_zookeeper: ZooKeeperServer
) -> None:
    await asyncio.to_thread(slow_zookeeper.kill)
    daemon = DaemonProcess(tmp_path, launcher=NAMED, ZOOKEEPER_HOSTS=slow_zookeeper.hosts, **PACE)
    async with _serving(daemon), Onlooker.at(browser, daemon.http_port, size=PHONE) as page:
        await page.sees("Connecting")
        await expect(page.page.locator("#summary")).to_contain_text("No session yet.")
        await expect(page.page.locator("#lease-value")).to_have_text("none")
        await page.shoot("connecting-phone-light")
        await asyncio.to_thread(slow_zookeeper.start)
        await page.sees("Connected")


async def test_a_session_that_is_taken_up_says_so_until_its_holds_have_their_owners_back(
    browser: Browser, tmp_path: Path, slow_zookeeper: ZooKeeperServer
) -> None:
    """A daemon was killed, and the next one begins without ZooKeeper."""
    keys = {"ZOOKEEPER_HOSTS": slow_zookeeper.hosts, "STATE_DIR": str(tmp_path / "state"), **PACE}
    first = DaemonProcess(tmp_path, **keys)
    async with _serving(first), Work.at(first) as work:
        await work.hold(work.client.lock("/locks/backup", owner="db-1:4711", reconnect_grace_s=60))
        first.signal(signal.SIGKILL)
        await asyncio.to_thread(first.wait_ended)
    slow_zookeeper.pause()
    second = DaemonProcess(tmp_path, **keys)
    async with _serving(second), Onlooker.at(browser, second.http_port) as page:
        await page.sees("Connecting")
        await expect(page.page.locator("#summary")).to_contain_text("is being taken up again")
        slow_zookeeper.resume()
        await page.sees("Connected")
        await expect(page.page.locator("#attention")).to_have_text(
            "1 hold without a stream: its process has to come back"
        )
        row = page.row("holds", "/locks/backup")
        await expect(row).to_contain_text("db-1:4711")
        await expect(row).to_contain_text("without a stream, ends in")


async def test_draining_shows_what_is_left_until_nothing_is(browser: Browser, daemon: DaemonProcess) -> None:
    async with Onlooker.at(browser, daemon.http_port) as page:
        async with Work.at(daemon) as work:
            await work.hold(work.client.lock("/locks/backup", owner="db-1:4711", cancel_on_loss=False))
            await page.sees("Connected")
            draining = asyncio.get_running_loop().create_task(work.client.admin.drain())
            await page.sees("Draining")
            await expect(page.page.locator("#summary")).to_contain_text("No new streams and no new holds are taken.")
            await page.shoot("draining-desktop-light")
            await draining
        await page.sees("Drained")
        await expect(page.section("events")).to_contain_text("Draining began")


async def test_a_daemon_that_is_gone_leaves_what_it_said_last_and_the_next_one_is_found(
    browser: Browser, tmp_path: Path, hosts: str
) -> None:
    port = str(free_port())
    keys = {"ZOOKEEPER_HOSTS": hosts, "HTTP_LISTEN": f"127.0.0.1:{port}"}
    first = DaemonProcess(tmp_path, launcher=NAMED, **keys)
    async with _serving(first), Work.at(first) as work, Onlooker.at(browser, int(port)) as page:
        await work.hold(work.client.lock("/locks/backup", owner="db-1:4711", cancel_on_loss=False))
        await expect(page.row("holds", "/locks/backup")).to_be_visible()
        first.signal(signal.SIGKILL)
        await page.sees("No answer")
        await expect(page.page.locator("#summary")).to_contain_text("Last heard")
        await expect(page.page.locator("#freshness")).to_contain_text("last heard")
        await expect(page.row("holds", "/locks/backup")).to_be_visible()
        await expect(page.page.locator("#lease-note")).to_contain_text("unless it was renewed since")
        await page.shoot("gone-desktop-light")
        await expect(page.page.locator("#lease-value")).to_have_text("?")
        async with _serving(DaemonProcess(tmp_path, launcher=NAMED, **keys)):
            await page.sees("Connected")
            await expect(page.page.locator("body")).to_have_attribute("data-link", "up")


async def test_a_daemon_that_hangs_is_told_from_one_that_is_gone(browser: Browser, daemon: DaemonProcess) -> None:
    """Its threads answer, its event loop does not."""
    async with Onlooker.at(browser, daemon.http_port) as page:
        await page.sees("Connected")
        daemon.signal(signal.SIGWINCH)
        await page.sees("The daemon hangs")


async def test_the_end_of_the_daemon_is_seen_in_order(browser: Browser, daemon: DaemonProcess) -> None:
    async with Work.at(daemon) as work, Onlooker.at(browser, daemon.http_port) as page:
        await work.hold(work.client.lock("/locks/backup", cancel_on_loss=False))
        await page.sees("Connected")
        await page.page.evaluate("window.seen = new Set()")
        await page.page.evaluate(
            "new MutationObserver(() => window.seen.add(document.getElementById('title').textContent))"
            ".observe(document.getElementById('title'), {childList: true})"
        )
        daemon.signal(signal.SIGTERM)
        await page.sees("No answer")
        assert "Draining" in await page.page.evaluate("[...window.seen]")


def _serving(daemon: DaemonProcess) -> _Serving:
    return _Serving(daemon)


class _Serving:
    """A daemon process as an asynchronous context, which waits without stopping the loop."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon

    async def __aenter__(self) -> DaemonProcess:
        return await asyncio.to_thread(self._daemon.__enter__)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._daemon.__exit__, None, None, None)
