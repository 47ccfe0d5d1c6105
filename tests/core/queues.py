"""Queues for tests: the names of contenders, and what ZooKeeper says of their parent."""

from __future__ import annotations

from collections.abc import Sequence

from zkside.core.queueing import Contender, Kind, Queue
from zkside.model.stat import Stat


def named(kind: Kind, number: int, prefix: str = "") -> str:
    """As ZooKeeper names it, whose counter may turn negative in the end."""
    return f"{prefix}{kind.value}{number:010d}"


def stat_of(creates: int, children: int, czxid: int = 1) -> Stat:
    """The Stat of a parent below which so many were created, and so many are left (DataNode.copyStat)."""
    cversion = (2 * creates - children + 2**31) % 2**32 - 2**31
    return Stat(czxid, czxid, 0, 0, 0, cversion, 0, 0, 0, children, czxid)


def queue_of(contenders: Sequence[Contender]) -> Queue:
    """As if they were listed just now."""
    queue = Queue()
    queue.listed([each.name for each in contenders], stat_of(len(contenders), len(contenders)))
    return queue
