"""Whether ZooKeeper's history went back: it was wiped, or restored from an older snapshot (GUARANTEES V2).

Within one history the zxid of every transaction is greater than that of all before it, on every server. Two
observations rule that one history has just gone on:

* The leader is behind what was seen. It is asked by a `sync` in a new session: whoever answers that has seen all that
  was committed before, as creating the session was a transaction itself. (A server that is merely behind its leader
  cannot be told from a restored ensemble by its zxid alone.)
* A node is older than it was: the ensemble was restored, and its zxids have overtaken the old ones since. A node at one
  path can only be replaced by one that was created later, and written later.

An ACL can hide a node, and what was written while it was hidden; so that a node is absent, or shows a change that was
never announced, proves nothing.
"""

from __future__ import annotations

from zkside.model import record as records
from zkside.model.record import Record


def went_back(seen_zxid: int, leader_zxid: int) -> str:
    """Why a new history must have begun; '' if nothing says so. `leader_zxid` is that of a `sync` in a new session."""
    if leader_zxid >= seen_zxid:
        return ""
    return f"ZooKeeper's leader is at {leader_zxid:#x}, and {seen_zxid:#x} has been seen before"


def contradiction(path: str, old: Record, new: Record) -> str:
    """Why two states of a path, the new one read later, cannot be of one history; '' if they can."""
    before, after = records.stat(old), records.stat(new)
    if after.czxid != before.czxid:
        if after.czxid > before.czxid:
            return ""
        return f"{path} was created at {after.czxid:#x}, and a node created at {before.czxid:#x} was there before"
    if after.ctime != before.ctime:
        return f"{path} was created at {after.czxid:#x} at two different times"
    if after.mzxid < before.mzxid:
        return f"{path} was last written at {after.mzxid:#x}, and before that at {before.mzxid:#x}"
    if after.mzxid == before.mzxid and after.mtime != before.mtime:
        return f"{path} was written at {after.mzxid:#x} at two different times"
    return ""
