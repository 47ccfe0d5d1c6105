"""One scene for each alert: an async generator that yields three times.

a daemon is up, scraped, and well     → yield: nothing fires
the real condition is caused          → yield: the alert has to fire
the condition is over                 → yield: the alert has to clear
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.ops.test_metrics import ROOT
from tests.parts.snapshot import write_snapshot
from tests.prometheus.stand import Stand
from tests.security.authority import Authority
from zkside.cli.zookeeper import ZooKeeperServer, find, free_port
from zkside.client import Consistency, SessionState
from zkside.errors import Quota, Unavailable
from zkside.model.stat import LAST_NUMBER
from zkside.recipes.numbers import WARN_BELOW

Scene = Callable[[Stand], AsyncGenerator[None, None]]

SCENES: dict[str, Scene] = {}
"""By the alert's name."""


def _of(alert: str) -> Callable[[Scene], Scene]:
    def enter(scene: Scene) -> Scene:
        SCENES[alert] = scene
        return scene

    return enter


@asynccontextmanager
async def _meanwhile(step: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Do this again and again, until the end of the body."""

    async def again_and_again() -> None:
        while True:
            await step()

    task = asyncio.create_task(again_and_again())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@contextmanager
def _limited(pid: int, limit: int, value: int) -> Iterator[None]:
    """A process of ours has this resource limit until the end of the body."""
    soft, hard = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (value, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, limit, (soft, hard))


@_of("ZksideDown")
async def killed(stand: Stand) -> AsyncGenerator[None, None]:
    """kill -9; then it is started again."""
    async with stand.place("ZksideDown", HTTP_LISTEN=f"127.0.0.1:{free_port()}") as place:
        yield
        place.daemon.signal(signal.SIGKILL)
        yield
        await place.start_again()
        yield


@_of("ZksideSessionLost")
async def lost(stand: Stand) -> AsyncGenerator[None, None]:
    """ZooKeeper is away for longer than the session's timeout."""
    async with stand.place("ZksideSessionLost", ZOOKEEPER_SESSION_TIMEOUT="2s") as place:
        yield
        async with place.session_passes(SessionState.LOST):
            place.proxy.half_open()
        place.proxy.cut()
        place.proxy.heal()
        await place.wait_session(SessionState.CONNECTED)
        yield
        yield


@_of("ZksideDisconnected")
async def disconnected(stand: Stand) -> AsyncGenerator[None, None]:
    """Nobody answers at ZooKeeper's address."""
    async with stand.place("ZksideDisconnected") as place:
        yield
        place.proxy.refuse()
        place.proxy.cut()
        yield
        place.proxy.accept()
        yield


@_of("ZksideConnectionFlapping")
async def flapping(stand: Stand) -> AsyncGenerator[None, None]:
    """The connection is reset again and again."""
    async with stand.place("ZksideConnectionFlapping") as place:
        yield
        for _ in range(5):
            async with place.session_passes(SessionState.SUSPENDED, SessionState.CONNECTED):
                place.proxy.cut()
        yield
        yield


@_of("ZksideLeaseLow")
async def lease_low(stand: Stand) -> AsyncGenerator[None, None]:
    """A network that swallows everything for a few seconds, while something is held. The session lives on."""
    async with stand.place("ZksideLeaseLow") as place, place.client.hold_ephemeral("/held") as held:
        yield
        place.proxy.half_open()
        while await place.metric("zkside_lease_remaining_seconds") > 2.9:
            continue
        place.proxy.heal()
        yield
        assert not held.lost.is_set()
        yield


@_of("ZksideLeadershipFlapping")
async def leaders_flap(stand: Stand) -> AsyncGenerator[None, None]:
    """A process leads for a moment, again and again."""
    async with stand.place("ZksideLeadershipFlapping") as place:
        yield
        for _ in range(5):
            async with place.client.campaign("/leader"):
                pass
        yield
        yield


@_of("ZksideSequenceNumbersLow")
async def counts_out(stand: Stand) -> AsyncGenerator[None, None]:
    """A lock's path had all its numbers but a few millions; then it is deleted, and begins anew."""
    alert = "ZksideSequenceNumbersLow"
    with TemporaryDirectory() as directory:
        write_snapshot(Path(directory) / "data", {"/lock": LAST_NUMBER - WARN_BELOW + 1})
        installation = find(os.environ.get("ZOOKEEPER") or None)
        server = ZooKeeperServer(installation, tick_ms=500, directory=Path(directory))
        await asyncio.to_thread(server.start)
        try:
            async with stand.place(alert, ZOOKEEPER_HOSTS=server.hosts) as place:
                yield
                async with place.client.lock("/lock"):
                    yield
                await place.client.delete("/lock")
                async with place.client.lock("/lock"):
                    yield
        finally:
            await asyncio.to_thread(server.stop)


@_of("ZksideWatchGrowth")
async def watches_grow(stand: Stand) -> AsyncGenerator[None, None]:
    """A process that reads ever new paths."""
    async with stand.place("ZksideWatchGrowth", HUB_IDLE_EVICTION="20s") as place:
        yield
        paths = iter(range(1_000_000))

        async def read_more() -> None:
            more = (place.client.exists(f"/{next(paths)}", consistency=Consistency.CACHED) for _ in range(20))
            await asyncio.gather(*more)
            await asyncio.sleep(0.5)

        async with _meanwhile(read_more):
            yield
        yield


@_of("ZksideSlowSubscribers")
async def slow_reader(stand: Stand) -> AsyncGenerator[None, None]:
    """A process that watches, and does not read."""
    async with stand.place("ZksideSlowSubscribers") as place:
        await place.client.create("/large")
        reader = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.prometheus.reader", place.daemon.address, "/large"),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert await reader.stdout.readline() == b"watching\n"
        yield
        while await place.metric("zkside_stream_unread_max_seconds") < 1.0:
            await place.client.set("/large", os.urandom(900_000))
        yield
        reader.stdin.write(b"read\n")
        yield
        reader.stdin.close()
        assert await reader.wait() == 0


@_of("ZksideStaleCaches")
async def stale(stand: Stand) -> AsyncGenerator[None, None]:
    """What was read once is asked for while ZooKeeper is away."""
    async with stand.place("ZksideStaleCaches") as place:
        await place.client.exists("/cached", consistency=Consistency.CACHED)
        yield
        place.proxy.refuse()
        place.proxy.cut()
        yield
        place.proxy.accept()
        yield


@_of("ZksideEventLoopLag")
async def stalls(stand: Stand) -> AsyncGenerator[None, None]:
    """The process gets no CPU for a quarter of a second, again and again."""
    async with stand.place("ZksideEventLoopLag") as place:
        yield

        async def stall() -> None:
            place.daemon.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(0.25)
            finally:
                place.daemon.signal(signal.SIGCONT)
            await asyncio.sleep(0.25)

        async with _meanwhile(stall):
            yield
        yield


@_of("ZksideQuotaRefusals")
async def refused(stand: Stand) -> AsyncGenerator[None, None]:
    """One hold more than there may be."""
    async with (
        stand.place("ZksideQuotaRefusals", QUOTAS_MAX_HOLDS="1") as place,
        place.client.hold_ephemeral("/held"),
    ):
        yield
        with pytest.raises(Quota):
            async with place.client.hold_ephemeral("/more"):
                pass
        yield
        yield


@_of("ZksideCallsReset")
async def resets(stand: Stand) -> AsyncGenerator[None, None]:
    """A process opens calls and takes them back as fast as it can."""
    async with stand.place("ZksideCallsReset") as place:
        yield
        program = (sys.executable, "-m", "tests.rpc.flooding", place.daemon.address, "600", "2000")
        flood = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL)
        try:
            yield
        finally:
            flood.kill()
            await flood.wait()
        yield


