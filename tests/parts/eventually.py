"""Waiting for what no event announces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(true: Callable[[], object], within_s: float = 20.0) -> None:
    """Ask again and again. Raises: TimeoutError."""
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
