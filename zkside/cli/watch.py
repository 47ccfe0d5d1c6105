"""watch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from zkside.cli import output
from zkside.cli.arguments import DURATION, PATH
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from zkside.client import Client, Gap, Header, Snapshot, WatchedEvent, WatchEvent


@click.command()
@click.argument("paths", type=PATH, nargs=-1, required=True)
@click.option(
    "-s",
    "--scope",
    type=click.Choice(["node", "children", "subtree"]),
    default="node",
    show_default=True,
    help="What of each path.",
)
@click.option("-R", "--recursive", is_flag=True, help="The same as --scope subtree.")
@click.option("--no-data", is_flag=True, help="Only Stats.")
@click.option("--bookmarks", is_flag=True, help="Tell from time to time that nothing is missing.")
@click.option("--events", is_flag=True, help="ZooKeeper's own WatchedEvents instead of states.")
@click.option(
    "--kind",
    type=click.Choice(["exists", "data", "children", "persistent", "persistent_recursive"]),
    default="persistent",
    show_default=True,
    help="With --events: which call sets the watch.",
)
@click.option("--one-shot", is_flag=True, help="With --events: end after the first event of each path.")
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many events.")
@click.option("--for", "duration_s", type=DURATION, help="End after this time.")
@click.option("--wait", is_flag=True, help="Wait for a daemon that is not there yet.")
@pass_invocation
def watch(
    invocation: Invocation,
    paths: tuple[str, ...],
    scope: str,
    recursive: bool,
    no_data: bool,
    bookmarks: bool,
    events: bool,
    kind: str,
    one_shot: bool,
    count: int | None,
    duration_s: float | None,
    wait: bool,
) -> None:
    """Print the present state, then every change, until Ctrl-C.

    Goes on over restarts of the daemon: what was missed comes first. Intermediate values may be left out
    when many come at once; the newest always arrives.
    """

    async def states(client: Client) -> None:
        from zkside.client import Scope

        wanted = Scope.SUBTREE if recursive else Scope[scope.upper()]
        left, currency = count, Currency()
        async with client.watch(
            *paths, scope=wanted, with_data=not no_data, bookmarks=bookmarks, wait_for_ready=wait
        ) as watching:
            async for event in watching:
                for fields, text in _told(event, currency):
                    if invocation.is_json:
                        output.json_line(fields)
                    else:
                        output.line(text)
                left = None if left is None else left - 1
                if left == 0:
                    return

    async def raw_events(client: Client) -> None:
        from zkside.client import WatchKind

        left = count
        async with client.watch_events(
            *paths, kind=WatchKind[kind.upper()], one_shot=one_shot, wait_for_ready=wait
        ) as reading:
            async for event in reading:
                fields, text = _told_event(event)
                if invocation.is_json:
                    output.json_line(fields)
                else:
                    output.line(text)
                left = None if left is None else left - 1
                if left == 0:
                    return

    async def flow(client: Client) -> None:
        try:
            async with asyncio.timeout(duration_s) as limit:
                await (raw_events if events else states)(client)
        except TimeoutError:
            if not limit.expired():
                raise

    invocation.run(flow)


class Currency:
    """What a stream has told of how current it is; so each line can say what has changed."""

    def __init__(self) -> None:
        self._is_stale = False

    def told(self, header: Header) -> str:
        """What is new about it with this header: the end of a line."""
        was_stale, self._is_stale = self._is_stale, header.stale
        if not header.stale:
            return "  current again: nothing is missing" if was_stale else ""
        if was_stale:
            return f"  still stale, {header.age_s:.1f} s old"
        return "  stale from here on: newer states follow as soon as they can be read"


def _told(event: WatchEvent, currency: Currency) -> Iterator[tuple[dict[str, object], str]]:
    """An event as JSON fields and as a line; several for a cut, so that each line is one change."""
    from zkside.client import Bookmark, Changes, SessionChanged, Snapshot

    header = output.header_fields(event.header)
    if isinstance(event, Snapshot):
        nodes = [output.node_fields(node) for node in event.nodes.values()]
        fields = {"event": "SNAPSHOT", "path": event.target.path, "reason": event.reason.name, "nodes": nodes}
        if event.unreadable:
            fields["unreadable"] = sorted(event.unreadable)
        yield {**fields, **header}, _snapshot_text(event, currency.told(event.header))
    elif isinstance(event, Changes):
        for number, change in enumerate(event.changes):
            found = {} if change.node is None else output.node_fields(change.node)
            told: dict[str, object] = {"event": change.type.name, "path": change.path}
            told |= {"change_zxid": change.zxid, "more": number + 1 < len(event.changes), **found}
            data = "" if change.node is None else _short(change.node.data)
            yield {**told, **header}, f"{change.type.name:<9} {change.path}  zxid={change.zxid:#x}{data}"
    elif isinstance(event, SessionChanged):
        session = event.session
        reason = f" ({session.reason})" if session.reason else ""
        text = f"SESSION   {session.state.name} epoch={session.epoch}{reason}{currency.told(event.header)}"
        yield {"event": "SESSION", "session": output.session_fields(session), **header}, text
    elif isinstance(event, Bookmark):
        yield {"event": "BOOKMARK", **header}, f"BOOKMARK  zxid={event.zxid:#x}"


def _snapshot_text(event: Snapshot, currency: str) -> str:
    reason = "" if event.reason.name == "INITIAL" else f" {event.reason.name}"
    if not event.nodes and not event.unreadable:
        return f"SNAPSHOT  {event.target.path}  zxid={event.zxid:#x}{reason}  absent{currency}"
    lines = [
        f"SNAPSHOT  {event.target.path}  zxid={event.zxid:#x}{reason}  {output.count(len(event.nodes), 'node')}"
        + currency
    ]
    lines += [f"          {path}{_short(node.data)}" for path, node in event.nodes.items()]
    lines += [f"          {path}  may not be read" for path in sorted(event.unreadable)]
    return "\n".join(lines)


def _short(data: bytes) -> str:
    return f"  {output.short(data)}" if data else ""


def _told_event(event: WatchedEvent | Gap) -> tuple[dict[str, object], str]:
    from zkside.client import Gap

    if isinstance(event, Gap):
        dropped = f", {output.count(event.dropped, 'event')}" if event.dropped else ""
        fields: dict[str, object] = {"event": "GAP", "reason": event.reason.name, "dropped": event.dropped}
        return fields, f"GAP {event.reason.name}{dropped}: read again what you rely on"
    fields = {"event": event.type.name, "state": event.state.name, "path": event.path, "zxid": event.zxid}
    zxid = f"  zxid={event.zxid:#x}" if event.zxid else ""
    return fields, f"{event.type.name:<22} {event.path or '-'}  {event.state.name}{zxid}"