@_of("ZksideStateNotWritten")
async def not_written(stand: Stand) -> AsyncGenerator[None, None]:
    """The files of the state directory can grow no more: as on a full disk, but for this process alone."""
    # The caches are left out: what cannot be written is the journal, by the first hold.
    state_dir = "{directory}/state"
    async with stand.place("ZksideStateNotWritten", STATE_DIR=state_dir, HUB_SNAPSHOT_INTERVAL="1h") as place:
        yield
        journal = place.directory / "state/session.journal"
        with _limited(place.daemon.pid, resource.RLIMIT_FSIZE, journal.stat().st_size + 10):
            with pytest.raises(Unavailable):
                async with place.client.hold_ephemeral("/held"):
                    pass
            yield
        async with place.client.hold_ephemeral("/held"):
            yield


@_of("ZksideStateDamaged")
async def removed(stand: Stand) -> AsyncGenerator[None, None]:
    """Somebody cleans up."""
    async with stand.place("ZksideStateDamaged", STATE_DIR="{directory}/state") as place:
        yield
        shutil.rmtree(place.directory / "state")
        while not await place.metric("zkside_state_remade_total"):
            continue
        yield
        yield


@_of("ZksideHistoryChanged")
async def wiped(stand: Stand) -> AsyncGenerator[None, None]:
    """ZooKeeper is stopped, emptied and started."""
    server = ZooKeeperServer(find(os.environ.get("ZOOKEEPER") or None), tick_ms=500)
    await asyncio.to_thread(server.start)
    alert = "ZksideHistoryChanged"
    try:
        async with stand.place(alert, ZOOKEEPER_HOSTS=server.hosts, ZOOKEEPER_SESSION_TIMEOUT="2s") as place:
            for number in range(20):
                await place.client.create(f"/{number}")
            yield
            async with place.session_passes(SessionState.LOST, SessionState.CONNECTED):
                server.kill()
                shutil.rmtree(server.directory / "data")
                await asyncio.to_thread(server.start)
            yield
            yield
    finally:
        await asyncio.to_thread(server.stop)


