"""What `lock`, `elect` and `join` share: hold something, run a command meanwhile, and end that in time."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zkside.cli import exits, output, why
from zkside.cli.child import Child
from zkside.cli.deadline import Deadlines, boottime_ns, deadlines
from zkside.cli.invocation import Invocation
from zkside.cli.signals import Signals
from zkside.cli.terms import Terms
from zkside.errors import (
    ConnectionLoss,
    DeadlineExceeded,
    HoldLost,
    OutcomeUnknown,
    SessionLost,
    Unavailable,
    WaitTimeout,
)

if TYPE_CHECKING:
    from zkside.client import Client, Held, HoldStatus

FEED_S = 0.1
"""How often the guard hears how far the lease reaches."""
AGAIN_S = 1.0
"""A term that was shorter than this is not followed by the next before so long."""
PASSING = (Unavailable, SessionLost, HoldLost, ConnectionLoss, OutcomeUnknown, DeadlineExceeded)
"""What may be otherwise when it is tried again."""

_NOW = 1
"""A deadline that has passed."""


@dataclass(slots=True)
class Holder:
    """Holds one thing after the other, with a command or without, until it is over.

    `leased`: the command must not outlive the lease. Without that it is told when the hold is lost for good."""

    invocation: Invocation
    terms: Terms
    leased: bool
    again: bool = False
    child: Child | None = field(default=None, init=False)
    _signals: Signals = field(default_factory=Signals, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _seen: tuple[object, ...] = field(default=(), init=False)

    def run(self, make: Callable[[Client, Callable[[HoldStatus], None]], Held]) -> None:
        """Hold what `make` makes, and end the process. Nothing may have loaded gRPC before."""
        if not self.terms.command:
            self.invocation.run(lambda client: self._flow(client, make))
            return
        with Child(self.terms.command, self.terms.kill_after_s) as self.child:
            self.invocation.run(lambda client: self._flow(client, make))

    async def _flow(self, client: Client, make: Callable[[Client, Callable[[HoldStatus], None]], Held]) -> int:
        self._signals.install()
        while True:
            began_s = time.monotonic()
            try:
                code = await self._hold(client, make(client, self._on_update))
            except PASSING as error:
                if not self.again or isinstance(error, WaitTimeout):
                    raise
                output.show_error(error, self.invocation.output)
                code = exits.code_of(error)
            if not self.again or self._is_over(code):
                return code
            await self._pause(began_s + AGAIN_S - time.monotonic())
            if self._signals.ended_by:
                return code

    def _is_over(self, code: int) -> bool:
        is_unguarded = self.child is not None and not self.child.is_guarded
        return bool(self._signals.ended_by) or is_unguarded or code in (exits.CANNOT_RUN, exits.NO_COMMAND)

    async def _pause(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, pause_s)):
                await self._signals.ending.wait()
        except TimeoutError:
            pass

    async def _hold(self, client: Client, held: Held) -> int:
        async with AsyncExitStack() as stack:
            if not await self._first(stack.enter_async_context(held)):
                return 128 + self._signals.ended_by
            if self._signals.ended_by:
                return 128 + self._signals.ended_by
            if self.child is not None:
                return await self._run(client, held, self.child)
            await self._first(held.lost.wait())
        if held.lost.is_set():
            self._say(f"{held.path} is lost: {why.told(held.lost.reason)}", reason=held.lost.reason)
            return exits.LOST
        return exits.OK

    async def _first(self, awaitable: Awaitable[object]) -> bool:
        """Wait for it; False if a signal came first. Then it is cancelled. Raises what it raises."""
        waiting, ending = asyncio.ensure_future(awaitable), asyncio.ensure_future(self._signals.ending.wait())
        try:
            await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (waiting, ending):
                task.cancel()
            await asyncio.wait((waiting, ending))
        if waiting.cancelled():
            return False
        waiting.result()
        return True

    async def _run(self, client: Client, held: Held, child: Child) -> int:
        release = {**client.environment, "hold_id": held.hold_id} if self.terms.grace_s else None
        variables = {
            "ZKSIDE_PATH": held.path,
            "ZKSIDE_FENCING_TOKEN": str(held.fencing_token),
            "ZKSIDE_HOLD_ID": held.hold_id,
            **client.environment,
        }
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._feed(held, child)), group.create_task(self._tell_of_end(held, child))]
            self._signals.child = child
            try:
                ended = await child.run(variables, self._deadlines(held), release)
            finally:
                self._signals.child = None
                for task in tasks:
                    task.cancel()
        if ended.why:
            self._say(f"{child.command[0]}: {ended.why}")
        if ended.left:
            left = output.count(ended.left, "process")
            self._say(f"{child.command[0]} left {left} behind: ended, as the hold is")
        if ended.out_of_reach:
            left = output.count(ended.out_of_reach, "process")
            self._say(f"{left} of {child.command[0]} could not be ended: another user's")
        return exits.LOST if ended.was_told else ended.status

    def _deadlines(self, held: Held) -> Deadlines:
        from zkside.client import HoldState
        from zkside.client.clock import lease_ns

        if not self.leased:
            return Deadlines()
        in_jeopardy = held.state is HoldState.JEOPARDY
        return deadlines(
            boottime_ns(), held.lease_left_s(), lease_ns(held.status), self.terms.margin_s, in_jeopardy=in_jeopardy
        )

    async def _feed(self, held: Held, child: Child) -> None:
        """Move the deadlines while it is held; then the command has to end."""
        from zkside.client import HoldState

        while not held.lost.is_set():
            limits = self._deadlines(held)
            child.keep(Deadlines(_NOW, limits.kill_ns) if held.revoke_requested.is_set() else limits)
            self._changed.clear()
            try:
                async with asyncio.timeout(FEED_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
        asked_back = held.state is HoldState.JEOPARDY
        if asked_back or not self.leased:
            # The daemon waits 2 s for its release, longer than was believed before: that deadline stands.
            child.keep(Deadlines(tell_ns=_NOW))
        else:
            child.keep(Deadlines(kill_ns=_NOW))

    async def _tell_of_end(self, held: Held, child: Child) -> None:
        """Say why the command is ended, and how: SIGTERM, SIGKILL, or the one after the other."""
        await child.told.wait()
        name = child.command[0]
        if not child.is_guarded:
            self._say(f"the process between zkside and {name} is gone: {name} was killed, and {held.path} is let go")
            return
        reason, words = why.of(held)
        unsafe = f"{held.path} is no longer safe to rely on: {words}"
        if not child.pid:
            self._say(f"{unsafe}; {name} was not begun", reason=reason)
        elif child.killed.is_set():
            self._say(f"{unsafe}; {name} was killed at once (SIGKILL)", reason=reason)
        else:
            self._say(f"{unsafe}; {name} was told to end (SIGTERM)", reason=reason)
            await child.killed.wait()
            self._say(f"{name} had not ended in time, and was killed (SIGKILL)", reason=reason)

    def _say(self, text: str, *, reason: str = "") -> None:
        if self.invocation.is_json:
            fields = {"message": text, "reason": reason} if reason else {"message": text}
            print(json.dumps(fields), file=sys.stderr, flush=True)
        else:
            print(f"zkside: {text}", file=sys.stderr, flush=True)

    def _on_update(self, status: HoldStatus) -> None:
        self._changed.set()
        # Updates also come with each proof of the lease; only what a reader would see is printed.
        seen = (status.state, status.reason, status.path, status.fencing_token, status.position)
        if seen == self._seen:
            return
        self._seen = seen
        if self.child is None:
            show_hold(self.invocation, status)
        elif self.invocation.is_json:
            # Standard output is the command's.
            print(json.dumps(output.hold_fields(status), ensure_ascii=False), file=sys.stderr, flush=True)


def own_name() -> str:
    """This process, for people on other hosts."""
    return f"{socket.gethostname()}:{os.getpid()}"


def show_hold(invocation: Invocation, status: HoldStatus) -> None:
    """A line on standard output."""
    if invocation.is_json:
        output.json_line(output.hold_fields(status))
    else:
        output.line(output.hold_text(status))
