"""admin holds, watches, streams, drain."""

from __future__ import annotations

from copy import copy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from zkside.cli import output
from zkside.cli.drain import drain
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from zkside.client import Client


@click.group()
def admin() -> None:
    """Look into the daemon: holds, watches, streams; drain it."""


@admin.command()
@pass_invocation
def holds(invocation: Invocation) -> None:
    """List what local processes hold."""

    async def flow(client: Client) -> None:
        for info in await client.admin.holds():
            held = info.hold
            if invocation.is_json:
                output.json_line(
                    {
                        "hold_id": held.hold_id,
                        "recipe": info.recipe,
                        "path": held.path,
                        "state": held.state.name,
                        "fencing_token": held.fencing_token,
                        "epoch": held.epoch,
                        "age_s": info.age_s,
                        "attached": info.attached,
                    }
                )
            else:
                owner = "" if info.attached else "  waits for its process"
                output.line(
                    f"{held.state.name:<9} {info.recipe:<10} {held.path}  "
                    f"token {held.fencing_token}  {info.age_s:.0f} s{owner}"
                )

    invocation.run(flow)


@admin.command()
@pass_invocation
def watches(invocation: Invocation) -> None:
    """List the watches that the daemon has on the server."""

    async def flow(client: Client) -> None:
        for info in await client.admin.watches():
            fields: dict[str, Any] = asdict(info)
            if invocation.is_json:
                output.json_line(fields)
            else:
                kind = "recursive" if info.recursive else "node"
                output.line(
                    f"{kind:<9} {info.path}  {output.count(info.subscribers, 'subscriber')}, "
                    f"{output.count(info.cached_nodes, 'node')}" + ("  stale" if info.stale else "")
                )

    invocation.run(flow)


@admin.command()
@pass_invocation
def streams(invocation: Invocation) -> None:
    """List the open streams of the daemon."""

    async def flow(client: Client) -> None:
        for info in await client.admin.streams():
            fields: dict[str, Any] = asdict(info)
            if invocation.is_json:
                output.json_line(fields)
            else:
                output.line(f"{info.method}  {info.peer}  {info.age_s:.0f} s, {info.sent} sent, {info.pending} waiting")

    invocation.run(flow)


admin.add_command(copy(drain))