@_of("ZksideCertificateExpiring")
async def expiring(stand: Stand) -> AsyncGenerator[None, None]:
    """A certificate with three days left; then another one is put in its place."""
    async with stand.place("ZksideCertificateExpiring", is_secured=True) as place:
        yield
        _exchange(place.directory, days=3)
        yield
        _exchange(place.directory, days=30)
        yield


def _exchange(files: Path, *, days: int) -> None:
    """The certificate and its key are replaced as one does with files: one after the other."""
    another = Authority(files / f"{days}-days").issue("server", "DNS:localhost", days=days)
    another.cert.replace(files / "server.crt")
    another.key.replace(files / "server.key")


@_of("ZksideFilesRefused")
async def slip_of_the_pen(stand: Stand) -> AsyncGenerator[None, None]:
    """Somebody saves a policy that makes no sense, and corrects it."""
    async with stand.place("ZksideFilesRefused", is_secured=True) as place:
        yield
        policy = place.directory / "policy.toml"
        right = policy.read_text()
        policy.write_text(right.replace("verbs", "words"))
        yield
        policy.write_text(right)
        yield


@_of("ZksideListenerShut")
async def shut_out(stand: Stand) -> AsyncGenerator[None, None]:
    """Somebody removes the socket's file, and makes a directory of that name."""
    async with stand.place("ZksideListenerShut") as place:
        yield
        path = Path(place.daemon.address.removeprefix("unix:"))
        path.unlink()
        path.mkdir()
        yield
        path.rmdir()
        yield


@_of("ZksideAuditLost")
async def audit_lost(stand: Stand) -> AsyncGenerator[None, None]:
    """The audit log can grow no more."""
    async with stand.place("ZksideAuditLost", is_secured=True) as place:
        yield
        await place.client.create("/seen")
        written = (place.directory / "audit.log").stat().st_size
        with _limited(place.daemon.pid, resource.RLIMIT_FSIZE, written):
            await place.client.create("/unseen")
            yield
        await place.client.delete("/unseen")
        yield


@_of("ZksideNotKeptCurrent")
async def unreadable(stand: Stand) -> AsyncGenerator[None, None]:
    """A node that is watched grows beyond what an answer may have, and shrinks again."""
    async with stand.place("ZksideNotKeptCurrent", ZOOKEEPER_MAX_REPLY="1MiB") as place:
        await place.client.create("/grows")
        async with place.client.mirror("/grows"):
            yield
            # With what an answer has beside the data it is just over 1 MiB.
            await place.client.set("/grows", bytes(1_048_500))
            yield
            await place.client.set("/grows", b"small")
            yield


@_of("ZksideInternalErrors")
async def senseless_answer(stand: Stand) -> AsyncGenerator[None, None]:
    """Bytes come from ZooKeeper's address that cannot be ZooKeeper's."""
    async with stand.place("ZksideInternalErrors") as place:
        yield
        async with place.session_passes(SessionState.SUSPENDED, SessionState.CONNECTED):
            place.proxy.inject_reply(b"\xff" * 64)
        yield
        yield
