"""Each identity, every RPC, many paths, over a real daemon: each gets exactly what its policy says."""

from __future__ import annotations

import asyncio
import random
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from tests.rpc.host import Stubs
from tests.security.calls import WITH_PATH, WITHOUT_PATH, Heard, Way, hear
from tests.security.guarded import Guarded
from tests.security.oracle import Verdict, Who, covered, names_of, verdict
from zkside.pb import (
    admin_pb2,
    carry_pb2,
    election_pb2,
    group_pb2,
    hold_pb2,
    lock_pb2,
    node_pb2,
    session_pb2,
    watch_pb2,
)

UPPER, TENANT = "zq-upper", "zq-tenant"
"""Names that stand nowhere but in the path of a chroot: what has them in it has leaked."""
CAFE = unicodedata.normalize("NFC", "café")
TWIN = unicodedata.normalize("NFD", "café")

ALL = "read write hold admin"
WHO = (
    Who("all", (("/", ALL),)),
    Who("reader", (("/app", "read"),)),
    Who("writer", (("/app/data", "write"), ("/app", "read"), ("/app/data/own", "admin"))),
    Who("holder", (("/app/locks", "hold read"), (f"/{CAFE}", "hold write"))),
    Who("twin", ((f"/{TWIN}", "read write"), ("/apple", "write"))),
    Who("nothing", ()),
    Who("tenant", ((f"/{UPPER}/{TENANT}", ALL),), chroot=f"/{UPPER}/{TENANT}"),
    Who("part", ((f"/{UPPER}/{TENANT}/app/data", "read write hold"),), chroot=f"/{UPPER}/{TENANT}"),
    Who("wide", (("/", ALL),), chroot=f"/{UPPER}"),
    Who("stranger", (), is_known=False),
)
NODES = (
    "/app",
    "/app/data",
    "/app/data/own",
    "/app/locks",
    "/apple",
    "/app%2Fdata",
    f"/{CAFE}",
    f"/{TWIN}",
    f"/{UPPER}",
    f"/{UPPER}/{TENANT}",
    f"/{UPPER}/{TENANT}/app",
    f"/{UPPER}/{TENANT}/app/data",
    f"/{UPPER}/{TENANT}2",
    f"/{UPPER}/secret",
)
PATHS = (
    *(path for path in NODES if UPPER not in path),
    "/",
    "",
    "app",
    "/app/",
    "//app",
    "/app//data",
    "/app/../apple",
    "/app/data/..",
    "/..",
    "/../" + UPPER,
    "/app/.",
    "/./app",
    "/app/...",
    "/app/data2",
    "/app/dat",
    "/app/data/x",
    "/APP",
    "/app ",
    " /app",
    "/app\x00/data",
    "/app\u200b",
    "/\u202eppa",
    "/app/😀",
    "/%61pp",
    "/app/%2e%2e/apple",
    "/app\\data",
    "/app/data?x",
    "/*",
    "/app/locks/lock",
    f"/{CAFE}/x",
    f"/{TWIN}/x",
    "/new",
    "/zookeeper",
    "/secret",
)
LONG = ("/app/" + "x" * 30_000, "/app/" + "x" * 70_000, "/" + "y/" * 60 + "y")


def policy() -> str:
    return "".join(who.toml() for who in WHO if who.is_known)


def fuzzed(seed: int, count: int) -> list[str]:
    """Paths put together from pieces that matter."""
    pick = random.Random(seed)
    pieces = [
        "app",
        "data",
        "own",
        "locks",
        "apple",
        CAFE,
        TWIN,
        "..",
        ".",
        "",
        "%2e%2e",
        "x",
        "app ",
        "App",
        UPPER,
        "\u00ad",
    ]
    return ["/" + "/".join(pick.choice(pieces) for _ in range(pick.randint(1, 5))) for _ in range(count)]


@pytest.fixture
async def clients(hosts: str, stock_client: KazooClient, short_path: Path) -> AsyncIterator[dict[str, Stubs]]:
    """One of each identity, of a daemon on a tree with NODES."""
    for path in NODES:
        await asyncio.to_thread(stock_client.create, path, b"world")
    names = [who.name for who in WHO]
    async with Guarded(hosts, short_path, policy(), *names) as daemon, AsyncExitStack() as opened:
        yield {name: await opened.enter_async_context(daemon.stubs_of(name)) for name in names}


def expected(way: Way, who: Who, path: str) -> Verdict:
    if way.needs == "open":
        return Verdict.ALLOWED
    if way.needs == "known":
        return Verdict.ALLOWED if who.is_known else Verdict.UNKNOWN
    if not way.has_path:
        # What concerns the whole daemon counts from its root, which no chroot is.
        is_allowed = who.is_known and not who.chroot and covered(who, way.needs, [])
        return Verdict.ALLOWED if is_allowed else Verdict.DENIED if who.is_known else Verdict.UNKNOWN
    if way.not_root and path == "/" and who.is_known:
        return Verdict.INVALID
    if way.child and not way.slash and path.endswith("/") and path != "/" and who.is_known:
        return Verdict.INVALID
    found = verdict(who, way.needs, path, child=way.child)
    if found is Verdict.ALLOWED and way.child and not way.slash and path == "/" and who.chroot:
        # A prefix to the name of the root would be one to that of the chroot.
        return Verdict.INVALID
    return found


