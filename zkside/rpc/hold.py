"""HoldService, which acts on a hold apart from its stream, and what all streams of a hold have in common."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial
from typing import Any

from zkside.errors import InvalidArgument
from zkside.model.hold import OWNER, HoldUpdate, OnExists, Terms
from zkside.pb import hold_pb2
from zkside.recipes.hold import MAX_GRACE_S
from zkside.recipes.holds import Holds
from zkside.rpc import convert
from zkside.rpc.interceptors import Call, StreamCall
from zkside.zk.session import Session

IDENTITY: ContextVar[str] = ContextVar("identity", default="")
"""Whom the policy takes the caller for, in the task that serves it; '' where there is no policy (rpc/guard.py)."""

MAX_WAIT_S = 24 * 3600.0
SHORTEST_HEARTBEAT_S = 0.1
"""A daemon or a client that pauses, as each does now and then for some 10 ms, is no application that hangs. And the
lease of the hold ends when the next heartbeat is due: a shorter one could not be relied on."""
MOST_OF_OWNER = 256
"""Characters of it that the daemon remembers; in ZooKeeper it is whole."""


class HoldServicer:
    """`hold.proto`, which documents the promises."""

    def __init__(self, session: Session, holds: Holds) -> None:
        self._session = session
        self._holds = holds

    async def release(self, request: hold_pb2.ReleaseRequest, call: Call) -> hold_pb2.ReleaseResponse:
        released = await self._holds.release(_hold_id(request.hold_id))
        return hold_pb2.ReleaseResponse(
            header=convert.header(self._session, self._session.last_zxid), released=released
        )

    async def heartbeat(self, request: hold_pb2.HeartbeatRequest, call: Call) -> hold_pb2.HeartbeatResponse:
        hold = self._holds.get(_hold_id(request.hold_id))
        if not hold.terms.heartbeat_timeout_s:
            raise InvalidArgument("this hold was not asked for with heartbeat_timeout", field="hold_id")
        return hold_pb2.HeartbeatResponse(
            header=convert.header(self._session, self._session.last_zxid), due_in=convert.duration(hold.heartbeat())
        )

    async def get_hold(self, request: hold_pb2.GetHoldRequest, call: Call) -> hold_pb2.GetHoldResponse:
        update = self._holds.get(_hold_id(request.hold_id)).present()
        return hold_pb2.GetHoldResponse(
            header=convert.header(self._session, self._session.last_zxid),
            hold=convert.hold(update, with_token=False),
            state=convert.HOLD_STATES[update.state],
        )


def _hold_id(hold_id: str) -> str:
    if not hold_id:
        raise InvalidArgument("a hold_id is needed", field="hold_id")
    return hold_id


ON_EXISTS: Mapping[int, OnExists] = {
    hold_pb2.ON_EXISTS_UNSPECIFIED: OnExists.FAIL,
    hold_pb2.ON_EXISTS_FAIL: OnExists.FAIL,
    hold_pb2.ON_EXISTS_WAIT: OnExists.WAIT,
    hold_pb2.ON_EXISTS_REPLACE: OnExists.REPLACE,
}


def on_exists(request: Any) -> OnExists:
    """Raises: InvalidArgument."""
    chosen = convert.chosen(ON_EXISTS, request.on_exists, "on_exists")
    if chosen is OnExists.FAIL and request.HasField("wait_timeout"):
        raise InvalidArgument("with on_exists FAIL nothing is waited for", field="wait_timeout")
    return chosen


def wait_timeout_s(request: Any) -> float:
    """Of a request that may wait; inf if it is unset. Raises: InvalidArgument."""
    given_s = convert.seconds(request, "wait_timeout", most_s=MAX_WAIT_S)
    return math.inf if given_s is None else given_s


def terms(
    request: Any,
    recipe: str,
    path: str,
    *,
    owner: str = "",
    is_exclusive: bool = False,
    is_revocable: bool = False,
    follows_data: bool = False,
) -> Terms:
    """What a request for a hold says of its life, and of its owner. Raises: InvalidArgument."""
    if request.HasField("heartbeat_timeout") and not request.heartbeat_timeout.ByteSize():
        raise InvalidArgument("leave it unset for none", field="heartbeat_timeout")
    heartbeat_s = convert.seconds(request, "heartbeat_timeout", least_s=SHORTEST_HEARTBEAT_S, most_s=MAX_GRACE_S)
    return Terms(
        recipe,
        path,
        reconnect_grace_s=convert.seconds(request, "reconnect_grace", most_s=MAX_GRACE_S) or 0.0,
        heartbeat_timeout_s=heartbeat_s or 0.0,
        is_exclusive=is_exclusive,
        is_revocable=is_revocable,
        follows_data=follows_data,
        identity=IDENTITY.get(),
        data={OWNER: owner[:MOST_OF_OWNER]} if owner else {},
    )


async def stream(
    holds: Holds, updates: AsyncGenerator[HoldUpdate, None], call: StreamCall
) -> AsyncGenerator[hold_pb2.HoldUpdate, None]:
    """The updates of a hold as its stream sends them."""
    call.stream.ends_by_itself = True
    async with aclosing(updates):
        async for update in updates:
            call.stream.pending = partial(holds.unread, update.hold_id)
            call.stream.before_end = partial(holds.cut, update.hold_id)
            made = convert.hold_update(update)
            convert.fill_header(made.header, holds.session, holds.session.last_zxid)
            yield made
