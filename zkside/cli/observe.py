"""observe."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from zkside.cli import output
from zkside.cli.arguments import DURATION, PATH
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from zkside.client import Client, LeaderChange


@click.command()
@click.argument("path", type=PATH)
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many lines.")
@click.option("--for", "duration_s", type=DURATION, help="End after this time.")
@click.option("--wait", is_flag=True, help="Wait for a daemon that is not there yet.")
@pass_invocation
def observe(invocation: Invocation, path: str, count: int | None, duration_s: float | None, wait: bool) -> None:
    """Print who leads on PATH, then every change of leader or of its value, until Ctrl-C.

    Goes on over restarts of the daemon; what comes faster than it is read is merged.
    """

    def show(change: LeaderChange) -> None:
        leader = change.leader
        if invocation.is_json:
            told = None if leader is None else output.contender_fields(leader)
            output.json_line({"path": path, "leader": told, **output.header_fields(change.header)})
            return
        stale = "  (stale)" if change.stale else ""
        if leader is None:
            output.line(f"NOBODY{stale}")
        else:
            value = f"  {output.short(leader.value)}" if leader.value else ""
            output.line(f"LEADER  {leader.path}  fencing token {leader.fencing_token}{value}{stale}")

    async def flow(client: Client) -> None:
        try:
            async with asyncio.timeout(duration_s) as limit, client.observe(path, wait_for_ready=wait) as reading:
                left = count
                async for change in reading:
                    show(change)
                    left = None if left is None else left - 1
                    if left == 0:
                        return
        except TimeoutError:
            if not limit.expired():
                raise

    invocation.run(flow)
