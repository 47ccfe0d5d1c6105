"""One run of a command: its global options, its client, and how it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from zkside.cli import exits
from zkside.cli.manual import page_of
from zkside.cli.output import Format, show_error
from zkside.errors import DeadlineExceeded, ZksideError

if TYPE_CHECKING:
    from zkside.client import Client

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Invocation:
    """The global options."""

    address: str | None
    ca: str | None
    cert: str | None
    key: str | None
    server_name: str | None
    token_file: str | None
    output: Format
    timeout_s: float
    consistency: str

    @property
    def is_json(self) -> bool:
        return self.output is Format.JSON

    def run(self, flow: Callable[[Client], Awaitable[int | None]]) -> None:
        """Run a flow with a client, and end the process with what it returns (None: 0) or raises."""
        from zkside.client import Client, Consistency, TlsOptions

        given = (self.ca or None, self.cert or None, self.key or None, self.server_name or "")
        is_tcp = self.address is not None and not self.address.startswith(("unix:", "/"))

        async def with_client() -> int | None:
            async with Client(
                self.address,
                tls=TlsOptions(*given) if is_tcp and any(given) else None,
                token_file=self.token_file or None,
                timeout_s=self.timeout_s,
                consistency=Consistency[self.consistency.upper()],
            ) as client:
                try:
                    return await flow(client)
                except DeadlineExceeded as error:
                    from zkside.cli.late import explained

                    raise await explained(client, error) from None

        self.end(lambda: asyncio.run(with_client()))

    def end(self, body: Callable[[], int | None]) -> NoReturn:
        """Run the body and exit: errors become a message and their code, never a traceback.

        A code that the command's help does not name becomes ERROR, which says that the message tells what happened.
        """
        page = page_of(click.get_current_context(silent=True))
        code: int | None
        is_commands_own = False
        try:
            code = body()
            is_commands_own = page is not None and page.passes_on
            sys.stdout.flush()
        except ZksideError as error:
            show_error(error, self.output)
            code = exits.code_of(error)
        except KeyboardInterrupt:
            code = exits.INTERRUPTED
        except BrokenPipeError:
            # The reader of our output has gone, such as `head`. Nothing more can be told to it, also not by
            # the interpreter, which flushes once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = exits.OK
        code = code or exits.OK
        sys.exit(code if page is None or is_commands_own or code in page.statuses else exits.ERROR)


def pass_invocation(function: F) -> F:
    """Give the command its Invocation as first argument."""
    return click.pass_obj(function)  # type: ignore[return-value]
