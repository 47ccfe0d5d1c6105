"""members."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from zkside.cli import output
from zkside.cli.arguments import DURATION, PATH
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zkside.client import Client, GroupView, Member


@click.command()
@click.argument("group", type=PATH)
@click.option("--watch", is_flag=True, help="Then every change, until Ctrl-C.")
@click.option(
    "--min-kept",
    type=click.FloatRange(0, 1, min_open=True),
    help="With --watch: hold back a sudden loss that leaves less than this part of the members.",
)
@click.option("-n", "--count", type=click.IntRange(1), help="With --watch: end after so many views.")
@click.option("--for", "duration_s", type=DURATION, help="With --watch: end after this time.")
@click.option("--wait", is_flag=True, help="Wait for a daemon that is not there yet.")
@pass_invocation
def members(
    invocation: Invocation,
    group: str,
    watch: bool,
    min_kept: float | None,
    count: int | None,
    duration_s: float | None,
    wait: bool,
) -> None:
    """Print the members of GROUP, sorted by their ids; with --watch who joins, leaves and changes too."""

    async def listing(client: Client) -> None:
        answer = await client.group(group, wait_for_ready=wait)
        if not invocation.is_json:
            output.stale_note(answer.header)
        for member in answer:
            if invocation.is_json:
                output.json_line({**output.member_fields(member), **output.header_fields(answer.header)})
            else:
                output.line(_text(member))

    async def watching(client: Client) -> None:
        from zkside.client import ShrinkGuard

        guard = None if min_kept is None else ShrinkGuard(min_kept=min_kept)
        left, is_first, was_stale = count, True, False
        async with client.watch_group(group, shrink_guard=guard, wait_for_ready=wait) as reading:
            async for view in reading:
                if invocation.is_json:
                    output.json_line(_fields(view))
                else:
                    for line in _lines(view, is_first=is_first, was_stale=was_stale):
                        output.line(line)
                is_first, was_stale = False, view.stale
                left = None if left is None else left - 1
                if left == 0:
                    return

    async def flow(client: Client) -> None:
        try:
            async with asyncio.timeout(duration_s) as limit:
                await (watching if watch else listing)(client)
        except TimeoutError:
            if not limit.expired():
                raise

    invocation.run(flow)


def _fields(view: GroupView) -> dict[str, object]:
    withheld = view.withheld
    told = None if withheld is None else {"published": withheld.published, "present": withheld.present}
    return {
        "members": [output.member_fields(member) for member in view],
        "joined": [member.member_id for member in view.joined],
        "left": [member.member_id for member in view.left],
        "changed": [member.member_id for member in view.changed],
        "withheld": told,
        "watch_id": view.watch_id,
        **output.header_fields(view.header),
    }


def _lines(view: GroupView, *, is_first: bool, was_stale: bool) -> Iterator[str]:
    if is_first:
        yield f"MEMBERS  {len(view)}"
    if view.stale and not was_stale:
        yield "STALE    ZooKeeper cannot be reached: others may have come or gone since"
    elif was_stale and not view.stale:
        yield "CURRENT  again"
    for word, changed in (("JOINED", view.joined), ("LEFT", view.left), ("CHANGED", view.changed)):
        for member in changed:
            yield f"{word:<8} {_text(member)}"
    if view.withheld is not None:
        yield f"WITHHELD {view.withheld.present} of {view.withheld.published} members are there"


def _text(member: Member) -> str:
    shown = f"  {output.short(member.data)}" if member.data else ""
    return f"{member.member_id}  fencing token {member.fencing_token}{shown}"
