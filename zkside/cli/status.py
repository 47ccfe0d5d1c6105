"""status, health."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from zkside.cli import exits, output
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from zkside.client import Client, Session


def lease_text(session: Session) -> str:
    """How much of the lease is left."""
    if not session.lease_boottime_ns:
        return "nothing held, nothing proven"
    left_s = (session.lease_monotonic_ns - time.monotonic_ns()) / 1e9
    return f"{left_s:.1f} s left" if left_s > 0 else f"over since {-left_s:.1f} s"


def last_error_text(session: Session) -> str:
    """What stood in the way of connecting when it last failed, and when that was."""
    age_s = time.time() - session.last_error_unix_s
    return f"{session.last_error} ({max(0.0, age_s):.0f} s ago)" if session.last_error else "none"


@click.command()
@pass_invocation
def status(invocation: Invocation) -> None:
    """Show the daemon and its session in figures."""

    async def flow(client: Client) -> None:
        answer = await client.admin.status()
        session = answer.session
        if invocation.is_json:
            output.json_line(
                {
                    "address": client.address,
                    "version": answer.version,
                    "backend": answer.backend,
                    "uptime_s": answer.uptime_s,
                    "draining": answer.draining,
                    "holds": answer.holds,
                    "streams": answer.streams,
                    "server_watches": answer.server_watches,
                    "cached_nodes": answer.cached_nodes,
                    "cached_bytes": answer.cached_bytes,
                    "session": output.session_fields(session),
                }
            )
            return
        reason = f" ({session.reason})" if session.reason and session.state.name != "CONNECTED" else ""
        draining = ", draining" if answer.draining else ""
        rows = {
            "daemon": f"zkside {answer.version} at {client.address}, up {answer.uptime_s:.0f} s{draining}",
            "backend": answer.backend,
            "session": f"{session.state.name} {session.session_id} epoch {session.epoch}{reason}",
            "server": f"{session.server or 'none'}, timeout {session.timeout_s:g} s",
            "last error": last_error_text(session),
            "last zxid": f"{session.last_zxid:#x}",
            "lease": lease_text(session),
            "holds": str(answer.holds),
            "streams": str(answer.streams),
            "watches": f"{answer.server_watches} on the server",
            "cache": f"{output.count(answer.cached_nodes, 'node')}, {output.count(answer.cached_bytes, 'byte')}",
        }
        for name, text in rows.items():
            output.line(f"{name:<10} {text}")

    invocation.run(flow)


@click.command()
@click.option("-s", "--service", default="", help="One service, such as zkside.v1.NodeService.")
@pass_invocation
def health(invocation: Invocation, service: str) -> None:
    """Exit with 0 if the daemon serves, with 8 if it does not or cannot be reached."""

    async def flow(client: Client) -> int:
        answer = await client.health(service)
        if invocation.is_json:
            output.json_line({"service": service, "status": answer.name})
        else:
            output.line(answer.name)
        return exits.OK if answer.name == "SERVING" else exits.UNAVAILABLE

    invocation.run(flow)
