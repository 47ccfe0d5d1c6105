"""How arguments are written: durations, access control lists, data, paths with completion."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from zkside.client import Acl

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LETTERS = {"r": 1, "w": 2, "c": 4, "d": 8, "a": 16}


class DurationType(click.ParamType[float]):
    """Seconds: '10s', '500ms', '2m', '1h', or a bare number of seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no duration: write 10s, 500ms, 2m, 1h", param, ctx)
        return float(match[1]) * _UNITS_S[match[2] or "s"]


class AclType(click.ParamType["Acl"]):
    """'scheme:id:permissions' as zkCli writes it, such as world:anyone:cdrwa."""

    name = "acl"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Acl:
        from zkside.client import Acl

        if isinstance(value, Acl):
            return value
        match = re.fullmatch(r"(\w+):(.*):([cdrwa]+)", str(value))
        if match is None:
            self.fail(f"{value!r} is no entry: write scheme:id:permissions, such as world:anyone:cdrwa", param, ctx)
        return Acl(sum(_LETTERS[letter] for letter in set(match[3])), match[1], match[2])


def acl_text(entry: Acl) -> str:
    """An entry as it is written on the command line."""
    letters = "".join(letter for letter in "cdrwa" if entry.permissions & _LETTERS[letter])
    return f"{entry.scheme}:{entry.id}:{letters}"


class PathType(click.ParamType[str]):
    """A znode's path; the shell completes it by asking the daemon, briefly."""

    name = "path"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from zkside.client import Client
        from zkside.errors import ZksideError

        parent, _, prefix = incomplete.rpartition("/")
        address = ctx.find_root().params.get("address")

        async def ask() -> list[CompletionItem]:
            async with Client(address, timeout_s=0.5) as client:
                names = await client.children(parent or "/")
            found = [f"{parent}/{name}" for name in names if name.startswith(prefix)]
            return [CompletionItem(path) for path in found]

        try:
            return asyncio.run(ask())
        except ZksideError:
            return []


DURATION = DurationType()
ACL = AclType()
PATH = PathType()


def data_argument(given: str | None, file: Path | None) -> bytes:
    """Data from the argument, from `--file`, or from standard input if the argument is '-'."""
    if file is not None:
        if given is not None:
            raise click.UsageError("give the data as an argument or with --file, not both")
        if str(file) == "-":
            return sys.stdin.buffer.read()
        try:
            return file.read_bytes()
        except OSError as error:
            raise click.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="--file") from None
    if given == "-":
        return sys.stdin.buffer.read()
    # What the shell passed that is no UTF-8 comes as surrogates: back to the bytes it was.
    return os.fsencode(given) if given is not None else b""
