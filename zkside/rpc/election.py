"""ElectionService: one leader among the candidates of a path."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import MappingProxyType

from zkside.core.queueing import Kind
from zkside.errors import HoldLost, InvalidArgument, NoNode
from zkside.hub.hub import Hub
from zkside.model import path as paths
from zkside.model.hold import HoldUpdate
from zkside.model.operation import ANY_VERSION, Acl, SetData
from zkside.pb import election_pb2, hold_pb2
from zkside.recipes import contenders
from zkside.recipes.holds import Holds
from zkside.recipes.node import Writes
from zkside.recipes.queueing import Bid, Queueing
from zkside.rpc import convert, hold
from zkside.rpc.interceptors import Call, StreamCall

RECIPE = "election"

_L = election_pb2.ElectionLayout

KINDS: Mapping[int, Kind] = MappingProxyType(
    {
        _L.ELECTION_LAYOUT_UNSPECIFIED: Kind.LATCH,
        _L.ELECTION_LAYOUT_LATCH: Kind.LATCH,
        _L.ELECTION_LAYOUT_LOCK: Kind.LOCK,
        _L.ELECTION_LAYOUT_KAZOO: Kind.KAZOO_LOCK,
    }
)


class ElectionServicer:
    """`election.proto`, which documents the promises."""

    def __init__(
        self, hub: Hub, holds: Holds, queueing: Queueing, writes: Writes, default_acl: tuple[Acl, ...]
    ) -> None:
        self._hub = hub
        self._holds = holds
        self._session = holds.session
        self._queueing = queueing
        self._writes = writes.yielding()
        """For Proclaim alone."""
        self._default_acl = default_acl

    def campaign(
        self, request: election_pb2.CampaignRequest, call: StreamCall
    ) -> AsyncGenerator[hold_pb2.HoldUpdate, None]:
        return hold.stream(self._holds, self.campaigning(request), call)

    def campaigning(self, request: election_pb2.CampaignRequest) -> AsyncGenerator[HoldUpdate, None]:
        """The updates of the hold that is asked for. Raises: InvalidArgument, InvalidPath."""
        bid = Bid(
            paths.validate(request.path),
            convert.chosen(KINDS, request.layout, "layout"),
            request.value or request.candidate_id.encode(),
            convert.acl(request.acl, self._default_acl),
            hold.wait_timeout_s(request),
        )
        terms = hold.terms(request, RECIPE, bid.path, owner=request.candidate_id, is_exclusive=True)
        return self._holds.wait_for(terms, request.resume_token, lambda it: self._queueing.first(it, bid))

    async def observe(
        self, request: election_pb2.ObserveRequest, call: StreamCall
    ) -> AsyncGenerator[election_pb2.ObserveResponse, None]:
        async with aclosing(contenders.observe(self._hub, paths.validate(request.path))) as leaders:
            async for leader in leaders:
                yield election_pb2.ObserveResponse(
                    header=convert.header(self._session, leader.zxid, stale=leader.stale, age_s=leader.age_s),
                    leader=None if leader.place is None else convert.contender(leader.place),
                )

    async def get_leader(self, request: election_pb2.GetLeaderRequest, call: Call) -> election_pb2.GetLeaderResponse:
        path, freshness = paths.validate(request.path), convert.freshness(request)
        answer = await contenders.read(self._hub.reads, path, freshness)
        places = [convert.contender(place) for place in answer.value]
        return election_pb2.GetLeaderResponse(
            header=convert.answer_header(self._session, answer),
            leader=places[0] if places else None,
            contenders=places,
        )

    async def proclaim(self, request: election_pb2.ProclaimRequest, call: Call) -> election_pb2.ProclaimResponse:
        leading = self._holds.guard(request.hold_id)
        if leading.terms.recipe != RECIPE:
            raise InvalidArgument("this hold is no candidacy", field="hold_id")
        try:
            # The name of the node is not made again: as long as it can be set the hold is there.
            operation = SetData(leading.path, request.value, ANY_VERSION)
            reply = await self._writes.set_data(operation, deadline_s=call.deadline_s())
        except NoNode:
            raise HoldLost(f"{leading.path} is gone, so nothing was changed", path=leading.path) from None
        return election_pb2.ProclaimResponse(header=convert.header(self._session, reply.zxid))
