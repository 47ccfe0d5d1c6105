"""acl get, acl set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zkside.cli import output
from zkside.cli.arguments import ACL, PATH, acl_text
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from zkside.client import Acl, Client


@click.group()
def acl() -> None:
    """Read or replace a node's access control list."""


@acl.command("get")
@click.argument("path", type=PATH)
@pass_invocation
def get_acl(invocation: Invocation, path: str) -> None:
    """Print the entries, as `acl set` takes them."""

    async def flow(client: Client) -> None:
        answer = await client.get_acl(path)
        if invocation.is_json:
            entries = [dict(entry._asdict()) for entry in answer.acl]
            fields = {"path": path, "acl": entries, "aversion": answer.stat.aversion}
            output.json_line({**fields, **output.header_fields(answer.header)})
            return
        for entry in answer.acl:
            output.line(acl_text(entry))

    invocation.run(flow)


@acl.command("set")
@click.argument("path", type=PATH)
@click.argument("entries", type=ACL, nargs=-1, required=True)
@click.option("--version", type=int, help="Only if the list has this version (the Stat's aversion).")
@pass_invocation
def set_acl(invocation: Invocation, path: str, entries: tuple[Acl, ...], version: int | None) -> None:
    """Replace the list by ENTRIES, each scheme:id:permissions, such as world:anyone:r."""

    async def flow(client: Client) -> None:
        answer = await client.set_acl(path, entries, version=version)
        if invocation.is_json:
            fields = {"path": path, "stat": output.stat_fields(answer.stat)}
            output.json_line({**fields, **output.header_fields(answer.header)})

    invocation.run(flow)
