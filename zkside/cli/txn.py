"""txn."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zkside.cli import exits, output
from zkside.cli.invocation import Invocation, pass_invocation
from zkside.cli.node import FILE

if TYPE_CHECKING:
    from zkside.client import Client, TransactAnswer, Transaction

FORMS = {
    "create": "create PATH [DATA]",
    "set": "set PATH DATA [VERSION]",
    "delete": "delete PATH [VERSION]",
    "check": "check PATH [VERSION]",
}


@click.command(epilog="\b\nOperations:\n  " + "\n  ".join(FORMS.values()))
@click.argument("operations", nargs=-1)
@click.option("-f", "--file", type=FILE, help="Operations from this file, one a line; '-' is standard input.")
@click.option("--guard", default="", metavar="HOLD_ID", help="Only while this hold's node exists.")
@pass_invocation
def txn(invocation: Invocation, operations: tuple[str, ...], file: Path | None, guard: str) -> None:
    """Apply OPERATIONS in order, all or none.

    Each is one quoted argument, or one line of --file; lines are split as a shell does, # begins a comment:

    \b
      zkside txn 'check /lock 3' 'set /a "new value"' 'delete /b'
    """
    if file is not None and operations:
        raise click.UsageError("give operations as arguments or with --file, not both")
    lines = list(operations) if file is None else _lines(file)
    steps = [step for line in lines if (step := parse(line))]
    if not steps:
        raise click.UsageError("at least one operation is needed: " + ", ".join(FORMS.values()))

    async def flow(client: Client) -> int:
        transaction = client.transaction(guard_hold_id=guard)
        for step in steps:
            add(transaction, step)
        answer = await transaction.commit(raise_refused=False)
        _show(invocation, steps, answer)
        if answer.committed:
            return exits.OK
        from zkside.client.transaction import culprit

        return exits.code_of(culprit(answer))

    invocation.run(flow)


def _lines(file: Path) -> list[str]:
    if str(file) == "-":
        return sys.stdin.read().splitlines()
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{file} cannot be read: {error}", param_hint="--file") from None


def parse(line: str) -> list[str]:
    """One operation as its words; none for an empty line or a comment. Raises click.UsageError."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise click.UsageError(f"{line!r}: {error}") from None
    if not words:
        return []
    least, most = {"create": (2, 3), "set": (3, 4), "delete": (2, 3), "check": (2, 3)}.get(words[0], (0, 0))
    if not most:
        raise click.UsageError(f"{words[0]!r} is no operation: {', '.join(FORMS.values())}")
    if not least <= len(words) <= most:
        raise click.UsageError(f"{line!r}: write {FORMS[words[0]]}")
    version = words[3:] if words[0] == "set" else words[2:] if words[0] != "create" else []
    if version and not version[0].lstrip("-").isdigit():
        raise click.UsageError(f"{line!r}: {version[0]!r} is no version: write {FORMS[words[0]]}")
    return words


def add(transaction: Transaction, words: list[str]) -> None:
    """One parsed operation into a transaction."""
    kind, path, rest = words[0], words[1], words[2:]
    if kind == "create":
        transaction.create(path, os.fsencode(rest[0]) if rest else b"")
    elif kind == "set":
        transaction.set(path, os.fsencode(rest[0]), version=int(rest[1]) if rest[1:] else None)
    elif kind == "delete":
        transaction.delete(path, version=int(rest[0]) if rest else None)
    else:
        transaction.check(path, version=int(rest[0]) if rest else None)


def _show(invocation: Invocation, steps: list[list[str]], answer: TransactAnswer) -> None:
    from zkside.client import CreateAnswer, SetAnswer
    from zkside.errors import ZksideError

    results: list[dict[str, object]] = []
    for words, result in zip(steps, answer.results, strict=True):
        fields: dict[str, object] = {"operation": words[0], "path": words[1]}
        if isinstance(result, ZksideError):
            fields |= {"reason": result.reason, "message": str(result)}
        elif isinstance(result, CreateAnswer):
            fields["path"] = result.path
        elif isinstance(result, SetAnswer):
            fields["version"] = result.stat.version
        results.append(fields)
    if invocation.is_json:
        output.json_line({"committed": answer.committed, "results": results, **output.header_fields(answer.header)})
        return
    output.line(f"committed at {answer.zxid:#x}" if answer.committed else "refused; nothing was changed")
    for fields in results:
        output.line(f"  {fields['operation']:<7} {fields['path']}  {fields.get('reason', 'ok')}")
