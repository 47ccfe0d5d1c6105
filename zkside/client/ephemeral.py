"""An ephemeral node of this process's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zkside.client.calls import Calls
from zkside.client.hold import Held
from zkside.client.holding import Terms
from zkside.client.value import Acl, HoldStatus, acl_messages, optional_duration
from zkside.pb import node_pb2


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
        reconnect_grace_s: float | None = None,
        heartbeat_timeout_s: float | None = None,
        cancel_on_loss: bool = False,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
        on_update: Callable[[HoldStatus], None] | None = None,
    ) -> Held:
        """Own an ephemeral node inside `async with`: see Held. `timeout_s` bounds the entering."""
        request = node_pb2.HoldEphemeralRequest(
            path=path,
            data=data,
            sequential=sequential,
            acl=acl_messages(list(acl) if acl else None),
            make_parents=make_parents,
            recreate=recreate,
            reconnect_grace=optional_duration(reconnect_grace_s),
            heartbeat_timeout=optional_duration(heartbeat_timeout_s),
        )
        terms = Terms(
            recreate=recreate,
            cancel_on_loss=cancel_on_loss,
            reconnect_grace_s=reconnect_grace_s,
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
            on_update=on_update,
        )
        return Held(self._link, "hold_ephemeral", request, terms)
