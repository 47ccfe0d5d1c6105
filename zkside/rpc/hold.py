"""HoldService: acts on a hold apart from its stream."""

from __future__ import annotations

from zkside.errors import InvalidArgument
from zkside.pb import hold_pb2
from zkside.recipes.holds import Holds
from zkside.rpc import convert
from zkside.rpc.interceptors import Call
from zkside.zk.session import Session


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
