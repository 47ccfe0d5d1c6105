"""config check, config print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zkside.cli import output
from zkside.cli.daemon_options import daemon_options, read_configuration
from zkside.cli.invocation import Invocation, pass_invocation


@click.group()
def config() -> None:
    """Check or print the daemon's configuration: file, environment and flags, as `serve` would read them."""


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
            output.line(f"valid; {len(reading.origins)} keys are not at their default")

    invocation.end(body)


@config.command("print")
@daemon_options
@pass_invocation
def print_(invocation: Invocation, config_file: Path | None, **options: Any) -> None:
    """Print what is in force as TOML, with the origin of each value; secrets are left out."""

    def body() -> None:
        from zkside.config import KEYS, flatten
        from zkside.config_source import printed

        reading = read_configuration(config_file, options)
        if not invocation.is_json:
            output.line(printed(reading).rstrip("\n"))
            return
        for name, value in flatten(reading.config).items():
            shown = "(secret)" if KEYS[name].is_secret and value else KEYS[name].kind.show(value)
            output.json_line({"key": name, "value": shown, "origin": reading.origins.get(name, "default")})

    invocation.end(body)