def came(way: Way, heard: Heard) -> Verdict:
    reason = heard.reason
    if heard.answer is not None:
        reason = way.refusal(heard.answer) or "OK"
    if reason == "POLICY_DENIED":
        return Verdict.DENIED
    if reason == "UNAUTHENTICATED":
        return Verdict.UNKNOWN
    if reason in ("INVALID_PATH", "INVALID_ARGUMENT"):
        return Verdict.INVALID
    assert reason not in ("INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "UNAVAILABLE", "SESSION_SUSPENDED"), heard
    return Verdict.ALLOWED


class Tally:
    """What was wrong, and how much was looked at."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.seen: Counter[Verdict] = Counter()

    def add(self, way: Way, who: Who, path: str, heard: Heard) -> None:
        want, got = expected(way, who, path), came(way, heard)
        self.seen[want] += 1
        # What is allowed may be malformed there: one path cannot be the queue of several layouts.
        is_layout = want is Verdict.ALLOWED and got is Verdict.INVALID and "layout" in str(heard)
        if got is not want and not is_layout:
            self.wrong.append(f"{who.name} {way.method} {path[:80]!r}: {got} ({heard.reason}), not {want}")
        if who.chroot:
            raw = heard.raw()
            for name in (UPPER, TENANT):
                if name.encode() in raw and name not in path and name in who.chroot:
                    self.wrong.append(f"{who.name} {way.method} {path[:80]!r} tells {name}: {raw[:300]!r}")
        if who.name == "stranger" and got is not Verdict.UNKNOWN and way.needs != "open":
            self.wrong.append(f"a stranger got {way.method} {path[:80]!r}")


async def run(clients: dict[str, Stubs], ways: Iterable[Way], paths: Iterable[str], at_once: int = 40) -> Tally:
    tally, free = Tally(), asyncio.Semaphore(at_once)

    async def one(way: Way, who: Who, path: str) -> None:
        async with free:
            tally.add(way, who, path, await hear(way.call(clients[who.name], path, who.name.encode())))

    async with asyncio.TaskGroup() as group:
        for path in paths:
            for way in ways:
                for who in WHO:
                    group.create_task(one(way, who, path))
    return tally


def made_by(stock_client: KazooClient) -> dict[str, str]:
    """Every node of the tree that an identity made, by its path, with whose it is: they write their name into it."""
    found: dict[str, str] = {}
    names = {who.name.encode() for who in WHO}

    def walk(path: str) -> None:
        try:
            data, _ = stock_client.get(path)
            children = stock_client.get_children(path)
        except NoNodeError:
            return
        if data in names:
            found[path] = data.decode()
        for child in children:
            walk(f"{path.rstrip('/')}/{child}")

    walk("/")
    return found


def outside(made: dict[str, str]) -> list[str]:
    """The nodes that an identity made where it may not."""
    by_name = {who.name: who for who in WHO}
    return [
        f"{name} made {path}"
        for path, name in made.items()
        if not any(covered(by_name[name], verb, names_of(path) or []) for verb in ("write", "hold"))
    ]


async def test_each_identity_gets_exactly_what_its_policy_says(
    clients: dict[str, Stubs], stock_client: KazooClient
) -> None:
    """Every RPC with a path, on the paths that matter most; nothing is made where it may not be; no chroot leaks."""
    tally = await run(
        clients, WITH_PATH, (*(path for path in NODES if UPPER not in path), "/", "/app/../apple", "/app/")
    )
    assert not tally.wrong, "\n".join(tally.wrong[:20])
    assert min(tally.seen[each] for each in Verdict) > 50, tally.seen
    made = await asyncio.to_thread(made_by, stock_client)
    assert made
    assert not outside(made)


@pytest.mark.security
@pytest.mark.timeout(600)
async def test_each_identity_gets_exactly_what_its_policy_says_on_any_path(
    clients: dict[str, Stubs], stock_client: KazooClient
) -> None:
    """As above, on all paths: relative, empty, twins of Unicode, escaped, too long, and such as are put together."""
    tally = await run(clients, WITH_PATH, (*PATHS, *fuzzed(4, 60)))
    assert not tally.wrong, "\n".join(tally.wrong[:20])
    assert sum(tally.seen.values()) > 25_000
    tally = await run(clients, WITH_PATH, LONG, at_once=8)
    assert not tally.wrong, "\n".join(tally.wrong[:20])
    assert not outside(await asyncio.to_thread(made_by, stock_client))


async def test_what_has_no_path_needs_an_identity_or_the_whole_tree(clients: dict[str, Stubs]) -> None:
    """The session is for every identity; looking into the daemon for who has admin on its root, and no chroot."""
    tally = await run(clients, WITHOUT_PATH, ("",))
    assert not tally.wrong, "\n".join(tally.wrong)


def services() -> Iterable[str]:
    for module in (
        admin_pb2, carry_pb2, channelz_pb2, election_pb2, group_pb2, health_pb2, hold_pb2, lock_pb2, node_pb2,
        reflection_pb2, session_pb2, watch_pb2,
    ):  # fmt: skip
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from (f"{service.full_name}/{method.name}" for method in service.methods)


ELSEWHERE = {
    # Proven in tests/security/test_policy.py: they name a hold or a stream, not a path, or change the whole daemon.
    "zkside.v1.ElectionService/Proclaim",
    "zkside.v1.HoldService/Release",
    "zkside.v1.HoldService/Heartbeat",
    "zkside.v1.HoldService/GetHold",
    "zkside.v1.GroupService/ConfirmShrink",
    "zkside.v1.AdminService/Drain",
    "zkside.v1.AdminService/ReloadConfig",
    "zkside.v1.AdminService/SetLogLevel",
}


def test_the_matrix_has_every_method() -> None:
    """A new RPC is in the matrix, or in a test of its own that is named here."""
    assert {way.method for way in (*WITH_PATH, *WITHOUT_PATH)} | ELSEWHERE == set(services())
