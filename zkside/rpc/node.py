"""NodeService: reads, writes, and the ephemeral hold."""

from __future__ import annotations

import asyncio
import base64
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import ExitStack, aclosing
from functools import partial
from typing import TypeVar

from zkside.errors import InvalidArgument, TooLarge, TooStale, ZksideError
from zkside.hub.hub import Hub
from zkside.hub.reads import Answer, Freshness, ReadState
from zkside.model import path as paths
from zkside.model.hold import HoldUpdate, OnExists
from zkside.model.operation import OPEN_ACL, Acl, Create, CreateMode, Delete, GetAcl, SetAcl, SetData, Sync
from zkside.model.record import Record
from zkside.pb import common_pb2, hold_pb2, node_pb2
from zkside.recipes.ephemeral import RECIPE, create_owned, hold_ephemeral
from zkside.recipes.holds import Holds
from zkside.recipes.node import Writes
from zkside.rpc import convert, hold
from zkside.rpc.flow import SMALL_BYTES, Flow, owner
from zkside.rpc.interceptors import Call, StreamCall
from zkside.rpc.pipeline import Pipeline
from zkside.rpc.remembered import RememberedGets
from zkside.zk.session import Session

T = TypeVar("T")

MAX_PATHS = 10_000
MAX_OPERATIONS = 10_000
DEFAULT_PAGE = 1_000
MAX_PAGE = 10_000
PAGE_BYTES = 2 * 1024 * 1024
"""A page with nodes ends early when it holds so much data: clients take 4 MiB by default."""
ANSWER_MARGIN_S = 0.02
"""So long before its deadline a read that waits for min_zxid answers TOO_STALE."""


