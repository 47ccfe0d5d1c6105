"""protos."""

from __future__ import annotations

from pathlib import Path

import click

import zkside as package


def folder() -> Path:
    """In the installed package, or beside it in a checkout."""
    installed = Path(package.__path__[0]) / "proto"
    return installed if installed.is_dir() else installed.parents[1] / "proto"


@click.command(epilog='\b\nprotoc -I "$(zkside protos)" --java_out=. zkside/v1/node.proto')
def protos() -> None:
    """Print the folder that has zkside/v1/*.proto, as an include path for generating stubs."""
    click.echo(folder())
