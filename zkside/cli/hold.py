"""hold."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zkside.cli import exits
from zkside.cli.arguments import ACL, DURATION, PATH, data_argument
from zkside.cli.holding import show_hold
from zkside.cli.invocation import Invocation, pass_invocation
from zkside.cli.node import FILE

if TYPE_CHECKING:
    from zkside.client import Acl, Client, HoldStatus


@click.command()
@click.argument("path", type=PATH)
@click.argument("data", required=False)
@click.option("-f", "--file", type=FILE, help="Take the data from this file; '-' is standard input.")
@click.option("-p", "--parents", is_flag=True, help="Create absent parents too.")
@click.option("-s", "--sequential", is_flag=True, help="Let ZooKeeper add a number to the name.")
@click.option("--recreate", is_flag=True, help="Make it again when the session was lost, and go on.")
@click.option(
    "--on-exists",
    type=click.Choice(["fail", "wait", "replace"]),
    default="fail",
    show_default=True,
    help="If there is a node: wait until it has gone, or take its place if it is nobody's on this host and has the "
    "same data.",
)
@click.option(
    "-w", "--timeout", "wait_timeout_s", type=DURATION, help="With --on-exists: give up after waiting so long."
)
@click.option("--grace", type=DURATION, help="Keep the node so long after this process has gone.")
@click.option("--acl", type=ACL, multiple=True, help="scheme:id:permissions, repeatable.")
@pass_invocation
def hold(
    invocation: Invocation,
    path: str,
    data: str | None,
    file: Path | None,
    parents: bool,
    sequential: bool,
    recreate: bool,
    on_exists: str,
    wait_timeout_s: float | None,
    grace: float | None,
    acl: tuple[Acl, ...],
) -> None:
    """Hold an ephemeral node until Ctrl-C or SIGTERM; it is deleted then, and when this process dies.

    Prints its path and fencing token, then every change of its state. Ends with exit code 11 if it is lost.
    """
    if wait_timeout_s is not None and on_exists == "fail":
        raise click.UsageError("--timeout goes with --on-exists wait or replace")
    value = data_argument(data, file)

    async def flow(client: Client) -> int:
        from zkside.client import OnExists

        told: list[tuple[object, ...]] = []

        def on_update(status: HoldStatus) -> None:
            # Updates also come with each proof of the lease; only what a reader would see is printed.
            seen = (status.state, status.path, status.fencing_token)
            if told[-1:] != [seen]:
                told[:] = [seen]
                show_hold(invocation, status)

        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with (
            client.hold_ephemeral(
                path,
                value,
                sequential=sequential,
                acl=acl,
                make_parents=parents,
                recreate=recreate,
                on_exists=OnExists[on_exists.upper()],
                wait_timeout_s=wait_timeout_s,
                reconnect_grace_s=grace,
                on_update=on_update,
            ) as held,
            asyncio.TaskGroup() as group,
        ):
            waits = [group.create_task(_lost(held.lost)), group.create_task(_set(stop))]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if held.lost.is_set():
            print(f"zkside: the hold was lost: {held.lost.reason}", file=sys.stderr)
            return exits.LOST
        return exits.OK

    invocation.run(flow)


async def _lost(lost: object) -> None:
    from zkside.client import Loss

    assert isinstance(lost, Loss)
    await lost


async def _set(event: asyncio.Event) -> None:
    await event.wait()
