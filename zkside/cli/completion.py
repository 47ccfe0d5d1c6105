"""completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

HOW = {
    "bash": 'eval "$(zkside completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(zkside completion zsh)"   # in ~/.zshrc',
    "fish": "zkside completion fish > ~/.config/fish/completions/zkside.fish",
}


@click.command(epilog="\b\n" + "\n".join(HOW.values()))
@click.argument("shell", type=click.Choice(list(HOW)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell. Paths of nodes are completed too, by asking the daemon."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"{shell} is not supported")
    click.echo(kind(ctx.find_root().command, {}, "zkside", "_ZKSIDE_COMPLETE").source())
