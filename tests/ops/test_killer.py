"""Whatever permanent task dies, everything behind it is delivered or says that it is stale (GUARANTEES V1).

The tasks are found in the supervisor's own list: one that is new is killed too, without a word here.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from tests.ops.process import DaemonProcess
from tests.parts.killer import kill
from zkside.cli.zookeeper import Installation, ZooKeeperServer
from zkside.client import Client
from zkside.client.mirror import Mirror
from zkside.config_source import read
from zkside.daemon import GAVE_UP, Daemon
from zkside.errors import ZksideError
from zkside.ops.systemd import ServiceManager

WITHIN_S = 2.0

VICTIM = """
import asyncio, json, os, random, sys, time
from tests.parts.killer import kill
from zkside.config_source import read
from zkside.daemon import Backend, run

def announce(daemon):
    async def killing():
        chance = random.Random(os.environ["ZKSIDE_SEED"])
        names = os.environ.get("ZKSIDE_NAMES")
        while True:
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            permanent = chance.choice(daemon.supervisor.running())
            if names and permanent.name != names:
                continue
            how = chance.choice(["cancel", "exception"])
            print(json.dumps({"killed": permanent.name, "how": how, "at": time.time()}), file=sys.stderr, flush=True)
            await kill(permanent, how)
    daemon.killing = asyncio.get_running_loop().create_task(killing())

