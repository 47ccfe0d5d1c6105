"""A session on a host with dead servers in the DNS: tells each state that it passes through, a line each.

    python -m tests.zk.dead_child TIMEOUT_S PORT CHROOT ADDRESS…

The name `many` leads to the addresses, and `hangs` has no answer for five seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

from zkside.core.lease import Proof
from zkside.errors import ZksideError
from zkside.model.operation import Create, CreateMode
from zkside.model.session import SessionState, SessionStatus
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.session import Session, SessionSettings


async def main(timeout_s: float, port: str, addresses: list[str]) -> None:
    def lookup(name: str, port: int) -> list[str]:
        if name == "hangs":
            time.sleep(5)
            raise OSError("no answer")
        return addresses

    settings = KazooSettings(f"hangs:{port},many:{port}", session_timeout_s=timeout_s, lookup=lookup)
    session = Session(
        kazoo_connector(settings),
        SessionSettings(timeout_s=timeout_s, tick_s=0.5, proof=Proof.WRITE, proof_interval_s=0.1),
    )

    def tell(status: SessionStatus) -> None:
        if status.state is not SessionState.CONNECTED:
            print(status.state.name, flush=True)

    session.listen(status=tell)
    session.need_proofs()
    session.start()
    number = 0
    while True:
        # Told when it is of use again, and its lease is proven.
        await session.wait_connected()
        try:
            await session.call(Create(f"/{time.monotonic_ns()}", mode=CreateMode.EPHEMERAL))
        except ZksideError:
            continue
        number += 1
        print(f"CONNECTED {where(addresses, int(port))} {number}", flush=True)
        while session.status.state is SessionState.CONNECTED:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def where(addresses: list[str], port: int) -> str:
    """The server that has us, as the kernel knows it."""
    with open("/proc/net/tcp") as table:
        for line in table.readlines()[1:]:
            _, _, remote, state, *_ = line.split()
            ip, _, remote_port = remote.partition(":")
            shown = ".".join(str(byte) for byte in bytes.fromhex(ip)[::-1])
            if state == "01" and int(remote_port, 16) == port and shown in addresses:
                return shown
    return "?"


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1]), sys.argv[2], sys.argv[3:]))
