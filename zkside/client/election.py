"""Elections: to lead, and to know who leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing

import grpc.aio

from zkside.client.calls import Calls
from zkside.client.contender import ElectionLayout, Leader, LeaderChange, contender_of
from zkside.client.following import follow
from zkside.client.hold import Held
from zkside.client.holding import Terms
from zkside.client.link import Link
from zkside.client.reading import Put, Reading
from zkside.client.value import Acl, Consistency, HoldStatus, acl_messages, header_of, optional_duration
from zkside.pb import election_pb2
from zkside.pb.election_pb2_grpc import ElectionServiceStub


class Leadership(Held):
    """To lead, inside the `async with` block; entering waits until elected."""

    async def proclaim(self, value: bytes, *, timeout_s: float | None = None) -> None:
        """Replace what observers are told. Raises HoldLost, TooLarge, OutcomeUnknown."""
        await self._link.call(
            ElectionServiceStub(self._link.channel).Proclaim,
            election_pb2.ProclaimRequest(hold_id=self.hold_id, value=value),
            timeout_s=timeout_s,
            writes=True,
        )


class ElectionCalls(Calls):
    """ElectionService, for one link."""

    def campaign(
        self,
        path: str,
        *,
        candidate_id: str = "",
        value: bytes = b"",
        layout: ElectionLayout = ElectionLayout.LATCH,
        wait_timeout_s: float | None = None,
        acl: Sequence[Acl] | None = None,
        reconnect_grace_s: float | None = None,
        heartbeat_timeout_s: float | None = None,
        cancel_on_loss: bool = True,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
        on_update: Callable[[HoldStatus], None] | None = None,
    ) -> Leadership:
        """Stand for election and lead inside `async with`: see Held.

        `value` is what observers are told. `wait_timeout_s`: then WaitTimeout, 0 tries once, None stands as long as
        it takes. `timeout_s` bounds the daemon's first answer.
        """
        request = election_pb2.CampaignRequest(
            path=path,
            candidate_id=candidate_id,
            value=value,
            layout=layout.number,
            heartbeat_timeout=optional_duration(heartbeat_timeout_s),
            reconnect_grace=optional_duration(reconnect_grace_s),
            acl=acl_messages(list(acl) if acl else None),
            wait_timeout=optional_duration(wait_timeout_s),
        )
        terms = Terms(
            cancel_on_loss=cancel_on_loss,
            reconnect_grace_s=reconnect_grace_s,
            wait_timeout_s=wait_timeout_s,
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
            on_update=on_update,
        )
        return Leadership(self._link, "campaign", request, terms)

    async def leader(
        self,
        path: str,
        *,
        consistency: Consistency | None = None,
        min_zxid: int = 0,
        max_stale_s: float | None = None,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
    ) -> Leader | None:
        """Who leads, and the other candidates; None if nobody does. Raises NoAuth, TooStale."""
        answer = await self._link.call(
            ElectionServiceStub(self._link.channel).GetLeader,
            election_pb2.GetLeaderRequest(path=path, options=self._options(consistency, min_zxid, max_stale_s)),
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
        )
        if not answer.HasField("leader"):
            return None
        candidates = tuple(contender_of(each) for each in answer.contenders)
        return Leader(header_of(answer.header), contender_of(answer.leader), candidates)

    def observe(
        self,
        path: str,
        *,
        on_change: Callable[[LeaderChange], None] | None = None,
        wait_for_ready: bool = False,
    ) -> Reading[LeaderChange]:
        """The present leader, then every change of leader or of its value (see LeaderFlow). Begins at once."""
        flow = LeaderFlow(self._link, path, wait_for_ready=wait_for_ready)
        return self._read(flow.run, on_change, f"zkside observe {path}")


class LeaderFlow:
    """Reads who leads: the present one, or that there is none, then every change; what comes faster than it is
    read is merged, and the newest always arrives. After a restart of the daemon the present one again, if it is
    another. A change of `stale` alone comes too.

    Raises NoAuth, InvalidPath; Unavailable if the first stream cannot be opened, unless `wait_for_ready`.
    """

    def __init__(self, link: Link, path: str, *, wait_for_ready: bool) -> None:
        self._link = link
        self._path = path
        self._wait_for_ready = wait_for_ready

    async def run(self, put: Put[LeaderChange]) -> None:
        latest = None
        kind = election_pb2.ObserveResponse
        following = follow(self._link, self._open, kind, wait_for_ready=self._wait_for_ready)
        async with aclosing(following) as messages:
            async for message, _ in messages:
                change = _change_of(message)
                seen = (change.leader, change.stale)
                if seen != latest:
                    latest = seen
                    await put(change)

    def _open(self, wait: bool) -> grpc.aio.UnaryStreamCall[election_pb2.ObserveRequest, election_pb2.ObserveResponse]:
        request = election_pb2.ObserveRequest(path=self._path)
        return self._link.stream(lambda channel: ElectionServiceStub(channel).Observe(request, wait_for_ready=wait))


def _change_of(message: election_pb2.ObserveResponse) -> LeaderChange:
    leader = contender_of(message.leader) if message.HasField("leader") else None
    return LeaderChange(header_of(message.header), leader)