environment = {key: value for key, value in os.environ.items() if key not in ("ZKSIDE_SEED", "ZKSIDE_NAMES")}
again = lambda: read(environment=environment).config
sys.exit(run(again(), backend=Backend(sys.argv[1]), read=again, announce=announce))
"""


async def until(holds: Callable[[], object], within_s: float, what: str) -> None:
    """Wait for what nothing announces."""
    begun_s = time.monotonic()
    while not holds():
        assert time.monotonic() - begun_s < within_s, what
        await asyncio.sleep(0.01)


def _is_told(mirror: Mirror, value: bytes, *, or_stale: bool) -> bool:
    """Whether `/w` has this value and is current; or, with `or_stale`, that it may not be is said."""
    return or_stale if mirror.stale else mirror["/w"].data == value


@asynccontextmanager
async def daemon_here(directory: Path, hosts: str) -> AsyncIterator[Daemon]:
    """A whole daemon in this process."""
    environment = {
        "ZKSIDE_LISTEN": f"unix:{directory}/zkside.sock",
        "ZKSIDE_STATE_DIR": str(directory / "state"),
        "ZKSIDE_ZOOKEEPER_HOSTS": hosts,
        "ZKSIDE_ZOOKEEPER_SESSION_TIMEOUT": "4s",
        "ZKSIDE_LEASE_TICK": "200ms",
        "ZKSIDE_SHUTDOWN_GRACE": "3s",
    }
    daemon = Daemon(read(environment=environment).config)
    await daemon.start()
    manager = ServiceManager({"NOTIFY_SOCKET": str(directory / "systemd"), "WATCHDOG_USEC": "400000"})
    manager.start(lambda: "", daemon.supervisor)
    daemon.files.keep("file", [directory / "file"], lambda: None)
    try:
        yield daemon
    finally:
        manager.stop()
        await daemon.stop()


@pytest.mark.parametrize("how", ["cancel", "exception"])
async def test_each_permanent_task_may_die_and_what_it_kept_goes_on(
    tmp_path: Path, hosts: str, stock_client: KazooClient, how: str
) -> None:
    """V1, H5, H7: changes are told, locks pass on, and nothing that is held is lost."""
    stock_client.create("/w")
    number = 0
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(daemon_here(tmp_path, hosts))
        client = await stack.enter_async_context(Client(daemon.addresses[0]))
        await daemon.session.wait_connected()
        held = await stack.enter_async_context(client.lock("/held"))
        mirror = await stack.enter_async_context(client.mirror("/w"))

        def told() -> bool:
            return mirror["/w"].data == str(number).encode()

        names = [permanent.name for permanent in daemon.supervisor.running()]
        assert len(names) == len(set(names)) >= 9
        for name in names:
            [permanent] = [each for each in daemon.supervisor.running() if each.name == name]
            async with client.lock("/turn"):
                waiting = asyncio.ensure_future(client.lock("/turn").__aenter__())
                await asyncio.sleep(0.02)
                died = await kill(permanent, how)
                number += 1
                await asyncio.to_thread(stock_client.set, "/w", str(number).encode())
                await until(lambda: told() or mirror.stale, WITHIN_S, f"silent without {name}")
            lock = await asyncio.wait_for(waiting, 10)
            await lock.__aexit__(None, None, None)
            await until(lambda: told() and not mirror.stale, 10, f"{name} is not kept")
            assert permanent.is_alive, name
            assert daemon.supervisor.deaths[name] == int(died), name
            assert died or name == "connection", f"{name} survived"
            assert held.is_held(), name
        assert daemon.supervisor.reason == ""
        assert daemon.hub.watchdog.not_kept == ""


async def test_a_task_that_dies_again_ends_the_daemon_and_its_successor_has_the_holds(
    tmp_path: Path, hosts: str, stock_client: KazooClient
) -> None:
    """V1, S5"""
    keys = {"ZOOKEEPER_HOSTS": hosts, "STATE_DIR": str(tmp_path / "state"), "ZOOKEEPER_SESSION_TIMEOUT": "6s"}
    async with AsyncExitStack() as stack:
        first = stack.enter_context(DaemonProcess(tmp_path, code=VICTIM, SEED="1", NAMES="reader", **keys))
        client = await stack.enter_async_context(Client(first.address))
        held = await stack.enter_async_context(client.lock("/held", reconnect_grace_s=20))
        token = held.fencing_token
        assert await asyncio.to_thread(first.wait_ended) == GAVE_UP
        assert '"event": "task.gave_up"' in first.log or "task.gave_up" in first.log
        second = stack.enter_context(DaemonProcess(tmp_path, **keys))
        await asyncio.to_thread(second.wait_for, "session taken up")
        await until(held.is_held, 10, "not held again")
        assert (held.fencing_token, held.lost.is_set()) == (token, False)


class Watching:
    """Writes, and whether each was told, or the stream said that it was stale, within WITHIN_S."""

    def __init__(self, writer: KazooClient, mirror: Mirror) -> None:
        self._writer = writer
        self._mirror = mirror
        self._unseen: dict[int, float] = {}
        self.written = self.told = 0

    async def write(self) -> None:
        while True:
            self.written += 1
            await asyncio.to_thread(self._writer.set, f"/w/{self.written % 5}", str(self.written).encode())
            self._unseen[self.written] = time.monotonic()
            await asyncio.sleep(0.05)

    async def watch(self) -> None:
        looked_s = time.monotonic()
        while True:
            await asyncio.sleep(0.05)
            now_s = time.monotonic()
            late_s, looked_s = now_s - looked_s - 0.05, now_s
            for number, at_s in list(self._unseen.items()):
                node = self._mirror.get(f"/w/{number % 5}")
                if node is not None and int(node.data) >= number:
                    self.told += 1
                    del self._unseen[number]
                elif self._mirror.stale:
                    self._unseen[number] = now_s
                else:
                    assert now_s - at_s < WITHIN_S + late_s, f"{number} was written, and neither told nor stale"


@pytest.fixture
def patient_zookeeper(zookeeper_installation: Installation) -> Iterator[ZooKeeperServer]:
    """Its sessions outlive the time that a busy machine needs to start the next daemon."""
    with ZooKeeperServer(zookeeper_installation, tick_ms=1000) as server:
        yield server


@pytest.mark.faults
@pytest.mark.parametrize("seed", [1, 2])
async def test_tasks_die_at_random_and_nothing_is_silent(
    tmp_path: Path, patient_zookeeper: ZooKeeperServer, seed: int
) -> None:
    """V1, S5: for half a minute, over as many daemons as it takes."""
    chance = random.Random(seed)
    hosts = patient_zookeeper.hosts
    stock_client = KazooClient(hosts)
    await asyncio.to_thread(stock_client.start)
    stock_client.create("/w")
    for number in range(5):
        stock_client.create(f"/w/{number}", b"0")
    keys = {
        "ZOOKEEPER_HOSTS": hosts,
        "STATE_DIR": str(tmp_path / "state"),
        "ZOOKEEPER_SESSION_TIMEOUT": "18s",
        "LEASE_TICK": "1s",
        "HOLDS_RECLAIM_GRACE": "3s",
        "SHUTDOWN_GRACE": "2s",
    }
    turns = [0, 0]
    killed: list[str] = []
    ended = 0

    async def take_turns(client: Client, index: int) -> None:
        while True:
            with suppress(ZksideError):
                async with client.lock("/turn"):
                    turns[index] += 1
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.01)

    async def live() -> None:
        """One daemon after the other."""
        nonlocal ended
        until_s = time.monotonic() + 30
        while True:
            is_last = time.monotonic() >= until_s
            code = {} if is_last else {"code": VICTIM, "SEED": str(chance.random())}
            with DaemonProcess(tmp_path, **code, **keys) as daemon:
                if is_last:
                    await finish()
                    return
                status = await asyncio.to_thread(daemon.wait_ended, within_s=120)
                assert status == GAVE_UP, daemon.log
                ended += 1
                killed.extend(json.loads(line)["killed"] for line in daemon.lines if line.startswith('{"killed"'))

    async def finish() -> None:
        """Nothing dies any more: all is current, and everybody gets on."""
        await until(lambda: not mirror.stale, 20, "the mirror stays stale")
        before, told = list(turns), watching.told
        await until(lambda: all(now > then for now, then in zip(turns, before, strict=True)), 20, "nobody's turn")
        await until(lambda: watching.told > told, 5, "nothing is told")
        assert held.is_held()

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(f"unix:{tmp_path}/zkside.sock"))
        with DaemonProcess(tmp_path, **keys):
            held = await stack.enter_async_context(client.lock("/kept", reconnect_grace_s=30, wait_for_ready=True))
            mirror = await stack.enter_async_context(client.mirror("/w", wait_for_ready=True))
        watching = Watching(stock_client, mirror)
        living = asyncio.ensure_future(live())
        others = [
            asyncio.ensure_future(each)
            for each in (watching.write(), watching.watch(), take_turns(client, 0), take_turns(client, 1))
        ]
        try:
            await asyncio.wait([living, *others], return_when=asyncio.FIRST_COMPLETED)
            for task in (living, *others):
                if task.done():
                    task.result()
        finally:
            for task in (living, *others):
                task.cancel()
            await asyncio.gather(living, *others, return_exceptions=True)
            await asyncio.to_thread(stock_client.stop)
            stock_client.close()
        assert not held.lost.is_set()
    assert ended >= 2
    assert len(set(killed)) >= 4
