"""A process that forks while it holds a lock: its child, and what becomes of the lock when it is killed.

python -m tests.client.parts.forking ADDRESS PATH WAY

It prints a line for each thing that happens, with the process that it happens in: `parent` or `child`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from zkside.client import Client, Held, forked, link, sync
from zkside.errors import HoldLost, ZksideError

SLEEPER = (sys.executable, "-S", "-I", "-c", "import time; time.sleep(60)")
CRASHES = 60


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def tell_held(who: str, held: Held | sync.Held) -> None:
    say(who, "is_held", held.is_held())


def live_on(held: Held | sync.Held) -> None:
    """A child that goes on for longer than its parent."""
    tell_held("child", held)
    time.sleep(60)


def hold(address: str, path: str, child: Callable[[sync.Held], object]) -> None:
    """Let the child begin while the lock is held, and hold on."""
    with sync.Client(address) as client, client.lock(path) as held:
        child(held)
        tell_held("parent", held)
        time.sleep(60)


def connections(address: str) -> int:
    """How many this process has to the daemon."""
    return sum(forked._leads_to(int(number), address) for number in os.listdir("/proc/self/fd"))


def with_many_streams(address: str, path: str) -> None:
    """More than go over one connection."""
    link.STREAMS_OF_A_CHANNEL = 2
    with sync.Client(address) as client, ExitStack() as watches:
        for number in range(5):
            next(watches.enter_context(client.watch(f"{path}-{number}")))
        with client.lock(path) as held:
            say("parent", "connections", connections(address))
            if os.fork() == 0:
                say("child", "connections", connections(address))
                live_on(held)
                os._exit(0)
            tell_held("parent", held)
            time.sleep(60)


def by_fork(held: sync.Held) -> None:
    if os.fork() == 0:
        live_on(held)
        os._exit(0)


def by_multiprocessing(held: sync.Held) -> None:
    multiprocessing.get_context("fork").Process(target=live_on, args=(held,), daemon=True).start()


def by_subprocess(_: sync.Held) -> None:
    subprocess.Popen(SLEEPER, close_fds=False)
    say("child", "is_held", "is another program")


def by_posix_spawn(_: sync.Held) -> None:
    os.posix_spawn(sys.executable, SLEEPER, os.environ)
    say("child", "is_held", "is another program")


async def by_asyncio(address: str, path: str) -> None:
    async with Client(address) as client, client.lock(path) as held:
        if os.fork() == 0:
            try:
                await client.get("/")
            except ZksideError as error:
                say("child", "get", error)
            live_on(held)
            os._exit(0)
        tell_held("parent", held)
        await asyncio.sleep(60)


def attempt(name: str, call: Callable[[], object]) -> None:
    try:
        say("child", name, call())
    except ZksideError as error:
        say("child", name, type(error).__name__, error)


def wait_child(pid: int) -> None:
    say("parent", "child ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def look_around(address: str, path: str) -> None:
    """All that a child may try with what is its parent's, and that the parent goes on."""
    with sync.Client(address) as client:
        client.create(path)
        with client.watch(path) as watch, client.mirror(path) as mirror, client.lock(f"{path}/lock") as held:
            next(watch)
            pid = os.fork()
            if pid == 0:
                say("child", "lost", held.lost.is_set(), held.status.reason, held.state.name, held.lease_left_s())
                attempt("get", lambda: client.get("/"))
                attempt("mirror", lambda: mirror.stale)
                attempt("heartbeat", held.heartbeat)
                attempt("lost.wait", lambda: held.lost.wait(60))
                attempt("new", lambda: sync.Client(address))
                attempt("new asynchronous", lambda: Client(address))
                client.close()
                sys.exit(3)  # through all of the blocks
            wait_child(pid)
            tell_held("parent", held)
            client.set(path, b"x")
            say("parent", "watch", type(next(watch)).__name__)
    say("parent", "closed")


def fall_through(address: str, path: str) -> None:
    pid = 0
    with sync.Client(address) as client:
        try:
            with client.lock(path) as held:
                pid = os.fork()
                tell_held("child" if pid == 0 else "parent", held)
        except HoldLost as lost:
            say("child", "lost", lost.metadata["reason"])
    if pid:
        wait_child(pid)


def many(address: str, path: str) -> None:
    """Children that end at once, one after the other; how many did not end well."""
    failed = 0
    with sync.Client(address) as client, client.lock(path):
        for _ in range(CRASHES):
            client.get("/")
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            failed += os.waitpid(pid, 0)[1] != 0
    say("parent", "failed", failed)


def afterwards(address: str, path: str) -> None:
    """A client that was closed, or not yet opened, stands in nobody's way."""
    unopened = Client(address)
    with sync.Client(address) as client:
        client.get("/")
    pid = os.fork()
    if pid == 0:
        with sync.Client(address) as client, client.lock(path) as held:
            tell_held("child", held)

        async def get() -> None:
            say("child", "get", (await unopened.get("/")).path)
            await unopened.close()

        asyncio.run(get())
        sys.exit(0)
    wait_child(pid)


CHILDREN = {
    "fork": by_fork,
    "multiprocessing": by_multiprocessing,
    "subprocess": by_subprocess,
    "posix_spawn": by_posix_spawn,
}
OTHERS = {
    "look_around": look_around,
    "fall_through": fall_through,
    "many": many,
    "afterwards": afterwards,
    "with_many_streams": with_many_streams,
}

if __name__ == "__main__":
    address, path, way = sys.argv[1:]
    if way == "asyncio":
        asyncio.run(by_asyncio(address, path))
    elif way in CHILDREN:
        hold(address, path, CHILDREN[way])
    else:
        OTHERS[way](address, path)
