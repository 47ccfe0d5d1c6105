"""log-level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zkside.cli import output
from zkside.cli.arguments import DURATION
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from zkside.client import Client


@click.command("log-level")
@click.argument("level", required=False, type=click.Choice(["debug", "info", "warning", "error", "default"]))
@click.option("--for", "for_s", type=DURATION, help="Back to what the configuration says after so long.")
@click.option("--logger", default="", metavar="NAME", help="One logger, such as zkside.session or kazoo. Default: all.")
@pass_invocation
def log_level(invocation: Invocation, level: str | None, for_s: float | None, logger: str) -> None:
    """Show what the daemon logs, or change it while it runs.

    LEVEL is the least that is written: debug, info, warning or error; `default` is back to what the configuration says
    (`log.level`). A logger is the first part of an event's name: `zkside.hold` writes hold.granted and hold.ended. A
    restart forgets what was set.
    """
    if level is None and (for_s or logger):
        raise click.UsageError("--for and --logger need a LEVEL")
    if level == "default" and for_s:
        raise click.UsageError("back to the configuration is for good: leave --for out")

    async def flow(client: Client) -> None:
        if level is None:
            levels = await client.admin.log_levels()
        else:
            wanted = "" if level == "default" else level
            levels = await client.admin.set_log_level(wanted, logger=logger, for_s=for_s or 0.0)
        for each in levels:
            if invocation.is_json:
                output.json_line({"logger": each.logger, "level": each.level, "back_in_s": each.back_in_s})
            else:
                back = f"  for {each.back_in_s:.0f} s more" if each.back_in_s else ""
                output.line(f"{each.level:<8} {each.logger or 'all loggers'}{back}")

    invocation.run(flow)
