"""Writes that survive a lost answer: applied once, refused, or honestly unknown (GUARANTEES N1, N2)."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from zkside.errors import (
    BadVersion,
    ConnectionLoss,
    DeadlineExceeded,
    HoldLost,
    NoAuth,
    NodeExists,
    NoNode,
    NotEmpty,
    OutcomeUnknown,
    SequenceOverflow,
    SessionSuspended,
    ZksideError,
)
from zkside.model import path as paths
from zkside.model.operation import (
    ANY_VERSION,
    Check,
    Create,
    Created,
    CreateMode,
    Delete,
    Exists,
    GetChildren,
    ReadMany,
    Reply,
    SetAcl,
    SetData,
    Transaction,
    TransactionResult,
    Write,
)
from zkside.model.stat import Stat
from zkside.recipes.find_out import ANSWER_MARGIN_S, Call, FindOut, Sent, is_numbered
from zkside.recipes.numbers import Numbers
from zkside.zk.session import Session

T = TypeVar("T")

MAX_PARENT_ROUNDS = 10
"""A parent that is a container may vanish again before its child comes: then once more, not for ever."""
MAX_SWEEPS = 100
"""Of a recursive delete below which others go on creating."""
BATCH = 256
"""Reads in one request and deletes under way of a recursive delete."""


@dataclass(slots=True)
class _Attempt:
    """A create on its way."""

    operation: Create
    prefix: str
    make_parents: bool
    parents: CreateMode
    deadline_s: float | None
    on_sent: Callable[[], object]
    abandoned: bool = False
    """Its caller has gone: nothing more may be sent for it."""


class Writes:
    """The writes of all callers, over the one session.

    Everywhere: `deadline_s` is the caller's, by the event loop's clock; a request that finds no connection
    fails at once with SessionSuspended, and nothing was sent.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._find_out = FindOut(session)
        self.numbers = Numbers()
        self._creating: set[asyncio.Task[Reply[Created]]] = set()
        self._call: Call = session.call

    def yielding(self) -> Writes:
        """The same, for what clients ask for: what the session needs for itself goes first."""
        other = copy(self)
        other._call = partial(self._session.call, yields=True)
        other._find_out = self._find_out.yielding()
        return other

    async def close(self) -> None:
        """End what callers left behind."""
        for task in self._creating:
            task.cancel()
        await asyncio.gather(*self._creating, return_exceptions=True)

    async def create(
        self,
        operation: Create,
        *,
        protected: bool = False,
        make_parents: bool = False,
        parents: CreateMode = CreateMode.PERSISTENT,
        deadline_s: float | None = None,
        on_sent: Callable[[], object] = lambda: None,
    ) -> Reply[Created]:
        """Create a node, exactly once; `protected` puts Curator's "_c_<uuid>-" before its name.

        Missing parents are made in the mode `parents`; containers that vanish before the node comes are made again.
        `on_sent` is called whenever the create itself was sent: what it sends is answered right behind.

        Raises: what ZooKeeper refuses; SequenceOverflow when it has no more numbers, and the node goes again;
        OutcomeUnknown when the answer was lost and the node cannot be told from somebody else's; SessionLost for an
        ephemeral whose session ended meanwhile. Cancellation: a persistent node may have been made; an ephemeral
        that was made is deleted again.
        """
        prefix = f"_c_{uuid.uuid4()}-" if protected else ""
        if prefix:
            named = paths.join(paths.parent(operation.path), prefix + paths.name(operation.path))
            operation = replace(operation, path=named)
        if not operation.mode.is_ephemeral:
            return await self._create(_Attempt(operation, prefix, make_parents, parents, deadline_s, on_sent))
        # The task goes on when its caller is cancelled, who would never hear what it had made. It may take as
        # long as the session needs to come back or to end: until then nobody knows whether there is a node.
        attempt = _Attempt(operation, prefix, make_parents, parents, math.inf, on_sent)
        task = asyncio.get_running_loop().create_task(self._create(attempt), name=f"create {operation.path}")
        self._creating.add(task)
        task.add_done_callback(self._creating.discard)
        try:
            async with asyncio.timeout_at(None if deadline_s is None else deadline_s - ANSWER_MARGIN_S):
                return await asyncio.shield(task)
        except TimeoutError:
            self._abandon(attempt, task)
            raise DeadlineExceeded(f"{operation.path} could not be created in time; if it was, it is deleted") from None
        except asyncio.CancelledError:
            self._abandon(attempt, task)
            raise

    def _abandon(self, attempt: _Attempt, task: asyncio.Task[Reply[Created]]) -> None:
        attempt.abandoned = True
        task.add_done_callback(self._delete_made)

    def _delete_made(self, task: asyncio.Task[Reply[Created]]) -> None:
        if not task.cancelled() and task.exception() is None:
            made = task.result().value
            self._session.janitor.delete(made.path, made.stat.czxid if made.stat else None)

    async def _create(self, attempt: _Attempt) -> Reply[Created]:
        reply = await self._create_below(attempt)
        made = reply.value
        try:
            self.numbers.check(attempt.operation, made)
        except SequenceOverflow:
            self._session.janitor.delete(made.path, made.stat.czxid if made.stat else None)
            raise
        return reply

    async def _create_below(self, attempt: _Attempt) -> Reply[Created]:
        """Create the node, with its parents if they are to be made.

        The nearest parent and the node are sent one behind the other: whoever asks later and finds the parent there
        does not come first (GUARANTEES H7).
        """
        try:
            return await self._create_once(attempt)
        except NoNode:
            if not attempt.make_parents:
                raise
        parent = paths.parent(attempt.operation.path)
        for _ in range(MAX_PARENT_ROUNDS):
            made, created = await asyncio.gather(
                self._ensure(parent, attempt), self._create_once(attempt), return_exceptions=True
            )
            if not isinstance(created, BaseException):
                return created
            if not isinstance(created, NoNode):
                raise created
            if isinstance(made, NoNode):
                try:
                    await self._make_above(parent, attempt)
                except NoNode:
                    continue  # one that was there, a container, has vanished
                except NoAuth as refusal:
                    # Somebody who may make it may have been faster: what it was wanted for tells.
                    try:
                        return await self._create_once(attempt)
                    except NoNode:
                        raise refusal from None
            elif made is not None:
                raise made
        return await self._create_once(attempt)

    async def _make_above(self, path: str, attempt: _Attempt) -> None:
        """Make the missing ancestors of a path, from the nearest on upwards until one has a parent, and back down.

        Never from the root down: who may create below /app need not be allowed to below /, and of a node that is
        there ZooKeeper answers NO_AUTH before NODE_EXISTS. Raises: NoNode if one vanished meanwhile.
        """
        missing: list[str] = []
        for above in paths.ancestors(path)[:-1]:
            try:
                await self._ensure(above, attempt)
                break
            except NoNode:
                missing.append(above)
        for above in reversed(missing):
            await self._ensure(above, attempt)

    async def _ensure(self, path: str, attempt: _Attempt) -> None:
        """An empty node of the mode for parents. Making it twice does no harm, so a lost answer needs no search."""
        while True:
            sent = self._find_out.sent("create", path, attempt.deadline_s)
            try:
                await self._send(Create(path, mode=attempt.parents, acl=attempt.operation.acl), attempt)
                return
            except NodeExists:
                return
            except ConnectionLoss:
                await self._find_out.look(sent)

    def _send(self, operation: Create, attempt: _Attempt) -> asyncio.Future[Reply[Created]]:
        if attempt.abandoned:
            raise asyncio.CancelledError
        future = self._call(operation)
        if operation.mode.is_ephemeral:
            # When the answer comes, not when this task runs again: another's search may come between.
            future.add_done_callback(self._claim)
        return future

    def _claim(self, future: asyncio.Future[Reply[Created]]) -> None:
        if not future.cancelled() and future.exception() is None:
            made = future.result().value
            if made.stat is not None:
                self._find_out.claims.claim(made.path, self._session.epoch, made.stat)

    async def _create_once(self, attempt: _Attempt) -> Reply[Created]:
        operation, claims = attempt.operation, self._find_out.claims
        while True:
            sent = self._find_out.sent("create", operation.path, attempt.deadline_s)
            number = claims.begin(sent) if operation.mode.is_ephemeral else None
            try:
                answer = self._send(operation, attempt)
                attempt.on_sent()
                return await answer
            except ConnectionLoss:
                found = await self._find_out.create(sent, operation, attempt.prefix)
                if found is not None:
                    return found
            finally:
                if number is not None:
                    claims.end(number)

    async def set_data(self, operation: SetData, *, deadline_s: float | None = None) -> Reply[Stat]:
        """Raises: NoNode, BadVersion (with the actual version), NoAuth, TooLarge, OutcomeUnknown."""
        return await self._versioned("set", operation, deadline_s)

    async def delete(self, operation: Delete, *, deadline_s: float | None = None) -> Reply[None]:
        """Raises: NoNode, NotEmpty, BadVersion (with the actual version), NoAuth, OutcomeUnknown."""
        return await self._versioned("delete", operation, deadline_s)

    async def set_acl(self, operation: SetAcl, *, deadline_s: float | None = None) -> Reply[Stat]:
        """Raises: NoNode, InvalidAcl, BadVersion (with the actual version), NoAuth, OutcomeUnknown."""
        return await self._versioned("set of the ACL", operation, deadline_s)

    async def _versioned(self, what: str, operation: SetData | Delete | SetAcl, deadline_s: float | None) -> Reply[Any]:
        """A write that compares a version: sent again as long as it surely was not applied."""
        while True:
            sent = self._find_out.sent(what, operation.path, deadline_s)
            try:
                return await self._call(operation)
            except ConnectionLoss:
                await self._find_out.other(sent, operation)
            except BadVersion:
                of_acl = isinstance(operation, SetAcl)
                raise await self._with_actual(operation.path, operation.version, of_acl=of_acl) from None

    async def _with_actual(self, path: str, expected: int, *, of_acl: bool = False) -> BadVersion:
        """The refusal with the version that the node has now; without it if that cannot be read: whatever stands in
        the way of a look that is only to help never takes the refusal's place."""
        try:
            stat = (await self._call(Exists(path))).value
        except ZksideError as unseen:
            return BadVersion(
                f"{path} does not have version {expected}; which one it has cannot be read ({unseen})",
                path=path,
                expected=str(expected),
            )
        if stat is None:
            gone = f"{path} was expected at version {expected} and is gone"
            return BadVersion(gone, path=path, expected=str(expected))
        actual = stat.aversion if of_acl else stat.version
        return BadVersion(
            f"{path} has version {actual}, expected was {expected}",
            path=path,
            expected=str(expected),
            actual=str(actual),
        )

    async def transact(
        self, operations: Sequence[Write], *, deadline_s: float | None = None
    ) -> Reply[TransactionResult]:
        """All or nothing; a refusal is a result. Raises: TooLarge, NotSupported, OutcomeUnknown."""
        operation = Transaction(tuple(operations))
        while True:
            sent = self._find_out.sent("transaction", operations[0].path, deadline_s)
            try:
                return await self._call(operation)
            except ConnectionLoss:
                await self._find_out.transaction(sent, operation)

    async def transact_guarded(
        self, path: str, czxid: int, operations: Sequence[Write], *, deadline_s: float | None = None
    ) -> Reply[TransactionResult]:
        """A transaction that commits only while the node exists that was created by czxid (H3).

        A Check ahead of the operations refuses it once that node is gone. A Check cannot compare czxid, so
        there is one way past it: somebody else deleted the node and made another in its place, and this
        host's server has not heard of it yet. To be sure, the node is read behind the transaction, on the
        same connection: if it still has its czxid then it existed all the time. Names with a sequence
        number or a UUID are not made again, so for them the Check alone is proof.

        Raises: HoldLost: metadata `committed` is "false" when the Check refused; it is "true" in the one
        case above, in which the transaction was applied although the node may have been gone. OutcomeUnknown.
        """
        steps = (Check(path), *operations)
        operation = Transaction(steps)
        while True:
            sent = self._find_out.sent("transaction", operations[0].path, deadline_s)
            reply, proof = await asyncio.gather(self._call(operation), self._call(Exists(path)), return_exceptions=True)
            if isinstance(reply, ConnectionLoss):
                await self._find_out.transaction(sent, operation)
                continue
            if isinstance(reply, BaseException):
                raise reply
            committed, results = reply.value.committed, reply.value.results
            if not committed and isinstance(results[0], NoNode):
                raise HoldLost(f"{path} is gone, so nothing was changed", path=path, committed="false")
            if committed:
                if isinstance(proof, ConnectionLoss | SessionSuspended):
                    _, (proof_stat,) = await self._find_out.look(sent, Exists(path))
                elif isinstance(proof, BaseException):
                    # It is committed, whatever may be seen. A node is there, or the answer would be another.
                    proof_stat = None
                    if isinstance(proof, NoAuth) and is_numbered(path):
                        return Reply(reply.zxid, TransactionResult(committed, results[1:]))
                else:
                    proof_stat = proof.value
                if not isinstance(proof_stat, Stat) or proof_stat.czxid != czxid:
                    raise HoldLost(
                        f"the transaction was committed, but {path} is not the node any more that was held: it may "
                        "have been lost before",
                        path=path,
                        committed="true",
                        zxid=f"{reply.zxid:#x}",
                    )
            return Reply(reply.zxid, TransactionResult(committed, results[1:]))

    async def delete_tree(self, path: str, *, deadline_s: float | None = None) -> Reply[int]:
        """Delete a node and all below it, deepest first; the answer counts the nodes.

        Not atomic: what others create below meanwhile is deleted too. Raises: NoNode; NoAuth;
        OutcomeUnknown (metadata `deleted`) when it was cut off halfway. Cancellation: leaves a part deleted.
        """
        deleted = 0
        sent = self._find_out.sent("recursive delete", path, deadline_s)
        for _ in range(MAX_SWEEPS):
            try:
                for level in reversed(await self._levels(path)):
                    for start in range(0, len(level), BATCH):
                        done, failure = await self._delete_each(level[start : start + BATCH])
                        deleted += done
                        if failure is not None:
                            raise failure
                return Reply(self._session.last_zxid, deleted)
            except NotEmpty:
                continue
            except NoNode:
                if not deleted:
                    raise
                return Reply(self._session.last_zxid, deleted)
            except SessionSuspended:
                if not deleted:
                    raise
                await self._come_back(sent, deleted)
            except ConnectionLoss:
                await self._come_back(sent, deleted)
        raise NotEmpty(f"others keep creating nodes below {path}; {deleted} were deleted", deleted=str(deleted))

    async def _come_back(self, sent: Sent, deleted: int) -> None:
        """Wait for the session, to go on with a recursive delete that has done a part of its work."""
        try:
            await self._find_out.look(sent)
        except OutcomeUnknown as unknown:
            unknown.metadata["deleted"] = str(deleted)
            raise

    async def _levels(self, path: str) -> list[list[str]]:
        """The subtree, level by level. Raises: NoNode if its root is gone."""
        levels, level = [], [path]
        while level:
            levels.append(level)
            below: list[str] = []
            for start in range(0, len(level), BATCH):
                batch = level[start : start + BATCH]
                reply = await self._call(ReadMany(tuple(map(GetChildren, batch))))
                for each, names in zip(batch, reply.value, strict=True):
                    if isinstance(names, list):
                        below += [paths.join(each, name) for name in names]
                    elif not isinstance(names, NoNode) and isinstance(names, Exception):
                        raise names
                    elif each == path:
                        raise NoNode.at(path)
            level = below
        return levels

    async def _delete_each(self, batch: Iterable[str]) -> tuple[int, Exception | None]:
        """How many were deleted, and the first failure; what was gone already is none.

        One whose answer was lost does not count: the next sweep finds it, or finds it gone.
        """
        calls = [self._call(Delete(each, ANY_VERSION)) for each in batch]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        failures = [each for each in answers if isinstance(each, Exception) and not isinstance(each, NoNode)]
        return sum(not isinstance(each, BaseException) for each in answers), failures[0] if failures else None
