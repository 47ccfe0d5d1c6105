"""serve."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from zkside.cli.daemon_options import daemon_options, read_configuration
from zkside.cli.invocation import Invocation, pass_invocation

if TYPE_CHECKING:
    from zkside.config import Config


@click.command()
@daemon_options
@pass_invocation
def serve(invocation: Invocation, config_file: Path | None, **options: Any) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    Every flag is a key of the configuration (docs/configuration.md), which can also be written in a TOML
    file or in the environment; flags win. `--address` is for clients: a daemon listens at `--listen`.
    """
    root = click.get_current_context().find_root()
    if root.get_parameter_source("address") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--address is where clients look for a daemon; it listens at --listen")

    # The first process of a container is sent no signal that it does not catch, and loading takes a while. Nothing has
    # been opened until the daemon puts a handler of its own in the place of this one.
    signal.signal(signal.SIGTERM, _end)

    def body() -> int:
        from zkside.daemon import run

        def read() -> Config:
            return read_configuration(config_file, options).config

        return run(read(), read=read)

    invocation.end(body)


def _end(*_: object) -> NoReturn:
    sys.exit(0)
