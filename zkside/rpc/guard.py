"""What stands before every handler where there is a policy or an audit log: who calls, whether they may, and a record.

    peer (rpc/identity.py) → identity → what the request needs (rpc/needs.py) → decision (core/policy.py) → quota
    → chroot on (rpc/chroot.py) → handler → chroot off → record (rpc/recording.py)

A daemon that has neither has no Guard, and its handlers are registered as they are.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from zkside import log
from zkside.core.policy import Policy, Verb
from zkside.errors import Denied, InvalidArgument, Quota, Unauthenticated, ZksideError
from zkside.hub.hub import Hub
from zkside.hub.reads import Consistency, Freshness
from zkside.model import path as paths
from zkside.model.hold import HoldUpdate, Reason
from zkside.model.identity import Peer
from zkside.pb import group_pb2, hold_pb2, node_pb2
from zkside.recipes.hold import Hold
from zkside.recipes.holds import Holds
from zkside.rpc import convert
from zkside.rpc.audit import AuditLog
from zkside.rpc.caller import Caller, Callers
from zkside.rpc.hold import IDENTITY
from zkside.rpc.identity import Context, Door
from zkside.rpc.interceptors import Answer, Call, Opening, Recall, StreamCall
from zkside.rpc.needs import CARRIED, TABLE, Ask, Asks, Row
from zkside.rpc.recording import Record
from zkside.rpc.served import Served, noted

Handler = Callable[[Any, Any], Any]


def _never(request: Any) -> Iterable[Ask]:
    raise Denied("the policy knows no such method, so nobody may call it")


_NO_ROW = Row("nobody may call it", _never, is_audited=True)
_CACHED = Freshness(Consistency.CACHED)


class Guard:
    """Wraps handlers when they are registered, and ends what a change of the policy no longer allows."""

    def __init__(self, holds: Holds, hub: Hub, audit: AuditLog | None) -> None:
        """Without a policy everybody may do everything, on record; `apply` gives it one."""
        self._holds = holds
        self._reads = hub.reads
        self._audit = audit
        self._callers = Callers()
        self._served: set[Served] = set()
        self._watch_owners: dict[str, str] = {}
        self._denied: Counter[str] = Counter()
        self._unauthenticated = 0
        self._over: Counter[str] = Counter()

    # The policy

    def apply(self, policy: Policy) -> None:
        """From now on this policy counts, also for what is open."""
        self._callers.apply(policy)
        log.policy_applied(identities=len(self._callers), streams=self.recheck())

    def recheck(self) -> int:
        """End what is open and would not be let in now; returns how many streams and carried holds that is."""
        count = 0
        for served in [*self._served]:
            if served.denied is None and (denied := self._refusal(served)) is not None:
                served.deny(denied)
                count += 1
        for hold in self._holds.owned():
            # One that was never granted and has no stream is of a request under way, and goes with that.
            if hold.czxid and not hold.attached and not self._may_hold(hold):
                hold.recall(Reason.POLICY_DENIED)
        return count

    def _refusal(self, served: Served) -> Denied | None:
        try:
            caller = self._callers.of(served.door.peer(served.call.context))
        except Unauthenticated:
            return Denied("what this stream was let in by does not let in any more")
        before = served.caller
        if (caller.name, caller.root) != (before.name, before.root):
            return Denied("by the policy, which has changed, this caller is somebody else now")
        served.caller = caller
        try:
            for ask in served.asks:
                caller.allowing(ask, caller.node(ask))
        except Denied as denied:
            return denied
        return None

    def _may_hold(self, hold: Hold) -> bool:
        caller = self._callers.named(hold.terms.identity)
        return caller is not None and caller.may(Verb.HOLD, hold.terms.requested_path)

    # Handlers

    def around(
        self, method: MethodDescriptor, handler: Handler, recall: Recall | None, door: Door
    ) -> tuple[Handler, Door]:
        """The handler, and the door, to register for a method instead of these. `recall` is asked by it."""
        name = f"{method.containing_service.full_name}/{method.name}"
        row = TABLE.get(name, _NO_ROW)
        if row.is_open:
            return handler, door
        recording = _RecordingDoor(door, lambda context: self._stranger(name, door, context))
        output = GetMessageClass(method.output_type)
        if not method.server_streaming:
            return self._unary(name, row, handler, recall, output), recording
        return self._stream(name, row, handler, output, door), recording

    def _unary(
        self, name: str, row: Row, handler: Handler, recall: Recall | None, output: type[Message]
    ) -> Callable[[Any, Call], Awaitable[Answer]]:
        async def serve(request: Any, call: Call) -> Answer:
            record = Record(self._audit, name, call.peer, is_audited=row.is_audited)
            try:
                caller = self._caller(call.peer, record)
                usage = caller.usage
                if (over := caller.over("calls", caller.limits.calls, usage.calls)) is not None:
                    raise over
                usage.calls += 1
                try:
                    await self._admit(caller, row, request, record)
                    answer = await _answered(caller, handler, recall, request, call)
                finally:
                    usage.calls -= 1
            except BaseException as error:
                self._count(error)
                record.failed(error)
                raise
            record.answered(answer)
            return answer if caller.chroot is None else caller.chroot.leave(_message(output, answer))

        return serve

    def _stream(
        self, name: str, row: Row, handler: Handler, output: type[Message], door: Door
    ) -> Callable[[Any, StreamCall], AsyncGenerator[Answer, None]]:
        async def serve(request: Any, call: StreamCall) -> AsyncGenerator[Answer, None]:
            record = Record(self._audit, name, call.peer, is_audited=row.is_audited)
            served: Served | None = None
            try:
                caller = self._caller(call.peer, record)
                asks = await self._admit(caller, row, request, record)
                with self._using(caller, "streams"), self._using(caller, "watches", row.watches(request)):
                    served = Served(self._holds, row, record, caller, door, call, asks)
                    self._enter(served)
                    async with aclosing(self._answers(served, handler, request)) as answers:
                        async for answer in answers:
                            yield answer if caller.chroot is None else caller.chroot.leave(_message(output, answer))
                    if served.denied is not None:
                        raise served.denied
            except BaseException as error:
                self._failed(record, served, call.stream.ending or error)
                raise
            finally:
                if served is not None:
                    self._leave(served)

        return serve

    def _answers(self, served: Served, handler: Handler, request: Any) -> AsyncGenerator[Answer, None]:
        row = served.row
        if row.one_by_one:
            return self._one_by_one(served, handler, request)
        if row.carries:
            return _scrubbed(served.caller, handler, request, _CarryCall(self, served))
        if row.opens_hold:
            IDENTITY.set(served.caller.identity_name)
            self._check_holds(served.caller, request)
            return self._of_hold(served, handler, _entered(served.caller, request))
        if isinstance(request, group_pb2.WatchGroupRequest):
            return self._of_group(served, handler, _entered(served.caller, request))
        return _scrubbed(served.caller, handler, _entered(served.caller, request), served.call)

    async def _of_hold(self, served: Served, handler: Handler, request: Any) -> AsyncGenerator[Answer, None]:
        reason = ""
        async with aclosing(_scrubbed(served.caller, handler, request, served.call)) as updates:
            async for update in updates:
                assert isinstance(update, hold_pb2.HoldUpdate)
                noted(served, update)
                reason = update.reason
                yield update
        if served.denied is None:
            served.record.ended(reason, served.fencing_token)

    async def _of_group(self, served: Served, handler: Handler, request: Any) -> AsyncGenerator[Answer, None]:
        async with aclosing(_scrubbed(served.caller, handler, request, served.call)) as answers:
            async for answer in answers:
                assert isinstance(answer, group_pb2.WatchGroupResponse)
                if not served.watch_id:
                    served.watch_id = answer.watch_id
                    self._watch_owners[answer.watch_id] = served.caller.identity_name
                yield answer

    async def _one_by_one(
        self, served: Served, handler: Handler, requests: AsyncIterator[node_pb2.PipelineRequest]
    ) -> AsyncGenerator[Answer, None]:
        """A Pipeline: it has one answer for each request, in order. That of a denied one is replaced."""
        verdicts: deque[tuple[tuple[str, ...], ZksideError | None]] = deque()

        async def allowed() -> AsyncIterator[node_pb2.PipelineRequest]:
            async for request in requests:
                record = Record(None, "", None, is_audited=False)
                try:
                    await self._admit(served.caller, served.row, request, record, served.row.asks_each)
                except ZksideError as error:
                    self._count(error)
                    verdicts.append((record.paths, error))
                    # One without an operation is refused in its turn, and nothing is sent for it.
                    yield node_pb2.PipelineRequest(id=request.id)
                else:
                    verdicts.append((record.paths, None))
                    yield _entered(served.caller, request)

        async with aclosing(_scrubbed(served.caller, handler, allowed(), served.call)) as answers:
            async for answer in answers:
                assert isinstance(answer, node_pb2.PipelineResponse)
                wanted, refused = verdicts.popleft()
                if refused is not None:
                    answer.result.failure.CopyFrom(convert.failure(refused))
                served.record.one_answered(answer, wanted)
                yield answer

    async def carried(
        self, stream: Served, step: str, opening: Opening, request: Any
    ) -> AsyncGenerator[HoldUpdate, None]:
        """As `opening`, guarded: the updates of a hold that a step of a Carry stream asks for."""
        name = CARRIED[step]
        row = TABLE[name]
        record = Record(self._audit, name, stream.call.peer, is_audited=row.is_audited)
        served: Served | None = None
        try:
            caller = stream.caller
            record.identity = caller.name
            if stream.denied is not None:
                raise stream.denied
            asks = await self._admit(caller, row, request, record)
            IDENTITY.set(caller.identity_name)
            self._check_holds(caller, request)
            served = Served(self._holds, row, record, caller, stream.door, stream.call, asks, stream)
            self._enter(served)
            reason = ""
            async with aclosing(opening(_entered(caller, request))) as updates:
                async for update in updates:
                    served.note(update.hold_id, update.path, update.state, update.fencing_token)
                    reason = update.reason.value
                    yield update
            if served.denied is not None:
                raise served.denied
            record.ended(reason, served.fencing_token)
        except BaseException as error:
            self._failed(record, served, stream.call.stream.ending or error)
            raise
        finally:
            if served is not None:
                self._leave(served)

    # Admission

    def _caller(self, peer: Peer | None, record: Record) -> Caller:
        assert peer is not None, "where there is a guard callers are told apart"
        caller = self._callers.of(peer)
        record.identity = caller.name
        return caller

    async def _admit(
        self, caller: Caller, row: Row, request: Any, record: Record, asking: Asks | None = None
    ) -> tuple[Ask, ...]:
        """What the request asks for, if it may. Raises: Denied; BadRequest."""
        asks = []
        nodes: list[str] = []
        parents: dict[str, Ask] = {}
        try:
            if row.of_hold:
                self._check_hold(caller, getattr(request, row.of_hold), nodes)
            if row.of_watch:
                self._check_watch(caller, getattr(request, row.of_watch))
            for ask in (asking or row.asks)(request):
                node = caller.node(ask)
                nodes.append(node)
                asks.append(ask)
                rule = caller.allowing(ask, node)
                if ask.makes_parents and rule is not None:
                    parents.setdefault(paths.parent(rule.path), ask)
        finally:
            record.paths = tuple(nodes)
        for parent, ask in parents.items():
            # What would be made above the rule's path is not covered by it.
            if parent != "/" and (await self._reads.exists(parent, _CACHED)).value is None:
                raise caller.denied(ask, f"{parent} does not exist, and would have to be made")
        return tuple(asks)

    def _check_hold(self, caller: Caller, hold_id: str, nodes: list[str]) -> None:
        hold = self._holds.find(hold_id) if hold_id else None
        if hold is None or caller.identity is None:
            return
        path = hold.path or hold.terms.requested_path
        nodes.append(path)
        if hold.terms.identity != caller.name and not caller.may(Verb.ADMIN, path):
            raise Denied(f"the hold is not one of {caller.name!r}", identity=caller.name)

    def _check_watch(self, caller: Caller, watch_id: str) -> None:
        if caller.identity is not None and self._watch_owners.get(watch_id) != caller.name:
            raise InvalidArgument("there is no WatchGroup stream of this name (any more)", field="watch_id")

    def _check_holds(self, caller: Caller, request: Any) -> None:
        """Nothing may be awaited between this and the opening of the hold."""
        if not request.resume_token:
            present = self._holds.count_of(caller.identity_name)
            if (over := caller.over("holds", caller.limits.holds, present)) is not None:
                raise over

    def over_holds(self, caller: Caller, present: int) -> Quota | None:
        """The error, counted, if a caller with so many holds may have no more."""
        over = caller.over("holds", caller.limits.holds, present)
        if over is not None:
            self._count(over)
        return over

    @contextmanager
    def _using(self, caller: Caller, what: str, count: int = 1) -> Iterator[None]:
        """Counts against the quota inside the block. Raises: Quota."""
        usage = caller.usage
        present: int = getattr(usage, what)
        over = caller.over(what, getattr(caller.limits, what), present, count)
        if over is not None and count:
            raise over
        setattr(usage, what, present + count)
        try:
            yield
        finally:
            setattr(usage, what, getattr(usage, what) - count)

    def _enter(self, served: Served) -> None:
        """From now on a change of the policy ends it. Raises: Denied, if one came while it was being let in."""
        self._served.add(served)
        caller = served.caller
        is_old = caller.identity is not None and self._callers.named(caller.name) is not caller
        if is_old and (denied := self._refusal(served)) is not None:
            raise denied

    def _leave(self, served: Served) -> None:
        self._served.discard(served)
        self._watch_owners.pop(served.watch_id, None)
        served.left()

    # Record

    def _failed(self, record: Record, served: Served | None, error: BaseException) -> None:
        self._count(error)
        if served is None or not served.hold_id:
            record.failed(error)
        else:
            record.failed(error, event="ended", fencing_token=served.fencing_token)

    def _stranger(self, name: str, door: Door, context: Context) -> None:
        self._unauthenticated += 1
        peer = Peer(door.listener.address, address=context.peer())
        Record(self._audit, name, peer, is_audited=True).failed(Unauthenticated())

    def _count(self, error: BaseException) -> None:
        if isinstance(error, Unauthenticated):
            self._unauthenticated += 1
        elif isinstance(error, Denied):
            self._denied[error.metadata.get("verb", "own")] += 1
        elif isinstance(error, Quota) and "identity" in error.metadata:
            self._over[error.metadata["limit"]] += 1

    def collect(self) -> Iterator[Metric]:
        """The families `zkside_policy…` and `zkside_audit…`."""
        yield GaugeMetricFamily("zkside_policy_identities", "Identities of the policy.", value=len(self._callers))
        denied = CounterMetricFamily("zkside_policy_denied", "What was denied.", labels=("verb",))
        for verb in (*(each.value for each in Verb), "own"):
            denied.add_metric((verb,), self._denied[verb])
        yield denied
        yield CounterMetricFamily(
            "zkside_policy_unauthenticated", "Calls of nobody that the daemon knows.", value=self._unauthenticated
        )
        over = CounterMetricFamily("zkside_policy_over_quota", "Refused beyond an identity's quota.", labels=("limit",))
        for limit in ("streams", "calls", "holds", "watches"):
            over.add_metric((limit,), self._over[limit])
        yield over
        if self._audit is not None:
            yield from self._audit.collect()


class _RecordingDoor(Door):
    """A door of which it is told who was not let in."""

    def __init__(self, door: Door, tell: Callable[[Context], None]) -> None:
        self.listener = door.listener
        self._behind = door
        self._tell = tell

    def peer(self, context: Context) -> Peer:
        try:
            return self._behind.peer(context)
        except Unauthenticated:
            self._tell(context)
            raise


class _CarryCall(StreamCall):
    """Of a Carry stream, whose holds are guarded one by one."""

    __slots__ = ("_guard", "_served")

    def __init__(self, guard: Guard, served: Served) -> None:
        call = served.call
        super().__init__(call.context, call.stream, call.peer)
        self._guard = guard
        self._served = served

    def carried(self, step: str, opening: Opening, request: Any) -> AsyncGenerator[HoldUpdate, None]:
        return self._guard.carried(self._served, step, opening, request)

    def over_carried(self, carried: int) -> Quota | None:
        return self._guard.over_holds(self._served.caller, carried)


async def _answered(caller: Caller, handler: Handler, recall: Recall | None, request: Any, call: Call) -> Answer:
    chroot = caller.chroot
    if chroot is None:
        if recall is not None and (recalled := recall(call.raw)) is not None:
            return recalled
        answer: Answer = await handler(request, call)
        return answer
    entered = chroot.enter(request)
    raw = entered.SerializeToString() if recall is not None else b""
    if recall is not None and (recalled := recall(raw)) is not None:
        return recalled
    try:
        answer = await handler(entered, Call(call.context, raw, call.peer))
    except ZksideError as error:
        raise chroot.error(error) from None
    return answer


async def _scrubbed(caller: Caller, handler: Handler, request: Any, call: StreamCall) -> AsyncGenerator[Answer, None]:
    """The answers of a streaming handler; its errors are those that the caller may hear."""
    try:
        async with aclosing(handler(request, call)) as answers:
            async for answer in answers:
                yield answer
    except ZksideError as error:
        if caller.chroot is None:
            raise
        raise caller.chroot.error(error) from None


def _entered(caller: Caller, request: Any) -> Any:
    """The request as the handler is to see it. (A stream of requests has no paths of its own.)"""
    return caller.chroot.enter(request) if caller.chroot is not None and isinstance(request, Message) else request


def _message(output: type[Message], answer: Answer) -> Message:
    return output.FromString(answer) if isinstance(answer, bytes) else answer
