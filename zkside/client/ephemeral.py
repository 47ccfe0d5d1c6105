"""An ephemeral node of this process's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zkside.client.calls import Calls
from zkside.client.hold import Held
from zkside.client.holding import Terms
from zkside.client.value import Acl, HoldStatus, OnExists, acl_messages, optional_duration
from zkside.errors import HoldLost
from zkside.pb import node_pb2
from zkside.pb.node_pb2_grpc import NodeServiceStub


class Ephemeral(Held):
    """A node of this process's own, or its membership, inside the `async with` block."""

    async def set_data(self, data: bytes, *, timeout_s: float | None = None) -> None:
        """Replace the node's data for good: whoever makes it again, the daemon in its next session or this process
        with its next daemon, makes it with this data. Raises HoldLost, NoNode, NoAuth, TooLarge, OutcomeUnknown."""
        if not self._holding.is_owned:
            raise HoldLost(f"the hold on {self._path} is not held")
        await self._link.call(
            NodeServiceStub(self._link.channel).Set,
            node_pb2.SetRequest(path=self.path, data=data),
            timeout_s=timeout_s,
            writes=True,
        )
        self._holding.remember_data(data)


class EphemeralCalls(Calls):
    """HoldEphemeral, for one link."""

    def hold_ephemeral(
        self,
        path: str,
        data: bytes = b"",
        *,
        sequential: bool = False,
        acl: Sequence[Acl] | None = None,
        make_parents: bool = False,
        recreate: bool = False,
        on_exists: OnExists = OnExists.FAIL,
        wait_timeout_s: float | None = None,
        reconnect_grace_s: float | None = None,
        heartbeat_timeout_s: float | None = None,
        cancel_on_loss: bool = False,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
        on_update: Callable[[HoldStatus], None] | None = None,
    ) -> Ephemeral:
        """Own an ephemeral node inside `async with`: see Held. `timeout_s` bounds the entering, but for the time in
        which `on_exists` waits for another node of this path to go, which `wait_timeout_s` bounds."""
        request = node_pb2.HoldEphemeralRequest(
            path=path,
            data=data,
            sequential=sequential,
            acl=acl_messages(list(acl) if acl else None),
            make_parents=make_parents,
            recreate=recreate,
            on_exists=on_exists.number,
            reconnect_grace=optional_duration(reconnect_grace_s),
            heartbeat_timeout=optional_duration(heartbeat_timeout_s),
        )
        terms = Terms(
            recreate=recreate,
            cancel_on_loss=cancel_on_loss,
            reconnect_grace_s=reconnect_grace_s,
            wait_timeout_s=wait_timeout_s,
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
            on_update=on_update,
        )
        return Ephemeral(self._link, "hold_ephemeral", request, terms)
