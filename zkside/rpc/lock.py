"""LockService: locks, read-write locks and semaphores."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType

from zkside.core.queueing import Kind
from zkside.errors import InvalidArgument
from zkside.hub.hub import Hub
from zkside.model import path as paths
from zkside.model.hold import HoldUpdate
from zkside.model.operation import Acl
from zkside.pb import hold_pb2, lock_pb2
from zkside.recipes import contenders
from zkside.recipes.holds import Holds
from zkside.recipes.lock import LEASES, MUTEX, RECIPE, acquire_permit
from zkside.recipes.queueing import Bid, Queueing
from zkside.rpc import convert, hold
from zkside.rpc.interceptors import Call, StreamCall

_M, _L = lock_pb2.LockMode, lock_pb2.LockLayout

_CURATOR: Mapping[int, Kind] = {
    _M.LOCK_MODE_EXCLUSIVE: Kind.LOCK,
    _M.LOCK_MODE_SHARED: Kind.READ,
    _M.LOCK_MODE_SEMAPHORE: Kind.LEASE,
}
_READ_WRITE: Mapping[int, Kind] = {_M.LOCK_MODE_EXCLUSIVE: Kind.WRITE, _M.LOCK_MODE_SHARED: Kind.READ}
_KAZOO: Mapping[int, Kind] = {_M.LOCK_MODE_EXCLUSIVE: Kind.KAZOO_LOCK, _M.LOCK_MODE_SHARED: Kind.KAZOO_READ}
LAYOUTS: Mapping[int, Mapping[int, Kind]] = MappingProxyType(
    {
        _L.LOCK_LAYOUT_UNSPECIFIED: _CURATOR,
        _L.LOCK_LAYOUT_CURATOR: _CURATOR,
        _L.LOCK_LAYOUT_CURATOR_READ_WRITE: _READ_WRITE,
        _L.LOCK_LAYOUT_KAZOO: _KAZOO,
    }
)
"""The kind of contender, by layout and mode."""


class LockServicer:
    """`lock.proto`, which documents the promises."""

    def __init__(self, hub: Hub, holds: Holds, queueing: Queueing, default_acl: tuple[Acl, ...]) -> None:
        self._hub = hub
        self._holds = holds
        self._queueing = queueing
        self._default_acl = default_acl

    def acquire(self, request: lock_pb2.AcquireRequest, call: StreamCall) -> AsyncGenerator[hold_pb2.HoldUpdate, None]:
        return hold.stream(self._holds, self.acquiring(request), call)

    def acquiring(self, request: lock_pb2.AcquireRequest) -> AsyncGenerator[HoldUpdate, None]:
        """The updates of the hold that is asked for. Raises: InvalidArgument, InvalidPath."""
        kind = _kind(request)
        bid = Bid(
            paths.validate(request.path),
            kind,
            request.value or request.owner.encode(),
            convert.acl(request.acl, self._default_acl),
            hold.wait_timeout_s(request),
        )
        terms = hold.terms(
            request, RECIPE, bid.path, owner=request.owner, is_exclusive=True, is_revocable=request.revocable
        )
        if kind is Kind.LEASE:
            return self._holds.wait_for(
                terms, request.resume_token, lambda it: acquire_permit(self._queueing, it, bid, request.permits)
            )
        return self._holds.wait_for(terms, request.resume_token, lambda it: self._queueing.first(it, bid))

    async def get_contenders(
        self, request: lock_pb2.GetContendersRequest, call: Call
    ) -> lock_pb2.GetContendersResponse:
        path, freshness = paths.validate(request.path), convert.freshness(request)
        if request.mode not in _M.values():
            raise InvalidArgument(f"{request.mode} is no mode that this daemon knows", field="mode")
        below = (LEASES, MUTEX) if request.mode == _M.LOCK_MODE_SEMAPHORE else ("",)
        response = lock_pb2.GetContendersResponse()
        for name in below:
            answer = await contenders.read(self._hub.reads, paths.join(path, name) if name else path, freshness)
            response.header.CopyFrom(convert.answer_header(self._holds.session, answer))
            response.contenders.extend(
                convert.contender(place, is_holder=place.is_holder and name != MUTEX) for place in answer.value
            )
        return response


def _kind(request: lock_pb2.AcquireRequest) -> Kind:
    kinds = convert.chosen(LAYOUTS, request.layout, "layout")
    kind = convert.chosen(kinds, request.mode or _M.LOCK_MODE_EXCLUSIVE, "mode")
    if kind is Kind.LEASE and not request.permits:
        raise InvalidArgument("a semaphore has 1 permit or more", field="permits")
    if kind is Kind.LEASE and request.revocable:
        raise InvalidArgument("a permit is not revocable", field="revocable")
    if request.permits and kind is not Kind.LEASE:
        raise InvalidArgument("only for SEMAPHORE", field="permits")
    return kind
