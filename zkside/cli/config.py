"""config check, config print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zkside.cli import exits, output
from zkside.cli.daemon_options import daemon_options, read_configuration
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from zkside.client import Client


@click.group()
def config() -> None:
    """Check or print the daemon's configuration: file, environment and flags, as `serve` would read them; or let a
    running daemon read it again."""


@config.command()
@daemon_options
@pass_invocation
def check(invocation: Invocation, config_file: Path | None, **options: Any) -> None:
    """Exit with 0 if `serve` could use it; otherwise tell all that is wrong, and exit with 14."""

    def body() -> None:
        reading = read_configuration(config_file, options)
        if invocation.is_json:
            output.json_line({"valid": True, "origins": dict(reading.origins)})
        else:
            count = len(reading.origins)
            said = (
                f"{output.count(count, 'key')} {'is' if count == 1 else 'are'} not at " if count else "every key is at "
            )
            output.line(f"valid; {said}{'their' if count > 1 else 'its'} default")

    invocation.end(body)


@config.command("reload")
@pass_invocation
def reload_(invocation: Invocation) -> None:
    """Let the running daemon read its configuration again, as SIGHUP does; exit with 14 if it cannot be used.

    It reads the file that it was started with, with the environment and the flags of that time, and the certificates,
    tokens and policy that it names. What can change while it runs has its effect at once (docs/configuration.md says
    of each key whether it can); the keys that need a restart are named. A configuration that is wrong changes nothing.
    """

    async def flow(client: Client) -> int:
        told = await client.admin.reload_config()
        if invocation.is_json:
            output.json_line(
                {
                    "applied": told.applied,
                    "needs_restart": told.needs_restart,
                    "refused": told.refused,
                    "read_again": told.read_again,
                    "problems": told.problems,
                }
            )
        elif not told.problems:
            output.line(f"in force now: {', '.join(told.applied) or 'nothing has changed'}")
            if told.read_again:
                output.line(f"files read again: {', '.join(told.read_again)}")
            if told.needs_restart:
                output.line(f"after a restart: {', '.join(told.needs_restart)}")
        if not invocation.is_json:
            for problem in (*told.problems, *told.refused):
                print(f"zkside: {problem}", file=sys.stderr)
        return exits.CANNOT_START if told.problems else exits.ERROR if told.refused else exits.OK

    invocation.run(flow)


@config.command("print")
@daemon_options
@pass_invocation
def print_(invocation: Invocation, config_file: Path | None, **options: Any) -> None:
    """Print what is in force as TOML, with the origin of each value; secrets are left out."""

    def body() -> None:
        from zkside.config_keys import KEYS, flatten
        from zkside.config_source import printed

        reading = read_configuration(config_file, options)
        if not invocation.is_json:
            output.line(printed(reading).rstrip("\n"))
            return
        for name, value in flatten(reading.config).items():
            shown = "(secret)" if KEYS[name].is_secret and value else KEYS[name].kind.show(value)
            output.json_line({"key": name, "value": shown, "origin": reading.origins.get(name, "default")})

    invocation.end(body)


def local() -> str:
    """As `config print` shows it; for a daemon of this machine that is started with no flags. Raises: StartError."""
    from zkside.config_source import printed

    return printed(read_configuration(None, {}))
