"""What the SDK's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.client.parts.scripted import ScriptedDaemon
from zkside.client import Client


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[ScriptedDaemon]:
    daemon = ScriptedDaemon(tmp_path)
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest.fixture
async def scripted_client(scripted: ScriptedDaemon) -> AsyncIterator[Client]:
    async with Client(scripted.address, timeout_s=10) as client:
        yield client
