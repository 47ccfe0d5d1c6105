"""drain."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

import click

from zkside.cli import output
from zkside.cli.arguments import DURATION
from zkside.cli.invocation import Invocation, pass_invocation
from zkside.errors import DeadlineExceeded, ZksideError

if TYPE_CHECKING:
    from zkside.client import Client

LOOK_INTERVAL_S = 0.5


@click.command()
@click.option(
    "--within",
    "within_s",
    type=DURATION,
    default="60s",
    show_default=True,
    help="Wait so long. What has not ended by then is told, and the daemon goes on draining.",
)
@pass_invocation
def drain(invocation: Invocation, within_s: float) -> None:
    """Take a daemon out of service, and wait until nothing is left: before an upgrade, or to empty a host.

    New streams and holds are refused, every hold is asked back and released, all streams are told and ended; /readyz
    and the health of the services say so from the first moment (that of the daemon itself, liveness, does not). Reads
    and writes go on. The daemon stays up until SIGTERM; there is no way back but a restart. An owner of a hold that has
    no stream is believed in until its lease is over, so this takes up to one session timeout. What is left is shown on
    standard error while it shrinks.
    """

    async def flow(client: Client) -> None:
        showing = asyncio.create_task(_show(client), name="zkside-drain-progress")
        try:
            answer = await client.admin.drain(timeout_s=within_s)
        except DeadlineExceeded:
            raise DeadlineExceeded(
                f"not drained in {within_s:g} s; it goes on: `zkside admin holds` and `zkside admin streams` tell what "
                "is left, and SIGTERM ends it"
            ) from None
        finally:
            showing.cancel()
            await asyncio.wait([showing])
        if invocation.is_json:
            fields = {"ended_streams": answer.ended_streams, "released_holds": answer.released_holds}
            output.json_line({**fields, **output.header_fields(answer.header)})
        else:
            streams, holds = output.count(answer.ended_streams, "stream"), output.count(answer.released_holds, "hold")
            output.line(f"drained: {streams} ended, {holds} released")

    invocation.run(flow)


async def _show(client: Client) -> None:
    """What is left, whenever it changes; until it is cancelled."""
    told = ""
    while True:
        with contextlib.suppress(ZksideError):
            status = await client.admin.status()
            left = f"{output.count(status.holds, 'hold')}, {output.count(status.streams, 'stream')} left"
            if left != told and (status.holds or status.streams):
                told = left
                print(f"zkside: draining, {left}", file=sys.stderr, flush=True)
        await asyncio.sleep(LOOK_INTERVAL_S)
