"""stat, ls, tree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

import click

from zkside.cli import exits, output
from zkside.cli.arguments import PATH
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from zkside.client import Client, Node


def _join(path: str, name: str) -> str:
    return f"/{name}" if path == "/" else f"{path}/{name}"


class Unreadable(NamedTuple):
    """A node that is there, and may not be read."""

    path: str


async def children_of(client: Client, path: str) -> AsyncIterator[Node | Unreadable]:
    """The children with their Stat, in order; those that vanish meanwhile are left out."""
    async for page in client.children_pages(path, with_nodes=True):
        for name in page.names:
            node = page.nodes.get(name)
            if node is not None:
                yield node
            elif name in page.unreadable:
                yield Unreadable(f"{path.rstrip('/')}/{name}")


async def descendants_of(client: Client, path: str) -> AsyncIterator[Node | Unreadable]:
    """All below a path, parents first. Leaves cost no call. What vanishes meanwhile is left out."""
    from zkside.errors import NoNode

    async for node in children_of(client, path):
        yield node
        if not isinstance(node, Unreadable) and node.stat.num_children:
            try:
                async for below in descendants_of(client, node.path):
                    yield below
            except NoNode:
                continue


UNSIGNED = 0xFFFF_FFFF_FFFF_FFFF
"""A session id is 64 bits without a sign, and begins with the number of its server."""


@click.command()
@click.argument("path", type=PATH)
@pass_invocation
def stat(invocation: Invocation, path: str) -> None:
    """Print a node's Stat: ZooKeeper's eleven fields."""

    async def flow(client: Client) -> int:
        answer = await client.exists(path)
        if invocation.is_json:
            found = {"stat": output.stat_fields(answer.stat)} if answer.stat is not None else {}
            fields = {"path": path, "exists": bool(answer), **found}
            output.json_line({**fields, **output.header_fields(answer.header)})
            return exits.OK if answer else exits.NOT_FOUND
        if answer.stat is None:
            click.echo(f"zkside: the node {path} does not exist", err=True)
            return exits.NOT_FOUND
        output.stale_note(answer.header)
        for name, value in answer.stat._asdict().items():
            shown = str(value)
            if name in ("czxid", "mzxid", "pzxid", "ephemeral_owner"):
                shown = f"{value & UNSIGNED:#x}"
            elif name in ("ctime", "mtime"):
                shown = output.time_of(value)
            output.line(f"{name:<16}{shown}")
        return exits.OK

    invocation.run(flow)


@click.command()
@click.argument("path", type=PATH, default="/")
@click.option("-R", "--recursive", is_flag=True, help="All below it, with whole paths.")
@click.option("-l", "--long", is_flag=True, help="With version, size, children, time and owner.")
@pass_invocation
def ls(invocation: Invocation, path: str, recursive: bool, long: bool) -> None:
    """List the children of a node (of / without PATH)."""

    def show(node: Node | Unreadable, name: str) -> None:
        if isinstance(node, Unreadable):
            if invocation.is_json:
                output.json_line({"path": node.path, "unreadable": True})
            else:
                output.line(f"{'':<52}may not be read  {name}" if long else name)
        elif invocation.is_json:
            output.json_line({"path": node.path, "stat": output.stat_fields(node.stat)})
        elif long:
            one = node.stat
            kind = "ephemeral" if one.ephemeral_owner else "-"
            output.line(
                f"{kind:<9} v{one.version:<5} {one.data_length:>8} B {one.num_children:>6} "
                f"{output.time_of(one.mtime)}  {name}"
            )
        else:
            output.line(name)

    async def flow(client: Client) -> None:
        if not (recursive or long or invocation.is_json):
            async for page in client.children_pages(path):
                for name in page.names:
                    output.line(name)
            return
        nodes = descendants_of(client, path) if recursive else children_of(client, path)
        async for node in nodes:
            show(node, node.path if recursive else node.path[node.path.rfind("/") + 1 :])

    invocation.run(flow)


@click.command()
@click.argument("path", type=PATH, default="/")
@click.option("-d", "--depth", type=click.IntRange(1), help="So many levels only.")
@click.option("--data", "with_data", is_flag=True, help="Show short data behind the names.")
@pass_invocation
def tree(invocation: Invocation, path: str, depth: int | None, with_data: bool) -> None:
    """Draw the subtree below a node."""

    async def draw(client: Client, parent: str, indent: str, level: int) -> None:
        from zkside.errors import NoNode

        nodes = [node async for node in children_of(client, parent)]
        for node in nodes:
            last = node is nodes[-1]
            label = node.path[node.path.rfind("/") + 1 :]
            if isinstance(node, Unreadable):
                output.line(f"{indent}{'└── ' if last else '├── '}{label} (may not be read)")
                continue
            if node.stat.ephemeral_owner:
                label += " (ephemeral)"
            if with_data and node.data:
                shown = output.text_of(node.data[:61]).replace("\n", "\\n")
                label += f" = {shown[:60]}{'…' if len(node.data) > 60 else ''}"
            output.line(f"{indent}{'└── ' if last else '├── '}{label}")
            if node.stat.num_children and (depth is None or level < depth):
                try:
                    await draw(client, node.path, indent + ("    " if last else "│   "), level + 1)
                except NoNode:
                    continue

    async def as_json(client: Client) -> None:
        root = await client.get(path)
        output.json_line(output.node_fields(root.node))
        async for node in descendants_of(client, path):
            if depth is None or node.path.count("/") - path.rstrip("/").count("/") <= depth:
                if isinstance(node, Unreadable):
                    output.json_line({"path": node.path, "unreadable": True})
                else:
                    output.json_line(output.node_fields(node))

    async def flow(client: Client) -> None:
        if invocation.is_json:
            await as_json(client)
            return
        output.line(path)
        await draw(client, path, "", 1)

    invocation.run(flow)
