"""What the calls of all services share: one link, one default of consistency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from zkside.client.link import Link
from zkside.client.reading import Put, Reading
from zkside.client.value import Consistency, duration
from zkside.pb import node_pb2

T = TypeVar("T")


class Calls:
    """The calls of one link.

    All take `timeout_s` (None: the client's own) and `wait_for_ready` (wait until the deadline for the daemon
    and for its session, instead of failing at once with Unavailable or SessionSuspended). Reads take
    `consistency` (None: the client's own), `min_zxid` (see at least this transaction) and `max_stale_s`
    (refuse older answers with TooStale).
    """

    def __init__(self, link: Link, consistency: Consistency) -> None:
        self._link = link
        self._consistency = consistency
        self._readings: set[Reading[Any]] = set()
        """Every open one."""

    def _options(
        self, consistency: Consistency | None, min_zxid: int, max_stale_s: float | None
    ) -> node_pb2.ReadOptions:
        return node_pb2.ReadOptions(
            consistency=(consistency or self._consistency).number,
            min_zxid=min_zxid,
            max_stale=None if max_stale_s is None else duration(max_stale_s),
        )

    def _read(self, run: Callable[[Put[T]], Any], callback: Callable[[T], None] | None, name: str) -> Reading[T]:
        """A stream with one consumer; begins at once, and ends with the client."""
        reading: Reading[T] = Reading(run, callback, self._readings.discard, name)
        self._readings.add(reading)
        return reading
