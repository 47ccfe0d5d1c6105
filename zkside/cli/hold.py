"""hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zkside.cli.arguments import ACL, DURATION, PATH, data_argument
from zkside.cli.holding import Holder
from zkside.cli.invocation import Invocation, pass_invocation
from zkside.cli.node import FILE
from zkside.cli.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Callable

    from zkside.client import Acl, Client, Held, HoldStatus


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

    Prints its path and fencing token, then every change of its state. Ends with exit code 11 if it is lost, and, if a
    signal comes while it waits (--on-exists), with 128 and the signal's number.
    """
    if wait_timeout_s is not None and on_exists == "fail":
        raise click.UsageError("--timeout goes with --on-exists wait or replace")
    value = data_argument(data, file)

    def make(client: Client, on_update: Callable[[HoldStatus], None]) -> Held:
        from zkside.client import OnExists

        return client.hold_ephemeral(
            path,
            value,
            sequential=sequential,
            make_parents=parents,
            recreate=recreate,
            on_exists=OnExists[on_exists.upper()],
            wait_timeout_s=wait_timeout_s,
            on_update=on_update,
            **terms.of_hold,
        )

    terms = Terms(command=(), grace_s=grace or None, kill_after_s=0.0, wait_for_ready=False, acl=acl)
    Holder(invocation, terms, leased=False).run(make)
