"""elect."""

from __future__ import annotations

import os
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
@click.option("--id", "candidate_id", help="Names the candidate. Default: host and process.")
@click.option("--value", default="", help="What observers are told, such as the address to call. Default: the id.")
@click.option(
    "--layout",
    type=click.Choice(["latch", "lock", "kazoo"]),
    default="latch",
    show_default=True,
    help="Under which names to stand, so with whom.",
)
@click.option("--again", is_flag=True, help="Stand again when the command has ended or the leadership was lost.")
@holding_options(queues=True)
@pass_invocation
def elect(
    invocation: Invocation,
    path: str,
    candidate_id: str | None,
    value: str,
    layout: str,
    again: bool,
    terms: Terms,
) -> None:
    """Stand for election on PATH, and run COMMAND while leading; without COMMAND lead until a signal.

    Exits as `zkside lock` does. With --again it goes on until a signal, also while there is no daemon.
    """

    def make(client: Client, on_update: Callable[[HoldStatus], None]) -> Held:
        from zkside.client import ElectionLayout

        options = terms.of_hold | ({"wait_for_ready": True} if again else {})
        return client.campaign(
            path,
            candidate_id=own_name() if candidate_id is None else candidate_id,
            value=os.fsencode(value),
            layout=ElectionLayout[layout.upper()],
            wait_timeout_s=terms.wait_timeout_s,
            on_update=on_update,
            **options,
        )

    Holder(invocation, terms, leased=True, again=again).run(make)
