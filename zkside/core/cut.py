"""How far a batch of reads may be published, so that no transaction is seen by half.

The rules that this stands on (ZooKeeper's ordering, FACTS "multiRead"):
  - a multiRead is a consistent cut of the server that answers, at the zxid of its reply;
  - all events of the transactions up to that zxid arrive before the reply.

So when a batch has been read at R, every path that some transaction up to R touched is either in the batch
or was announced by an event before the reply. Paths announced but not in the batch (`outside`) are what can
tear a transaction: the batch shows one half of it, they would show the other.
"""

from __future__ import annotations

from collections.abc import Iterable


def publishable_up_to(read_at: int, entries: Iterable[tuple[int, int]], outside: int | None) -> int:
    """The largest zxid B ≤ read_at at which what was read is a consistent cut.

    `entries` are (since, zxid) for each path read: the earliest transaction that may have changed it since
    it was last published, and the one that made the value read. `outside` is the earliest `since` of the
    paths that are announced and not read; None if there are none.

    Everything with zxid ≤ B may be published; what is left has changed only after B. A path whose value is
    newer than B, but which was also changed at or before B (its older value was never seen), pulls B down
    below that change: its transaction's other half must not appear without it.
    """
    bound = read_at if outside is None else min(read_at, outside - 1)
    # In falling order of zxid one pass is enough: an entry that is passed over has zxid ≤ B, and so have
    # all behind it, so B does not fall any more.
    for zxid, since in sorted(((zxid, since) for since, zxid in entries), reverse=True):
        if zxid <= bound:
            break
        bound = min(bound, since - 1)
    return bound
