"""The tasks in which gRPC's Python server serves calls, and how they end when the client has gone.

gRPC asks its core for a batch of operations (receive a message, send one), and frees them when whoever waits for the
batch is resumed by its end. But for a client that resets a call it cancels the call's task, which then waits no more:
each such call left 100 to 200 bytes for good, 10 MB a minute under a rapid reset (measured with grpcio 1.85, a bare
server too; docs/adr/0024). The core ends the batches of such a call by itself, at once. So here a cancellation by gRPC
comes right behind the end of the batch. All others, by timeouts and by the daemon, come at once as ever.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

_SERVES = "_handle_exceptions"
"""gRPC's coroutine that serves a call."""
_CANCELS = "_schedule_rpc_coro"
"""gRPC's coroutine that cancels it when the client has gone."""
_WAITS = "execute_batch"
"""gRPC's coroutine that waits for the end of a batch."""
_WRAPPERS = frozenset({"anext_awaitable", "async_generator_asend", "coroutine_wrapper"})
"""What stands between two coroutines and does not say what it waits for."""


class CallTask(asyncio.Task[Any]):
    """One call's task."""

    client_has_gone = False
    """What a batch brings from now on is no message of the client's, and no end of its messages."""

    def cancel(self, msg: Any | None = None) -> bool:
        """As Task.cancel; for a client that has gone, behind the end of the batch that is waited for."""
        if not _is_by_grpc():
            return super().cancel(msg)
        self.client_has_gone = True
        return self._cancel_behind_batch(msg)

    def _cancel_behind_batch(self, msg: Any | None) -> bool:
        waiter: asyncio.Future[Any] | None = getattr(self, "_fut_waiter", None)
        if waiter is None or not _waits_for_batch(self.get_coro()):
            return super().cancel(msg)
        waiter.add_done_callback(lambda _: self._cancel_behind_batch(msg))
        return True


def serve_calls_in_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Have the calls of every gRPC server of this loop served in a CallTask."""
    before = loop.get_task_factory()

    def make(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Future[Any]:
        if getattr(coro, "__name__", "") == _SERVES:
            return CallTask(coro, loop=loop, **options)
        return asyncio.Task(coro, loop=loop, **options) if before is None else before(loop, coro, **options)

    make.is_for_calls = True  # type: ignore[attr-defined]
    if not hasattr(before, "is_for_calls"):
        loop.set_task_factory(make)  # type: ignore[arg-type]  # typeshed: the options are those of create_task


def _is_by_grpc() -> bool:
    current = asyncio.current_task()
    return current is not None and getattr(current.get_coro(), "__name__", "") == _CANCELS


def _waits_for_batch(waiting: Any) -> bool:
    while waiting is not None:
        if getattr(waiting, "__name__", "") == _WAITS:
            return True
        waiting = _awaited(waiting)
    return False


def _awaited(waiting: Any) -> Any:
    if type(waiting).__name__ in _WRAPPERS:
        inner = gc.get_referents(waiting)
        return next((each for each in inner if hasattr(each, "cr_await") or hasattr(each, "ag_await")), None)
    return getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
