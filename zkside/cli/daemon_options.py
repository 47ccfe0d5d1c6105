"""The flags of `serve` and `dev`, made from the keys of the configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zkside.config_keys import KEYS, Key

if TYPE_CHECKING:
    from zkside.config_source import Reading

CONFIG_OPTION = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A TOML file. Default: $ZKSIDE_CONFIG, then /etc/zkside/zkside.toml if it exists.",
)


def parameter_of(name: str) -> str:
    """The name of a key's parameter in a command."""
    return name.replace(".", "__")


def daemon_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config` and one flag for each key; secrets are given by file, never on the command line."""
    return daemon_options_but(())(function)


def daemon_options_but(refused: Collection[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add them; the flags of these keys are taken, but not shown, so that the command can say why it refuses them."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        for key in reversed(KEYS.values()):
            function = _option(key, hidden=key.name in refused)(function)
        return CONFIG_OPTION(function)

    return declare


def _option(key: Key, *, hidden: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    if key.is_secret:
        return click.option(
            f"{key.flag}-file",
            parameter_of(key.name) + "_file",
            default=None,
            metavar="FILE",
            hidden=hidden,
            help=f"{key.help} Read from this file.",
        )
    return click.option(
        key.flag,
        parameter_of(key.name),
        default=None,
        hidden=hidden,
        metavar=key.kind.accepts.upper() if len(key.kind.accepts) < 12 else "VALUE",
        help=f"{key.help} ({key.kind.accepts}; default {key.kind.show(key.default)})",
    )


def read_configuration(config_file: Path | None, options: dict[str, Any]) -> Reading:
    """The configuration from file, environment and these flags. Raises: StartError with all that is wrong."""
    from zkside.config_source import read

    flags = {name.replace("__", "."): value for name, value in options.items()}
    return read(file=config_file, environment=os.environ, flags=flags)
