"""lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zkside.cli.arguments import PATH
from zkside.cli.holding import Holder, own_name
from zkside.cli.invocation import Invocation, pass_invocation
from zkside.cli.terms import Terms, holding_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from zkside.client import Client, Held, HoldStatus


@click.command()
@click.argument("path", type=PATH)
@click.option("-s", "--shared", is_flag=True, help="With other readers; excludes who holds it exclusively.")
@click.option("--permits", type=click.IntRange(1), help="A semaphore of so many.")
@click.option("--owner", help="Who holds it, for `zkside who`. Default: host and process.")
@click.option(
    "--layout",
    type=click.Choice(["curator", "curator-read-write", "kazoo"]),
    default="curator",
    show_default=True,
    help="Under which names to queue, so with whom.",
)
@click.option("--revocable", is_flag=True, help="End when somebody asks for the lock, as Curator's Revoker does.")
@holding_options(queues=True)
@pass_invocation
def lock(
    invocation: Invocation,
    path: str,
    shared: bool,
    permits: int | None,
    owner: str | None,
    layout: str,
    revocable: bool,
    terms: Terms,
) -> None:
    """Run COMMAND while holding the lock on PATH; without COMMAND hold it until a signal.

    Exits as the command does, with 15 if the lock was not granted in time, and with 11 if it was lost, or in
    danger, and the command was ended for that. In the command's environment: ZKSIDE_PATH,
    ZKSIDE_FENCING_TOKEN, ZKSIDE_HOLD_ID, ZKSIDE_ADDRESS.
    """
    if shared and permits:
        raise click.UsageError("give --shared or --permits, not both")

    def make(client: Client, on_update: Callable[[HoldStatus], None]) -> Held:
        from zkside.client import LockLayout

        return client.lock(
            path,
            shared=shared,
            permits=permits or 0,
            wait_timeout_s=terms.wait_timeout_s,
            owner=own_name() if owner is None else owner,
            layout=LockLayout[layout.upper().replace("-", "_")],
            revocable=revocable,
            on_update=on_update,
            **terms.of_hold,
        )

    Holder(invocation, terms, leased=True).run(make)
