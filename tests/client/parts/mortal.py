"""A real daemon that is killed and comes back on its socket."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.ops.process import DaemonProcess


class MortalDaemon:
    """Its own state_dir, so that it takes up its session and its holds again."""

    def __init__(self, folder: Path, hosts: str, **keys: str) -> None:
        self.address = f"unix:{folder}/zkside.sock"
        self._folder = folder
        self._keys = {"ZOOKEEPER_HOSTS": hosts, "STATE_DIR": f"{folder}/state", **keys}
        self._process: DaemonProcess | None = None

    async def start(self) -> None:
        self._process = DaemonProcess(self._folder, **self._keys)
        await asyncio.to_thread(self._process.wait_serving)

    async def kill(self) -> None:
        """kill -9"""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM"""
        return await self._end(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.signal(number)

    async def _end(self, signum: signal.Signals) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        process.signal(signum)
        status = await asyncio.to_thread(process.wait_ended)
        process.__exit__(None, None, None)
        return status

    async def close(self) -> None:
        if self._process is not None:
            await self.kill()
