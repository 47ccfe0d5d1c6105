"""The audit log: what is in it, what never is, and what becomes of it when the disk does not keep up."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from kazoo.client import KazooClient

from tests.rpc.host import Stubs, failure
from tests.security.guarded import Guarded, identity
from zkside.errors import StartError
from zkside.model.identity import Peer
from zkside.pb import carry_pb2, carry_pb2_grpc, hold_pb2, lock_pb2, node_pb2, watch_pb2
from zkside.rpc.audit import AuditLog, Entry
from zkside.rpc.listeners import TcpListener

POLICY = identity("ann", [("/app", "read write hold")]) + identity(
    "tenant", [("/app/t", "write")], more='chroot = "/app/t"'
)
DATA = b"planted-data-b71f"


def entry(number: int = 0, **more: Any) -> Entry:
    return Entry("call", "x", Peer("unix:/s"), "m", (f"/{number}",), "OK", "", **more)


def brief(line: dict[str, Any]) -> tuple[Any, ...]:
    method = str(line["method"]).rpartition("/")[2]
    return line["event"], line["identity"], method, line["paths"], line["code"], line.get("reason", "")


async def test_writes_holds_and_denials_are_in_it_and_reads_are_not(
    hosts: str, stock_client: KazooClient, short_path: Path
) -> None:
    """Time, identity, listener, method, paths of the tree, outcome, zxid, fencing token; of a pipeline each write."""
    for path in ("/app", "/app/t"):
        await asyncio.to_thread(stock_client.create, path, b"")
    daemon = Guarded(hosts, short_path, POLICY, "ann", "tenant", "eve")
    async with daemon.stubs_of("ann") as ann, daemon.stubs_of("tenant") as tenant, daemon.stubs_of("eve") as eve:
        await daemon.start()
        await ann.node.Get(node_pb2.GetRequest(path="/app"))
        await ann.watch.Watch(watch_pb2.WatchRequest(targets=[watch_pb2.WatchTarget(path="/app")])).read()
        created = await ann.node.Create(node_pb2.CreateRequest(path="/app/x", data=DATA))
        await failure(ann.node.Create(node_pb2.CreateRequest(path="/app/x", data=DATA)))
        await failure(ann.node.Get(node_pb2.GetRequest(path="/other")))
        await failure(ann.node.Set(node_pb2.SetRequest(path="/other", data=DATA)))
        await tenant.node.Create(node_pb2.CreateRequest(path="/y", data=DATA))
        await failure(eve.node.Get(node_pb2.GetRequest(path="/app")))
        check = node_pb2.Operation(check=node_pb2.CheckRequest(path="/app/x", expected_version=99))
        assert not (await ann.node.Transact(node_pb2.TransactRequest(operations=[check]))).committed
        token = await use_a_lock(ann)
        await pipeline(ann, "/app/p", "/other")
        carried = await carry(ann)
        await daemon.stop()
    lines = daemon.audited()
    assert [brief(line) for line in lines] == [
        ("call", "ann", "Create", ["/app/x"], "OK", ""),
        ("call", "ann", "Create", ["/app/x"], "ALREADY_EXISTS", "NODE_EXISTS"),
        ("call", "ann", "Get", ["/other"], "PERMISSION_DENIED", "POLICY_DENIED"),
        ("call", "ann", "Set", ["/other"], "PERMISSION_DENIED", "POLICY_DENIED"),
        ("call", "tenant", "Create", ["/app/t/y"], "OK", ""),
        ("call", "", "Get", [], "UNAUTHENTICATED", "UNAUTHENTICATED"),
        ("call", "ann", "Transact", ["/app/x"], "OK", ""),
        ("granted", "ann", "Acquire", [token[0]], "OK", ""),
        ("call", "ann", "Release", [token[0]], "OK", ""),
        ("ended", "ann", "Acquire", [token[0]], "OK", "RELEASED"),
        ("call", "ann", "Pipeline", ["/app/p"], "OK", ""),
        ("call", "ann", "Pipeline", ["/other"], "PERMISSION_DENIED", "POLICY_DENIED"),
        ("granted", "ann", "HoldEphemeral", ["/app/e"], "OK", ""),
        ("ended", "ann", "HoldEphemeral", ["/app/e"], "OK", "RELEASED"),
    ]
    assert lines[0]["zxid"] == created.header.zxid
    assert lines[0]["listener"] == f"unix:{short_path}/ann.sock"
    assert lines[0]["time"].endswith("Z")
    assert lines[6]["committed"] is False
    assert lines[7]["fencing_token"] == lines[9]["fencing_token"] == token[1]
    assert lines[12]["fencing_token"] == carried
    assert DATA.decode() not in daemon.audit_file.read_text()
    assert stat.S_IMODE(daemon.audit_file.stat().st_mode) == 0o600


async def use_a_lock(client: Stubs) -> tuple[str, int]:
    call = client.lock.Acquire(lock_pb2.AcquireRequest(path="/app/lock", value=DATA))
    while (update := await call.read()).state != hold_pb2.HOLD_STATE_HELD:
        pass
    await client.hold.Release(hold_pb2.ReleaseRequest(hold_id=update.hold.hold_id))
    await drained(call)
    return update.hold.path, update.hold.fencing_token


async def pipeline(client: Stubs, *paths: str) -> None:
    async def requests() -> Any:
        for path in paths:
            operation = node_pb2.Operation(create=node_pb2.CreateRequest(path=path, data=DATA))
            yield node_pb2.PipelineRequest(operation=operation)

    async for _ in client.node.Pipeline(requests()):
        pass


async def carry(client: Stubs) -> int:
    service: Any = carry_pb2_grpc.CarryServiceStub(client.channel)
    call = service.Carry()
    step = carry_pb2.CarryStep(tag=1, hold_ephemeral=node_pb2.HoldEphemeralRequest(path="/app/e", data=DATA))
    await call.write(carry_pb2.CarryRequest(steps=[step]))
    token: int = (await call.read()).updates[0].update.hold.fencing_token
    release = carry_pb2.CarryStep(tag=1, release=carry_pb2.CarryRelease())
    await call.write(carry_pb2.CarryRequest(steps=[release]))
    await call.done_writing()
    await drained(call)
    return token


async def drained(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_without_a_policy_it_names_callers_by_what_is_known_of_them(hosts: str, short_path: Path) -> None:
    """An audit log needs no policy: everybody may do everything, on record."""
    listeners = (TcpListener("127.0.0.1", 0, identity="app"),)
    daemon = Guarded(hosts, short_path, None, at=listeners)
    await daemon.start()
    async with daemon.stubs() as client:
        await client.node.Create(node_pb2.CreateRequest(path="/x"))
    await daemon.stop()
    (line,) = daemon.audited()
    assert (line["identity"], line["paths"], line["code"]) == ("app", ["/x"], "OK")
    assert line["peer"].startswith("ipv4:127.0.0.1:")


async def test_who_is_refused_at_the_door_is_in_it_without_the_token(hosts: str, short_path: Path) -> None:
    """A wrong token never gets as far as the policy."""
    tokens = short_path / "tokens"
    tokens.write_text("ci 0123456789-abcdefghij\n")
    daemon = Guarded(hosts, short_path, POLICY, "ann", token_files=(tokens,))
    await daemon.start()
    async with daemon.stubs_of("ann") as ann:
        wrong = (("authorization", "Bearer planted-wrong-5be20c44"),)
        await failure(ann.node.Get(node_pb2.GetRequest(path="/app"), metadata=wrong))
        await daemon.stop()
    (line,) = daemon.audited()
    assert brief(line) == ("call", "", "Get", [], "UNAUTHENTICATED", "UNAUTHENTICATED")
    assert line["listener"] == f"unix:{short_path}/ann.sock"
    assert "planted" not in daemon.audit_file.read_text()


def test_lines_beyond_the_bound_are_dropped_counted_and_spoken_of(tmp_path: Path) -> None:
    """O4: a writer that hangs holds nobody up. (It hangs in opening a pipe that nobody reads from.)"""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    audit = AuditLog(pipe, 100)
    audit.open()
    long = "x" * 400
    put = 0
    while audit.statistics().dropped < 50:
        audit.put(Entry("call", long, None, "m", (f"/{put}",), "OK", ""))
        put += 1
    os.set_blocking(reader, True)
    read = b""
    while b'"dropped"' not in read:
        read += os.read(reader, 65536)
    audit.close()
    while rest := os.read(reader, 65536):
        read += rest
    dropped = audit.statistics().dropped
    lines = [json.loads(line) for line in read.splitlines()]
    assert sum(line.get("lines", 0) for line in lines if line["event"] == "dropped") == dropped == 50
    os.close(reader)


def test_it_goes_on_in_a_new_file_when_the_old_one_is_moved(tmp_path: Path) -> None:
    """As logrotate does it, without a signal; and into an old file it is added."""
    path = tmp_path / "audit.log"
    path.write_text('{"event":"old"}\n')
    audit = AuditLog(path, 100)
    audit.open()
    audit.put(entry(1))
    while audit.statistics().written < 1:
        pass
    path.rename(tmp_path / "audit.log.1")
    audit.put(entry(2))
    audit.close()
    old, new = (tmp_path / "audit.log.1").read_text(), path.read_text()
    assert [json.loads(line).get("paths") for line in old.splitlines()] == [None, ["/1"]]
    assert [json.loads(line)["paths"] for line in new.splitlines()] == [["/2"]]


def test_a_file_that_cannot_be_written_is_a_reason_not_to_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be written"):
        AuditLog(tmp_path / "no" / "audit.log", 100).open()


def test_a_disk_that_is_full_is_counted_and_tried_again(tmp_path: Path) -> None:
    audit = AuditLog(Path("/dev/full"), 100)
    audit.open()
    for number in range(3):
        audit.put(entry(number))
    audit.close()
    assert (audit.statistics().failed, audit.statistics().written) == (3, 0)


def test_a_line_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    """A path with line ends, control characters or half a surrogate makes no second line; a long one is cut."""
    path = tmp_path / "audit.log"
    audit = AuditLog(path, 100)
    audit.open()
    paths = ("/a\n{}", "/\x1b[2J", "/\ud800", "/" + "x" * 70_000, *(f"/{number}" for number in range(50)))
    audit.put(Entry("call", "x", None, "m", paths, "OK", ""))
    audit.close()
    (raw,) = path.read_bytes().splitlines()
    line = json.loads(raw)
    assert line["paths"][0] == "/a\n{}"
    assert len(line["paths"]) == 16
    assert line["paths_total"] == 54
    assert len(raw) < 2000
    assert b"\x1b" not in raw


def test_an_error_of_our_own_loses_its_lines_and_no_others(tmp_path: Path) -> None:
    """V1: the thread goes on, and what is lost is counted."""
    path = tmp_path / "audit.log"
    audit = AuditLog(path, 100)
    audit.open()
    audit.put(entry(1, committed=object()))  # what JSON does not know
    while not audit.statistics().failed:
        continue
    audit.put(entry(2))
    audit.close()
    assert [json.loads(line)["paths"] for line in path.read_text().splitlines()] == [["/2"]]
    assert audit.statistics().failed == 1
