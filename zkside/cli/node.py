"""get, set, create, delete."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zkside.cli import exits, output
from zkside.cli.arguments import ACL, DURATION, PATH, data_argument
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from zkside.client import Acl, Client

FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


@click.command()
@click.argument("paths", type=PATH, nargs=-1, required=True)
@click.option("--raw", is_flag=True, help="The bytes as they are, without a newline.")
@click.option("--min-zxid", type=int, default=0, help="See at least this transaction.")
@click.option("--max-stale", type=DURATION, help="Refuse an older answer of the cache.")
@pass_invocation
def get(invocation: Invocation, paths: tuple[str, ...], raw: bool, min_zxid: int, max_stale: float | None) -> None:
    """Print a node's data; of several nodes, as of one moment, a line each.

    What is no text is escaped; --raw prints the very bytes.
    """
    if raw and (len(paths) > 1 or invocation.is_json):
        raise click.UsageError("--raw is for one path, and not for -o json")

    async def one(client: Client) -> None:
        answer = await client.get(paths[0], min_zxid=min_zxid, max_stale_s=max_stale)
        if invocation.is_json:
            output.json_line({**output.node_fields(answer.node), **output.header_fields(answer.header)})
            return
        output.stale_note(answer.header)
        if raw:
            output.raw(answer.data)
        else:
            output.line(output.text_of(answer.data).removesuffix("\n"))

    async def several(client: Client) -> int:
        answer = await client.get_many(paths, min_zxid=min_zxid, max_stale_s=max_stale)
        if not invocation.is_json:
            output.stale_note(answer.header)
        code = exits.OK
        for path in paths:
            node = answer[path]
            if invocation.is_json:
                found = {"path": path, "exists": False} if node is None else output.node_fields(node)
                output.json_line({**found, **output.header_fields(answer.header)})
            elif node is not None:
                output.line(f"{path}\t{output.text_of(node.data)}")
            if node is None:
                code = exits.NOT_FOUND
                if not invocation.is_json:
                    print(f"zkside: the node {path} does not exist", file=sys.stderr)
        return code

    invocation.run(one if len(paths) == 1 else several)


@click.command("set")
@click.argument("path", type=PATH)
@click.argument("data", required=False)
@click.option("-f", "--file", type=FILE, help="Take the data from this file; '-' is standard input.")
@click.option("--version", type=int, help="Only if the node has this version.")
@pass_invocation
def set_(invocation: Invocation, path: str, data: str | None, file: Path | None, version: int | None) -> None:
    """Replace a node's data with DATA; '-' takes it from standard input."""
    if data is None and file is None:
        raise click.UsageError("give the data as an argument, with --file, or as '-' for standard input")
    value = data_argument(data, file)

    async def flow(client: Client) -> None:
        answer = await client.set(path, value, version=version)
        if invocation.is_json:
            fields = {"path": path, "stat": output.stat_fields(answer.stat)}
            output.json_line({**fields, **output.header_fields(answer.header)})

    invocation.run(flow)


@click.command()
@click.argument("path", type=PATH)
@click.argument("data", required=False)
@click.option("-f", "--file", type=FILE, help="Take the data from this file; '-' is standard input.")
@click.option("-p", "--parents", is_flag=True, help="Create absent parents too (not atomic).")
@click.option("-s", "--sequential", is_flag=True, help="Let ZooKeeper add a number to the name.")
@click.option("--container", is_flag=True, help="Deleted by the server some time after its last child.")
@click.option("--ttl", type=DURATION, help="Deleted by the server when unchanged and childless for so long.")
@click.option("--daemon-lifetime", is_flag=True, help="Ephemeral: lives as long as the daemon's session.")
@click.option("--protected", is_flag=True, help="Prefix a unique name, so that a lost answer can be resolved.")
@click.option("--acl", type=ACL, multiple=True, help="scheme:id:permissions, repeatable. Default: the daemon's.")
@pass_invocation
def create(
    invocation: Invocation,
    path: str,
    data: str | None,
    file: Path | None,
    parents: bool,
    sequential: bool,
    container: bool,
    ttl: float | None,
    daemon_lifetime: bool,
    protected: bool,
    acl: tuple[Acl, ...],
) -> None:
    """Create a node with DATA ('-': from standard input), and print its path.

    An ephemeral node that lives as long as a process: `zkside hold`.
    """
    if sum((container, ttl is not None, daemon_lifetime)) > 1:
        raise click.UsageError("--container, --ttl and --daemon-lifetime exclude one another")
    if container and sequential:
        raise click.UsageError("ZooKeeper has no sequential containers")
    value = data_argument(data, file)

    async def flow(client: Client) -> None:
        from zkside.client import CreateMode

        kind = "PERSISTENT"
        if container:
            kind = "CONTAINER"
        elif daemon_lifetime:
            kind = "EPHEMERAL"
        mode = CreateMode[kind + ("_SEQUENTIAL" if sequential else "") + ("_WITH_TTL" if ttl is not None else "")]
        answer = await client.create(
            path,
            value,
            mode=mode,
            ttl_s=ttl,
            acl=acl,
            make_parents=parents,
            daemon_lifetime=daemon_lifetime,
            protected=protected,
        )
        if invocation.is_json:
            stat = None if answer.stat is None else output.stat_fields(answer.stat)
            output.json_line({"path": answer.path, "stat": stat, **output.header_fields(answer.header)})
        else:
            output.line(answer.path)

    invocation.run(flow)


@click.command()
@click.argument("path", type=PATH)
@click.option("-r", "--recursive", is_flag=True, help="All below it too, deepest first (not atomic).")
@click.option("--version", type=int, help="Only if the node has this version.")
@pass_invocation
def delete(invocation: Invocation, path: str, recursive: bool, version: int | None) -> None:
    """Delete a node."""
    if recursive and version is not None:
        raise click.UsageError("--version is not for --recursive")

    async def flow(client: Client) -> None:
        answer = await client.delete(path, version=version, recursive=recursive)
        if invocation.is_json:
            output.json_line({"path": path, "deleted": answer.deleted, **output.header_fields(answer.header)})
        elif recursive:
            output.line(f"{output.count(answer.deleted, 'node')} deleted")

    invocation.run(flow)
