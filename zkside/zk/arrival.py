"""What is found out on a new connection before anybody hears of it.

Nobody can send anything until then, so the answers are as of the moment of the connection's report.
"""

from __future__ import annotations

import asyncio
from typing import Any

from zkside import log
from zkside.core.lease import PROOFS, Proof
from zkside.model.operation import GetEphemerals, Reply, Sync
from zkside.zk.epoch import Epoch
from zkside.zk.history import History
from zkside.zk.janitor import Janitor
from zkside.zk.journal import Journal
from zkside.zk.line import Line, tell


def ask(line: Line, epoch: Epoch, history: History, proof: Proof | None) -> asyncio.Future[Any] | None:
    """Send what has to be asked; returns the answer to come, or None if nothing has to be known."""
    if epoch.is_taking_up:
        return list_orphans(line, proof)
    if not epoch.session_id and history.is_to_be_judged:
        return ask_leader(line)
    return None


def ask_leader(line: Line) -> asyncio.Future[Any]:
    """A new session: how far the leader is shows whether its history is the one that was seen before."""
    assert line.connection is not None
    return line.connection.call(Sync("/"))


def list_orphans(line: Line, proof: Proof | None) -> asyncio.Future[Any]:
    """A session was taken up: what does it own that nobody knows of?

    Whatever is listed and not journalled is an orphan. `sync` comes first, lest a follower that lags behind does not
    list what was created last. A proof comes with it: what was held has a lease again by the time that it is announced.
    """
    connection = line.connection
    assert connection is not None
    tell(connection, Sync("/"))
    if proof is not None and proof is not Proof.SYNC:
        tell(connection, PROOFS[proof])
    return connection.call(GetEphemerals())


def delete_orphans(listing: asyncio.Future[Reply[list[str]]], journal: Journal, janitor: Janitor) -> None:
    """Hand them to the janitor. Without an answer to the listing they stay."""
    error = asyncio.CancelledError() if listing.cancelled() else listing.exception()
    if error is not None:
        log.session_orphans_unknown(error=error)
        return
    reply, known = listing.result(), journal.known_paths()
    for path in reply.value:
        if path not in known:
            log.session_orphan_deleted(path=path)
            janitor.delete_older(path, reply.zxid)
