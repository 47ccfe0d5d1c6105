"""The options of all commands: `zkside -o json get /a` and `zkside get /a -o json` are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from zkside.cli.arguments import DURATION
from zkside.cli.output import Format

GLOBAL_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "address": (
        ("-a", "--address"),
        {"envvar": "ZKSIDE_ADDRESS", "help": "Of the daemon: unix:/path or host:port. Default: its usual socket."},
    ),
    "ca": (
        ("--ca",),
        {"envvar": "ZKSIDE_CA", "metavar": "FILE", "help": "Authorities to trust: speak TLS to host:port."},
    ),
    "cert": (
        ("--cert",),
        {"envvar": "ZKSIDE_CERT", "metavar": "FILE", "help": "The certificate to show to the daemon."},
    ),
    "key": (("--key",), {"envvar": "ZKSIDE_KEY", "metavar": "FILE", "help": "Its private key."}),
    "server_name": (
        ("--server-name",),
        {"envvar": "ZKSIDE_SERVER_NAME", "metavar": "NAME", "help": "What the daemon's certificate must name."},
    ),
    "token_file": (
        ("--token-file",),
        {"envvar": "ZKSIDE_TOKEN_FILE", "metavar": "FILE", "help": "With the bearer token to show to the daemon."},
    ),
    "output": (
        ("-o", "--output"),
        {
            "type": click.Choice([one.value for one in Format]),
            "default": Format.TEXT.value,
            "help": "JSON is one object a line.",
        },
    ),
    "timeout": (
        ("-t", "--timeout"),
        {"type": DURATION, "default": "10s", "show_default": True, "help": "Of each call."},
    ),
    "consistency": (
        ("-c", "--consistency"),
        {
            "type": click.Choice(["cached", "server", "linearizable"]),
            "default": "server",
            "show_default": True,
            "help": "Of reads.",
        },
    ),
}


def global_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare them on the root command."""
    for names, settings in reversed(GLOBAL_OPTIONS.values()):
        function = click.option(*names, **settings)(function)
    return function


def accept_global_options(command: click.Command) -> None:
    """Let a command take them too, unseen in its help; what stands behind the command wins. Idempotent.

    A command that has such an option itself, with another meaning, keeps it."""
    if isinstance(command, click.Group):
        for nested in command.commands.values():
            accept_global_options(nested)
        return
    if any(parameter.name == "global_output" for parameter in command.params):
        return
    own = {name for parameter in command.params for name in parameter.opts}
    for name, (names, settings) in GLOBAL_OPTIONS.items():
        if not own.isdisjoint(names):
            continue
        command.params.append(
            click.Option(
                [*names, f"global_{name}"],
                type=settings.get("type"),
                expose_value=False,
                hidden=True,
                callback=_override(name),
            )
        )


def _override(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value is not None:
            ctx.obj = replace(
                ctx.obj,
                **{"timeout_s" if name == "timeout" else name: Format(value) if name == "output" else value},
            )

    return callback