class NodeServicer:
    """`node.proto`, which documents the promises."""

    def __init__(
        self,
        session: Session,
        hub: Hub,
        writes: Writes,
        holds: Holds,
        default_acl: tuple[Acl, ...],
        flow: Flow,
        *,
        max_pipeline: int,
    ) -> None:
        self._session = session
        self._flow = flow
        self._reads = hub.reads
        self._remembered = RememberedGets(hub)
        self.recall_get = self._remembered.recall
        self._writes, self._client_writes = writes, writes.yielding()
        self._holds = holds
        self._default_acl = default_acl
        self.max_pipeline = max_pipeline

    # Reads

    async def get(self, request: node_pb2.GetRequest, call: Call) -> bytes:
        path, freshness = paths.validate(request.path), convert.freshness(request)
        answer = self._reads.get_nowait(path, freshness)
        if answer is None or len(answer.value) >= SMALL_BYTES:
            return await self._get_large(path, freshness, call, answer)
        return self._encoded_get(path, answer, call)

    async def _get_large(self, path: str, freshness: Freshness, call: Call, answer: Answer[Record] | None) -> bytes:
        """The answer to a Get that has to wait: for what it asks for, or for room on its way back."""
        if answer is None:
            who = owner("Get", call.context, call.peer)
            answer = await in_time(self._reads.get(path, freshness, who), freshness, call)
        if len(answer.value) >= SMALL_BYTES:
            is_made = answer.root is None  # what is cached takes no more memory while it waits
            await self._flow.answer("Get", call.context, call.peer, len(answer.value), is_made=is_made)
        return self._encoded_get(path, answer, call)

    def _encoded_get(self, path: str, answer: Answer[Record], call: Call) -> bytes:
        response = node_pb2.GetResponse()
        convert.fill_header(response.header, self._session, answer.zxid, stale=answer.stale, age_s=answer.age_s)
        convert.fill_node(response.node, path, answer.value)
        encoded = response.SerializeToString()
        if answer.root is not None and not answer.stale:
            self._remembered.remember(call.raw, path, answer.value, answer.root, encoded)
        return encoded

    async def get_many(self, request: node_pb2.GetManyRequest, call: Call) -> node_pb2.GetManyResponse | bytes:
        if len(request.paths) > MAX_PATHS:
            raise TooLarge(f"at most {MAX_PATHS} paths, not {len(request.paths)}", field="paths")
        wanted = [paths.validate(path, field=f"paths[{n}]") for n, path in enumerate(request.paths)]
        freshness = convert.freshness(request)
        with ExitStack() as held:
            who = owner("GetMany", call.context, call.peer)
            answer = await in_time(self._reads.get_many(wanted, freshness, who, held), freshness, call)
            # Before anything is copied, and each path as often as it is named.
            size_bytes = sum([len(state) for state in answer.value if type(state) is bytes]) + sum(map(len, wanted))
            if size_bytes >= SMALL_BYTES:
                await self._flow.answer("GetMany", call.context, call.peer, size_bytes)
            return _many(self._header(answer), wanted, answer.value)

    async def exists(self, request: node_pb2.ExistsRequest, call: Call) -> node_pb2.ExistsResponse:
        path, freshness = paths.validate(request.path), convert.freshness(request)
        who = owner("Exists", call.context, call.peer)
        answer = await in_time(self._reads.exists(path, freshness, who), freshness, call)
        stat = None if answer.value is None else convert.stat(answer.value)
        return node_pb2.ExistsResponse(header=self._header(answer), exists=stat is not None, stat=stat)

    async def list(self, request: node_pb2.ListRequest, call: Call) -> node_pb2.ListResponse:
        path, freshness = paths.validate(request.path), convert.freshness(request)
        if request.page_size > MAX_PAGE:
            raise InvalidArgument(f"at most {MAX_PAGE}", field="page_size")
        last_seen = _page_token(request.page_token)
        with ExitStack() as held:
            return await self._page(request, path, freshness, last_seen, call, held)

    async def _page(
        self,
        request: node_pb2.ListRequest,
        path: str,
        freshness: Freshness,
        last_seen: str | None,
        call: Call,
        held: ExitStack,
    ) -> node_pb2.ListResponse:
        who = owner("List", call.context, call.peer)
        answer = await in_time(self._reads.children(path, freshness, who, held), freshness, call)
        names = answer.value.names
        start = 0 if last_seen is None else bisect_right(names, last_seen)
        page = names[start : start + (request.page_size or DEFAULT_PAGE)]
        response = node_pb2.ListResponse(stat=convert.stat(answer.value.stat))
        if request.with_nodes and page:
            # A second read, of this page only: the children of a large parent would not fit into one.
            children = [paths.join(path, name) for name in page]
            reading = self._reads.get_some(children, freshness, PAGE_BYTES, f"{who} nodes", held)
            nodes = await in_time(reading, freshness, call)
            answer = answer._replace(zxid=min(answer.zxid, nodes.zxid))
            page = page[: _fitting(nodes.value)]
            states = nodes.value[: len(page)]
            size_bytes = sum([len(state) for state in states if type(state) is bytes])
            if size_bytes >= SMALL_BYTES:
                await self._flow.answer("List", call.context, call.peer, size_bytes)
            for name, child, state in zip(page, children, states, strict=False):
                if isinstance(state, bytes):
                    convert.fill_node(response.nodes.add(), child, state)
                elif state is not None:
                    response.unreadable_names.append(name)
        response.header.CopyFrom(self._header(answer))
        response.names.extend(page)
        if start + len(page) < len(names):
            response.next_page_token = base64.urlsafe_b64encode(page[-1].encode()).decode()
        return response

    async def get_acl(self, request: node_pb2.GetAclRequest, call: Call) -> node_pb2.GetAclResponse:
        who = owner("GetAcl", call.context, call.peer)
        reply = await self._reads.from_server.read(GetAcl(paths.validate(request.path)), who)
        entries, stat = reply.value
        return node_pb2.GetAclResponse(
            header=convert.header(self._session, reply.zxid),
            acl=convert.acl_entries(entries),
            stat=convert.stat(stat),
        )

    async def sync(self, request: node_pb2.SyncRequest, call: Call) -> node_pb2.SyncResponse:
        reply = await self._session.call(Sync(paths.validate(request.path or "/")), yields=True)
        return node_pb2.SyncResponse(header=convert.header(self._session, reply.zxid), zxid=reply.zxid)

    # Writes

    async def create(self, request: node_pb2.CreateRequest, call: Call) -> node_pb2.CreateResponse:
        operation = convert.create(request, self._default_acl, alone=True)
        if operation.mode.is_ephemeral:
            reply = await create_owned(
                self._session,
                self._client_writes,
                operation,
                limit=self._holds.settings.max_holds,
                protected=request.protected,
                make_parents=request.make_parents,
                deadline_s=call.deadline_s(),
            )
        else:
            reply = await self._client_writes.create(
                operation,
                protected=request.protected,
                make_parents=request.make_parents,
                deadline_s=call.deadline_s(),
            )
        if operation.acl != OPEN_ACL:
            self._reads.doubt(reply.value.path)  # of what its own creator may not read comes no event
        return convert.create_response(reply.value, convert.header(self._session, reply.zxid))

    async def set(self, request: node_pb2.SetRequest, call: Call) -> node_pb2.SetResponse:
        operation = SetData(paths.validate(request.path), request.data, convert.version(request))
        reply = await self._client_writes.set_data(operation, deadline_s=call.deadline_s())
        response = node_pb2.SetResponse()
        convert.fill_header(response.header, self._session, reply.zxid)
        convert.fill_stat(response.stat, reply.value)
        return response

    async def delete(self, request: node_pb2.DeleteRequest, call: Call) -> node_pb2.DeleteResponse:
        path, version = convert.deletable(request.path), convert.version(request)
        if not request.recursive:
            reply = await self._client_writes.delete(Delete(path, version), deadline_s=call.deadline_s())
            return node_pb2.DeleteResponse(header=convert.header(self._session, reply.zxid), deleted=1)
        if request.HasField("expected_version"):
            raise InvalidArgument("cannot be combined with recursive", field="expected_version")
        swept = await self._client_writes.delete_tree(path, deadline_s=call.deadline_s())
        return node_pb2.DeleteResponse(header=convert.header(self._session, swept.zxid), deleted=swept.value)

    async def set_acl(self, request: node_pb2.SetAclRequest, call: Call) -> node_pb2.SetAclResponse:
        entries = convert.acl(request.acl, ())
        if not entries:
            raise InvalidArgument("at least one entry", field="acl")
        operation = SetAcl(paths.validate(request.path), entries, convert.version(request))
        try:
            reply = await self._client_writes.set_acl(operation, deadline_s=call.deadline_s())
        finally:
            self._reads.doubt(operation.path)  # no event tells of it
        return node_pb2.SetAclResponse(header=convert.header(self._session, reply.zxid), stat=convert.stat(reply.value))

    async def transact(self, request: node_pb2.TransactRequest, call: Call) -> node_pb2.TransactResponse:
        if not request.operations:
            raise InvalidArgument("at least one operation", field="operations")
        if len(request.operations) > MAX_OPERATIONS:
            raise TooLarge(f"at most {MAX_OPERATIONS} operations, not {len(request.operations)}", field="operations")
        steps = [
            convert.step(operation, self._default_acl, f"operations[{number}]")
            for number, operation in enumerate(request.operations)
        ]
        if request.guard_hold_id:
            guard = self._holds.guard(request.guard_hold_id)
            reply = await self._client_writes.transact_guarded(
                guard.path, guard.czxid, steps, deadline_s=call.deadline_s()
            )
        else:
            reply = await self._client_writes.transact(steps, deadline_s=call.deadline_s())
        return node_pb2.TransactResponse(
            header=convert.header(self._session, reply.zxid),
            committed=reply.value.committed,
            results=list(map(convert.operation_result, steps, reply.value.results)),
        )

    async def pipeline(
        self, requests: AsyncIterator[node_pb2.PipelineRequest], call: StreamCall
    ) -> AsyncGenerator[node_pb2.PipelineResponse, None]:
        if call.waits_for_ready():
            await self._session.wait_connected()
        room = partial(self._flow.request, "Pipeline", call.context, call.peer)
        pipeline = Pipeline(self._session, self._default_acl, room, width=self.max_pipeline)
        call.stream.pending = pipeline.pending
        async with aclosing(pipeline.run(requests)) as answers:
            async for answer in answers:
                yield answer

    # The ephemeral hold

    def hold_ephemeral(
        self, request: node_pb2.HoldEphemeralRequest, call: StreamCall
    ) -> AsyncGenerator[hold_pb2.HoldUpdate, None]:
        return hold.stream(self._holds, self.holding_ephemeral(request, call.deadline_s()), call)

    def holding_ephemeral(
        self, request: node_pb2.HoldEphemeralRequest, deadline_s: float | None = None
    ) -> AsyncGenerator[HoldUpdate, None]:
        """The updates of the node that is asked for. Raises: InvalidArgument, InvalidPath."""
        mode = CreateMode.EPHEMERAL_SEQUENTIAL if request.sequential else CreateMode.EPHEMERAL
        path = paths.validate(request.path, sequential=mode.is_sequential)
        on_exists = hold.on_exists(request)
        if request.sequential and on_exists is not OnExists.FAIL:
            raise InvalidArgument("a sequential node has a name of its own", field="on_exists")
        return hold_ephemeral(
            self._holds,
            self._writes,
            Create(path, request.data, mode, convert.acl(request.acl, self._default_acl)),
            hold.terms(request, RECIPE, path, follows_data=request.recreate),
            make_parents=request.make_parents,
            recreate=request.recreate,
            on_exists=on_exists,
            wait_timeout_s=hold.wait_timeout_s(request),
            resume_token=request.resume_token,
            deadline_s=deadline_s,
        )

    def _header(self, answer: Answer[T]) -> common_pb2.Header:
        return convert.header(self._session, answer.zxid, stale=answer.stale, age_s=answer.age_s)


