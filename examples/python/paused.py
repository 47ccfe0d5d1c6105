"""Why a lease alone is not enough: a holder that is paused between its look at the lease and its write.

python examples/python/paused.py

A program takes a lock, sees that it holds it, and is stopped (a long garbage collection, a page that was swapped
out, a machine that is moved) before it comes to write. Meanwhile the lock goes to somebody else. When the program
goes on, its next instruction is the write: no lease can prevent that, because nobody looks at it any more. Who is
written to can, by refusing a token that is older than one it has seen (fencing.py shows that part alone); and
ZooKeeper can, for what lies in ZooKeeper itself.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from zkside.client import Client
from zkside.errors import HoldLost, NodeExists

LOCK = "/examples/paused/lock"
BALANCE = "/examples/paused/balance"


class Refused(Exception):
    """The token is older than one that was seen."""


class Store:
    """What the lock protects; here a file with the newest token in its first line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, token: int, text: str) -> None:
        with self.path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            newest = int(file.readline() or 0)
            if token < newest:
                raise Refused(f"token {token} is older than {newest}")
            file.truncate(0)
            file.write(f"{token}\n{text}\n")


async def be_paused(store: Store) -> None:
    """The program that is stopped at the worst moment."""
    # Without cancel_on_loss=False the block would be left by itself at the next await; the write comes before that.
    async with Client() as client, client.lock(LOCK, cancel_on_loss=False) as held:
        if held.is_held():
            os.kill(os.getpid(), signal.SIGSTOP)
            # Here it goes on, seconds later; as far as it knows it has just checked.
            try:
                store.write(held.fencing_token, "from the one who was paused")
            except Refused as error:
                print("the store refused the late write:", error, flush=True)
        try:
            await client.transaction(guard_hold_id=held.hold_id).set(BALANCE, b"from the one who was paused").commit()
        except HoldLost:
            print("ZooKeeper refused the late transaction: its hold is gone", flush=True)
        print("it does not believe in its lock any more:", not held.is_held(), flush=True)


async def main(store: Store) -> None:
    async with Client() as client:
        with contextlib.suppress(NodeExists):
            await client.create(BALANCE, b"0", make_parents=True)
        paused = subprocess.Popen([sys.executable, __file__, str(store.path)])
        try:
            os.waitid(os.P_PID, paused.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            print("the first holder is paused; waiting for its lock", flush=True)
            async with client.lock(LOCK) as held:
                store.write(held.fencing_token, "from the second holder")
                await client.transaction(guard_hold_id=held.hold_id).set(BALANCE, b"100").commit()
                print("the second holder has written; the first one goes on", flush=True)
                paused.send_signal(signal.SIGCONT)
                await asyncio.to_thread(paused.wait)
        finally:
            paused.kill()
            paused.wait()
        written = store.path.read_text().splitlines()[1]
        print(f"in the store: {written}; the balance: {(await client.get(BALANCE)).data.decode()}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(be_paused(Store(Path(sys.argv[1]))))
    else:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(main(Store(Path(directory, "store"))))
