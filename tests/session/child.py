"""A process with a session in it, to be killed and stopped: `python -m tests.session.child <mode> <hosts> [dir]`.

It writes one JSON object a line. Mode `own`: takes three ephemerals, of which the journal knows two, says
"ready", and stays. Mode `look`: says again and again what it believes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from zkside.model.hold import HoldRow
from zkside.model.operation import Create, CreateMode
from zkside.zk.journal import Journal
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.session import Session, SessionSettings

TIMEOUT_S = 2.0
SETTINGS = SessionSettings(timeout_s=TIMEOUT_S, proof_interval_s=0.2, tick_s=0.2)


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


async def own(session: Session) -> None:
    for path in ("/hold", "/own", "/orphan"):
        await session.call(Create(path, mode=CreateMode.EPHEMERAL))
    session.journal.put_hold(HoldRow("h1", "ephemeral", "/hold", 1, "t", 5.0))
    session.journal.own("/own")
    say(ready=session.status.session_id)
    await asyncio.Event().wait()


async def look(session: Session) -> None:
    while True:
        # The clock first: what is believed must be true at an instant that lies before the answer.
        at_ns, lease_ns, status = now_ns(), session.lease_boottime_ns, session.status
        say(at_ns=at_ns, lease_ns=lease_ns, state=status.state.name, epoch=status.epoch)
        await asyncio.sleep(0.005)


async def main(mode: str, hosts: str, state_dir: str | None = None) -> None:
    journal = Journal.open(Path(state_dir)) if state_dir else None
    connector = kazoo_connector(KazooSettings(hosts=hosts, session_timeout_s=TIMEOUT_S))
    session = Session(connector, SETTINGS, journal)
    session.start()
    session.need_proofs()
    await session.wait_connected()
    await {"own": own, "look": look}[mode](session)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
