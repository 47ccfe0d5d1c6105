"""Finding out what became of a write whose answer was lost: wait for the session, sync, look, decide.

The decisions are core/outcome.py's; here is how the facts for them are got.
"""

from __future__ import annotations

import asyncio
import math
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from zkside.core import outcome
from zkside.core.outcome import Outcome
from zkside.errors import (
    ConnectionLoss,
    NoNode,
    OutcomeUnknown,
    Quota,
    SessionLost,
    SessionSuspended,
    Throttled,
    ZksideError,
)
from zkside.hub.asking import pause
from zkside.model import path as paths
from zkside.model.operation import (
    Create,
    Created,
    Delete,
    Exists,
    GetChildren,
    Operation,
    Reply,
    SetAcl,
    SetData,
    Sync,
    T,
    Transaction,
)
from zkside.model.stat import Stat
from zkside.zk.session import Session

WITHOUT_DEADLINE_S = 30.0
"""How long the search takes at most for a caller without a deadline."""
ANSWER_MARGIN_S = 0.05
"""So long before its caller's deadline it gives up, so that the caller hears OUTCOME_UNKNOWN."""
MAX_STEPS_EXAMINED = 50
"""Of a transaction."""


class Call(Protocol):
    """Session.call."""

    def __call__(self, operation: Operation[T], /) -> asyncio.Future[Reply[T]]: ...


@dataclass(frozen=True, slots=True)
class Sent:
    """The moment at which a write was sent."""

    what: str
    path: str
    zxid_before: int
    epoch: int
    history: int
    session_id: int
    deadline_s: float | None
    """By the event loop's clock; inf: as long as the session lives."""

    def unknown(self, why: str, node: Stat | None = None) -> OutcomeUnknown:
        """The error that tells a caller how to find out by itself."""
        seen = {} if node is None else {"czxid": f"{node.czxid:#x}", "mzxid": f"{node.mzxid:#x}"}
        seen |= {} if node is None else {"version": str(node.version)}
        return OutcomeUnknown(
            f"the {self.what} of {self.path} was sent and its answer lost; {why}. If it was applied, it has a zxid "
            f"greater than {self.zxid_before:#x}: read the node and compare",
            operation=self.what,
            path=self.path,
            zxid_before=f"{self.zxid_before:#x}",
            epoch=str(self.epoch),
            **seen,
        )

    def unknown_for_good(self) -> OutcomeUnknown:
        """As `unknown`, where no look at the node can tell: its zxids are of another history."""
        return OutcomeUnknown(
            f"the {self.what} of {self.path} was sent and its answer lost, and then ZooKeeper's history went back (it "
            "was wiped, or restored from an older snapshot): whatever it did may be undone. Read the node; its zxids "
            "cannot be compared with those of before",
            operation=self.what,
            path=self.path,
            epoch=str(self.epoch),
            history_changed="true",
        )


class Claims:
    """Which ephemerals of this session already belong to a create of this daemon.

    Two local callers may create the same path, or in the same sequence, and both lose their answer: each node
    that is found may be given to one of them only. A claim is kept as long as a create is outstanding that
    was sent before the node was made.
    """

    def __init__(self) -> None:
        self._outstanding: dict[int, tuple[int, int]] = {}
        """(epoch, zxid_before): across epochs the zxids may go back, with ZooKeeper's history."""
        self._claimed: dict[tuple[str, tuple[int, int]], None] = {}
        self._number = 0

    def begin(self, sent: Sent) -> int:
        """A create is about to be sent. Invariant: (epoch, zxid_before) never goes back."""
        self._number += 1
        self._outstanding[self._number] = (sent.epoch, sent.zxid_before)
        return self._number

    def claim(self, path: str, epoch: int, node: Stat) -> bool:
        """False if somebody has it already."""
        made = (epoch, node.czxid)
        if (path, made) in self._claimed:
            return False
        self._claimed[path, made] = None
        return True

    def end(self, number: int) -> None:
        """That create is settled."""
        del self._outstanding[number]
        oldest = next(iter(self._outstanding.values()), None)
        while self._claimed:
            first = next(iter(self._claimed))
            if oldest is not None and first[1] > oldest:
                break
            del self._claimed[first]


