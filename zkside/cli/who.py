"""who."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zkside.cli import exits, output
from zkside.cli.arguments import PATH
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from zkside.client import Client, Contender


@click.command()
@click.argument("path", type=PATH)
@click.option("--semaphore", is_flag=True, help="The permits that are taken, then the queue for the next.")
@pass_invocation
def who(invocation: Invocation, path: str, semaphore: bool) -> None:
    """Tell who holds the lock on PATH, or leads there, and who waits, in the order of the queue.

    Exits with 0 if somebody does, with 3 if nobody does.
    """

    async def flow(client: Client) -> int:
        contenders = await client.contenders(path, semaphore=semaphore)
        if invocation.is_json:
            found = [output.contender_fields(one) for one in contenders]
            output.json_line({"path": path, "contenders": found, **output.header_fields(contenders.header)})
        else:
            output.stale_note(contenders.header)
            for one in contenders:
                output.line(contender_text(one))
        return exits.OK if contenders.holders else exits.NOT_FOUND

    invocation.run(flow)


def contender_text(one: Contender) -> str:
    """A line for people."""
    state = "waits" if not one.is_holder else "reads" if one.is_shared else "holds"
    value = f"  {output.short(one.value)}" if one.value else ""
    return f"{state}  {one.path}  fencing token {one.fencing_token}  session {one.session_id}{value}"
