"""debug bundle, debug dump, debug log."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zkside.cli import exits, output
from zkside.cli.invocation import Invocation, pass_invocation
from zkside.errors import ZksideError

if TYPE_CHECKING:
    from zkside.client import Client


@click.group()
def debug() -> None:
    """Gather what is needed to find a fault in a daemon. Nothing of it is secret, and nothing is changed."""


@debug.command()
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write here. Default: zkside-HOST-TIME.tar.gz in the working directory.",
)
@pass_invocation
def bundle(invocation: Invocation, file: Path | None) -> None:
    """Gather all that tells how a daemon is into one .tar.gz, to be looked at or sent to whoever helps.

    Status, configuration (without secrets), holds, watches, streams, the last log lines, metrics, tasks and threads
    with their stacks, what `doctor` finds, and what the kernel knows of the process. It has paths of nodes and
    addresses; no node's data, no passwords, no tokens, no private keys.

    It is made also when the daemon hangs or is gone: parts.json and the output tell what is missing, and why. A daemon
    that does not answer is sent SIGUSR2, at which it writes the stacks of its threads into its state_dir.
    Exits with 0 if everything could be had, with 1 if something is missing.
    """

    async def flow(client: Client) -> int:
        from zkside.cli.bundle import collect

        made = await collect(client, named=bool(invocation.address))
        name = f"zkside-{platform.node()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        into = file or Path(f"{name}.tar.gz")
        _write(into, made.packed(name))
        missing = [part for part in made.parts if part.missing]
        if invocation.is_json:
            output.json_line({"file": str(into), "missing": {part.file: part.missing for part in missing}})
        else:
            output.line(f"{into}: {output.count(len(made.files), 'file')}")
            for part in missing:
                output.line(f"missing   {part.file:<16} {part.missing}")
        return exits.ERROR if missing else exits.OK

    invocation.run(flow)


@debug.command()
@pass_invocation
def dump(invocation: Invocation) -> None:
    """Print the daemon's whole state as one JSON document, as SIGUSR1 lets it write one.

    Configuration (secrets as ***), session, holds, watches, streams, tasks and threads with their stacks. It is for
    people: its keys may change with any version. `-o` changes nothing.
    """

    async def flow(client: Client) -> None:
        output.raw(await client.admin.dump_state())

    invocation.run(flow)


@debug.command("log")
@pass_invocation
def log_(invocation: Invocation) -> None:
    """Print the last lines of the daemon's log, which it keeps in memory: JSON, one object a line.

    At most 256 KiB, oldest first, also when the log itself went nowhere. `-o` changes nothing.
    """

    async def flow(client: Client) -> None:
        for line in (await client.admin.log_lines()).lines:
            output.line(line)

    invocation.run(flow)


def _write(file: Path, data: bytes) -> None:
    """For its owner alone. Raises: ZksideError."""
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as into:
            into.write(data)
    except OSError as error:
        raise ZksideError(f"{file} cannot be written: {error.strerror}") from error
