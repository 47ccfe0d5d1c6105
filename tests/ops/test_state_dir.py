"""A daemon whose state directory is full at its start, or is removed while it runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from tests.ops.process import DaemonProcess
from tests.parts.eventually import until
from zkside.client import Client, Consistency
from zkside.errors import Unavailable

KEYS = {"ZOOKEEPER_SESSION_TIMEOUT": "20s", "HOLDS_RECLAIM_GRACE": "20s"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few pages."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=12", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(file: Path) -> None:
    """With names and bytes, until there is no room for either."""
    with open(file, "ab", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(b"x" * 4096)
    with suppress(OSError):
        for number in range(100):
            (file.parent / f"name-{number}").touch()


async def hold_many(client: Client, held: AsyncExitStack) -> None:
    """More than what is left of a page takes."""
    for number in range(50):
        await held.enter_async_context(client.lock(f"/more/{number}", wait_timeout_s=5, cancel_on_loss=False))


def metric(daemon: DaemonProcess, name: str) -> float:
    lines = daemon.get("/metrics")[1].splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[-1])


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_a_daemon_that_finds_its_disk_full_takes_up_what_it_had(
    tmp_path: Path, small_disk: Path, hosts: str
) -> None:
    """S5: it starts, says what it cannot write, promises nothing that it cannot, and goes on when there is room."""
    keys = {"ZOOKEEPER_HOSTS": hosts, "STATE_DIR": str(small_disk / "state"), **KEYS}
    with DaemonProcess(tmp_path, **keys) as daemon:
        async with (
            Client(daemon.address) as client,
            client.lock("/lock", reconnect_grace_s=20, cancel_on_loss=False) as held,
        ):
            token = held.fencing_token
            daemon.signal(signal.SIGKILL)
            daemon.wait_ended()
            (small_disk / "state/stacks.txt").unlink()
            fill(small_disk / "filler")
            with DaemonProcess(tmp_path, **keys) as after:
                await client.get("/", wait_for_ready=True)  # is_held() is true of its own until the lease ends
                await until(held.is_held)
                assert (held.fencing_token, held.lost.is_set()) == (token, False)
                assert "journal.not_written" in after.log
                assert metric(after, "zkside_journal_errors_total") > 0
                async with AsyncExitStack() as more:
                    with pytest.raises(Unavailable, match="journal cannot be written"):
                        await hold_many(client, more)
                (small_disk / "filler").unlink()
                for name in small_disk.glob("name-*"):
                    name.unlink()
                async with client.lock("/other", wait_timeout_s=5):
                    assert held.is_held()


async def test_a_directory_that_is_removed_is_made_anew_and_nothing_is_lost(tmp_path: Path, hosts: str) -> None:
    """S5, R5: within a second, with the caches at their next writing; a second daemon is refused as before."""
    state = tmp_path / "state"
    keys = {"ZOOKEEPER_HOSTS": hosts, "STATE_DIR": str(state), "HUB_SNAPSHOT_INTERVAL": "1s", **KEYS}
    with DaemonProcess(tmp_path, **keys) as daemon:
        async with (
            Client(daemon.address) as client,
            client.lock("/lock", reconnect_grace_s=20, cancel_on_loss=False) as held,
        ):
            await client.get("/", consistency=Consistency.CACHED)
            token = held.fencing_token
            shutil.rmtree(state)
            daemon.wait_for("was removed while the daemon ran", within_s=5.0)
            assert metric(daemon, "zkside_state_remade_total") == 1
            (tmp_path / "other").mkdir()
            other = DaemonProcess(tmp_path / "other", **keys)
            assert other.wait_ended() != 0
            assert "in use by another daemon" in other.log
            daemon.signal(signal.SIGKILL)
            daemon.wait_ended()
            with DaemonProcess(tmp_path, **keys):
                await until(held.is_held)
                assert (held.fencing_token, held.lost.is_set()) == (token, False)
