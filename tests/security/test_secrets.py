"""Secrets that were planted in a daemon with policy, TLS, tokens and audit: none is found in what it tells."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.ops.process import DaemonProcess
from tests.ops.secured import secured
from tests.rpc.host import Stubs
from tests.security.authority import Authority
from zkside.pb import admin_pb2, hold_pb2, lock_pb2, node_pb2

KNOWN, WRONG, DATA = "planted-token-7f3a9c1d", "planted-wrong-5be20c44", b"planted-data-19ce84"


async def test_no_secret_is_in_logs_audit_dumps_pages_or_metrics(hosts: str, tmp_path: Path, short_path: Path) -> None:
    """Tokens (good and wrong ones), keys, resume tokens, data of nodes; at the level debug."""
    keys = secured(tmp_path)
    (tmp_path / "tokens").write_text(f"tests {KNOWN}\n")
    policy = tmp_path / "policy.toml"
    policy.write_text(policy.read_text().replace('"listener:tests"', '"listener:tests", "token:tests"'))
    keys |= {
        "LISTEN": f"unix:{short_path}/zkside.sock?identity=tests,127.0.0.1:0",
        "STATE_DIR": str(short_path / "state"),
    }
    with DaemonProcess(short_path, ZOOKEEPER_HOSTS=hosts, LOG_LEVEL="debug", **keys) as daemon:
        daemon.wait_for("session.connected")
        async with Stubs(daemon.address) as client, asyncio.timeout(60):
            resume_token, call = await use(client)
            told = await ask(client)
            for page in ("/metrics", "/statusz", "/", "/readyz"):
                told[page] = (await asyncio.to_thread(daemon.get, page))[1].encode()
            daemon.signal(signal.SIGUSR1)
            told["dump"] = Path(daemon.wait_for("daemon.dumped")["file"]).read_bytes()
            call.cancel()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_ended() == 0
    told["log"] = daemon.log.encode()
    told["audit"] = (tmp_path / "audit.log").read_bytes()
    key = "".join(Path(keys["TLS_KEY"]).read_text().splitlines()[1:-1])
    secrets = {KNOWN.encode(), WRONG.encode(), DATA, DATA.hex().encode(), resume_token.encode(), key[:40].encode()}
    found = [(name, secret) for name, text in told.items() for secret in secrets if secret in text]
    assert not found
    assert all(told.values()), [name for name, text in told.items() if not text]
    assert b"/secret-holder" in told["dump"], "it was looked for where it would be"
    assert resume_token.encode() in (short_path / "state" / "session.journal").read_bytes(), "and would be found"


async def use(client: Stubs) -> tuple[str, Any]:
    """Calls with tokens and data, allowed, denied and refused, and a hold; its resume token and its stream."""
    create = node_pb2.CreateRequest(path="/secret-holder", data=DATA)
    await client.node.Create(create, metadata=(("authorization", f"Bearer {KNOWN}"),))
    for refused in (
        client.node.Create(create, metadata=(("authorization", f"Bearer {WRONG}"),)),
        client.node.Create(create, metadata=(("authorization", WRONG),)),
        client.node.Create(node_pb2.CreateRequest(path="/secret-holder", data=DATA)),
        client.node.Set(node_pb2.SetRequest(path="/secret-holder/..", data=DATA)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await refused
        assert WRONG not in f"{raised.value.details()} {raised.value.trailing_metadata()}"
    call = client.lock.Acquire(lock_pb2.AcquireRequest(path="/secret-holder", value=DATA))
    while (update := await call.read()).state != hold_pb2.HOLD_STATE_HELD:
        pass
    return update.hold.resume_token, call


async def ask(client: Stubs) -> dict[str, bytes]:
    """What AdminService tells."""
    told = {
        "status": (await client.admin.GetStatus(admin_pb2.GetStatusRequest())).SerializeToString(),
        "holds": (await client.admin.ListHolds(admin_pb2.ListHoldsRequest())).SerializeToString(),
        "streams": (await client.admin.ListStreams(admin_pb2.ListStreamsRequest())).SerializeToString(),
        "lines": (await client.admin.ListLogLines(admin_pb2.ListLogLinesRequest())).SerializeToString(),
    }
    pieces = [piece.piece async for piece in client.admin.DumpState(admin_pb2.DumpStateRequest())]
    return told | {"state": b"".join(pieces)}


def test_the_test_of_secrets_looks_for_a_real_key(tmp_path: Path) -> None:
    """The 40 characters of a key that are looked for are those of its file."""
    issued = Authority(tmp_path).issue("server", "DNS:localhost")
    assert len("".join(issued.key.read_text().splitlines()[1:-1])) > 100