class FindOut:
    """Searches over the one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._call: Call = session.call
        self.claims = Claims()

    def yielding(self) -> FindOut:
        """The same, with the same claims, for writes of clients: what the session needs for itself goes first."""
        other = copy(self)
        other._call = partial(self._session.call, yields=True)
        return other

    def sent(self, what: str, path: str, deadline_s: float | None) -> Sent:
        """To be taken just before a write is sent."""
        status = self._session.status
        zxid_before = self._session.last_zxid
        return Sent(what, path, zxid_before, status.epoch, status.history, status.session_id, deadline_s)

    async def look(self, sent: Sent, *operations: Operation[Any]) -> tuple[int, list[Any]]:
        """Read, after a sync on the session that sent the write; errors come in place of values.

        Raises: OutcomeUnknown when the session does not come back in time, or comes back as another one.
        """
        until_s = asyncio.get_running_loop().time() + WITHOUT_DEADLINE_S
        if sent.deadline_s is not None:
            until_s = sent.deadline_s - ANSWER_MARGIN_S
        attempt = 0
        try:
            async with asyncio.timeout_at(None if until_s == math.inf else until_s):
                while True:
                    await self._session.wait_connected()
                    if self._session.history.number != sent.history:
                        raise sent.unknown_for_good()
                    if self._session.epoch != sent.epoch:
                        raise sent.unknown("the session ended meanwhile")
                    calls = [self._call(each) for each in (Sync(), *operations)]
                    replies = await asyncio.gather(*calls, return_exceptions=True)
                    failures = [each for each in replies if isinstance(each, BaseException)]
                    if any(isinstance(each, SessionLost) for each in failures):
                        raise sent.unknown("the session ended meanwhile")
                    if any(isinstance(each, ConnectionLoss | SessionSuspended) for each in failures):
                        continue
                    if any(isinstance(each, Throttled | Quota) for each in failures):
                        # These say that nothing was changed: of the look, which is no answer of the write's.
                        await pause(attempt)
                        attempt += 1
                        continue
                    if isinstance(replies[0], BaseException):
                        raise replies[0]
                    zxid = max(each.zxid for each in replies if isinstance(each, Reply))
                    return zxid, [each.value if isinstance(each, Reply) else each for each in replies[1:]]
        except TimeoutError:
            raise sent.unknown("the session did not come back in time") from None

    async def create(self, sent: Sent, operation: Create, prefix: str) -> Reply[Created] | None:
        """What a create made; None if it surely was not applied. Raises: OutcomeUnknown, SessionLost."""
        ephemeral = operation.mode.is_ephemeral
        try:
            if operation.mode.is_sequential or prefix:
                return await self._create_among(sent, operation, prefix)
            zxid, (node, parent) = await self.look(sent, Exists(operation.path), Exists(paths.parent(operation.path)))
        except OutcomeUnknown:
            if ephemeral and self._session.epoch != sent.epoch:
                raise SessionLost(f"the session ended while {operation.path} was being created") from None
            raise
        node = _stat(node, sent)
        parent = None if isinstance(parent, ZksideError) else parent
        verdict = outcome.of_create(node, parent, sent.zxid_before, ephemeral=ephemeral, session_id=sent.session_id)
        if verdict is Outcome.UNKNOWN:
            raise sent.unknown("somebody may have made the same", node)
        if verdict is Outcome.APPLIED and node is not None and self.claims.claim(operation.path, sent.epoch, node):
            return Reply(zxid, Created(operation.path, node))
        return None

    async def _create_among(self, sent: Sent, operation: Create, prefix: str) -> Reply[Created] | None:
        """Search the parent's children: the whole name was not known when the create was sent."""
        above, name = paths.parent(operation.path), paths.name(operation.path)
        ephemeral = operation.mode.is_ephemeral
        _, (listed,) = await self.look(sent, GetChildren(above))
        if isinstance(listed, NoNode):
            if ephemeral:
                return None
            raise sent.unknown("its parent is not there any more")
        if isinstance(listed, ZksideError):
            raise sent.unknown(f"its parent cannot be read ({listed})")
        names, parent = listed
        if operation.mode.is_sequential:
            names = [each for each in names if each.startswith(name) and _is_number(each[len(name) :])]
        else:
            names = [each for each in names if each == name]
        if names and (prefix or ephemeral):
            candidates = [paths.join(above, each) for each in sorted(names)]
            zxid, stats = await self.look(sent, *map(Exists, candidates))
            for path, answer in zip(candidates, stats, strict=True):
                stat = None if isinstance(answer, ZksideError) else answer
                if not ephemeral:
                    return Reply(zxid, Created(path, stat))
                if stat is None or stat.ephemeral_owner != sent.session_id or stat.czxid <= sent.zxid_before:
                    continue
                if self.claims.claim(path, sent.epoch, stat):
                    return Reply(zxid, Created(path, stat))
            for answer in stats:
                _stat(answer, sent)  # one of those that may not be looked at may be the one
        if ephemeral or outcome.of_vanished(parent, sent.zxid_before) is Outcome.NOT_APPLIED:
            return None
        raise sent.unknown("it is not there, but children of its parent came or went meanwhile")

    async def other(self, sent: Sent, operation: SetData | Delete | SetAcl) -> None:
        """Return if it surely was not applied. Raises: OutcomeUnknown."""
        _, (node,) = await self.look(sent, Exists(operation.path))
        node = _stat(node, sent)
        match operation:
            case SetData():
                verdict = outcome.of_set(node, sent.zxid_before, operation.version)
            case Delete():
                verdict = outcome.of_delete(node, sent.zxid_before)
            case SetAcl():
                verdict = outcome.of_set_acl(node, sent.zxid_before, operation.version)
        if verdict is not Outcome.NOT_APPLIED:
            why = "the node is not there" if node is None else "the node may have been changed by it or by others"
            raise sent.unknown(why, node)

    async def transaction(self, sent: Sent, operation: Transaction) -> None:
        """Return if it surely was not applied. Raises: OutcomeUnknown."""
        steps = operation.operations[:MAX_STEPS_EXAMINED]
        reads = [Exists(path) for step in steps for path in (step.path, paths.parent(step.path))]
        _, stats = await self.look(sent, *reads)
        # One that may not be looked at shows nothing, and another may show that all of it was refused.
        seen = [None if isinstance(each, ZksideError) else each for each in stats]
        for number, (step, node, parent) in enumerate(zip(steps, seen[::2], seen[1::2], strict=True)):
            if isinstance(stats[2 * number], ZksideError):
                continue
            if outcome.of_step(step, node, parent, sent.zxid_before) is Outcome.NOT_APPLIED:
                return
        raise sent.unknown("none of its nodes shows that it was not applied")


def _stat(answer: Stat | ZksideError | None, sent: Sent) -> Stat | None:
    """A refusal to look, as of a node that may not be read, says nothing of what became of the write."""
    if isinstance(answer, ZksideError):
        raise sent.unknown(f"the node cannot be looked at ({answer})")
    return answer


def is_numbered(path: str) -> bool:
    """Whether the name ends as ZooKeeper's sequential ones do, which are not made again."""
    return _is_number(paths.name(path)[-10:])


def _is_number(suffix: str) -> bool:
    """ZooKeeper appends ten digits, and after 2^31 creates a minus sign and more digits."""
    return len(suffix) >= 10 and suffix.removeprefix("-").isdigit()