def in_time(reading: Awaitable[T], freshness: Freshness, call: Call) -> Awaitable[T]:
    """A read that waits for min_zxid says TOO_STALE just before its caller's deadline."""
    deadline_s = call.deadline_s() if freshness.min_zxid else None
    return reading if deadline_s is None else _until(deadline_s, reading, freshness)


async def _until(deadline_s: float, reading: Awaitable[T], freshness: Freshness) -> T:
    try:
        async with asyncio.timeout_at(deadline_s - ANSWER_MARGIN_S):
            return await reading
    except TimeoutError:
        raise TooStale(f"transaction {freshness.min_zxid:#x} was not seen in time") from None


def _many(header: common_pb2.Header, wanted: Sequence[str], states: Sequence[ReadState]) -> bytes:
    """Encodes the answer, each node once however often it is named: encoded messages behind one another are one
    message with the results of all."""
    response = node_pb2.GetManyResponse(header=header)
    if len(set(wanted)) == len(wanted):
        add = response.results.add
        for path, state in zip(wanted, states, strict=True):
            _fill_result(add(path=path), path, state)
        return response.SerializeToString()
    encoded: dict[str, bytes] = {}
    for path, state in zip(wanted, states, strict=True):
        if path not in encoded:
            one = node_pb2.GetManyResponse()
            _fill_result(one.results.add(path=path), path, state)
            encoded[path] = one.SerializeToString()
    return b"".join((response.SerializeToString(), *(encoded[path] for path in wanted)))


def _fill_result(result: node_pb2.GetManyResult, path: str, state: ReadState) -> None:
    if isinstance(state, ZksideError):
        result.failure.CopyFrom(convert.failure(state))
    elif state is not None:
        convert.fill_node(result.node, path, state)


def _fitting(states: Sequence[ReadState]) -> int:
    """How many of these fit into a page; one at least."""
    size_bytes = 0
    for count, state in enumerate(states):
        if size_bytes > PAGE_BYTES:
            return count
        if isinstance(state, bytes):
            size_bytes += len(state)
    return len(states)


def _page_token(token: str) -> str | None:
    """The last name of the page before."""
    if not token:
        return None
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise InvalidArgument("not a token of an earlier answer", field="page_token") from None
