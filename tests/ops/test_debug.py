"""What an operator gets out of a running, a hanging and a dead daemon, and what nobody gets out of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import grpc

from tests.cli.conftest import Zkside
from tests.ops.process import DaemonProcess
from zkside.cli.zookeeper import ZooKeeperServer
from zkside.client import Client, Scope
from zkside.pb import hold_pb2, node_pb2
from zkside.pb.node_pb2_grpc import NodeServiceStub

SECRETS = {
    "auth": "digest:user:S3CRET-auth",
    "file": "digest:other:S3CRET-in-a-file",
    "data": "S3CRET-data",
    "token": "S3CRET-token-of-a-client-0123456789",
    "environment": "S3CRET-environment",
}


def unpacked(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        return {member.name.partition("/")[2]: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def parts(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    return {row["file"]: row for row in map(json.loads, files["parts.json"].decode().splitlines())}


def leaks(haystacks: dict[str, bytes], secrets: list[bytes]) -> list[tuple[str, bytes]]:
    return [(name, secret) for name, text in haystacks.items() for secret in secrets if secret in text]


async def test_a_bundle_has_everything_and_no_secret(tmp_path: Path, own_zookeeper: ZooKeeperServer) -> None:
    """Secrets in the configuration, a token of a hold, data of nodes, the environment: looked for in every file,
    also in the dump of SIGUSR1 and in the log."""
    auth_file = tmp_path / "auth"
    auth_file.write_text(SECRETS["file"])
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ci {SECRETS['token']}\n")
    state = tmp_path / "state"
    keys = {
        "TOKENS_FILES": str(tokens),
        "ZOOKEEPER_HOSTS": own_zookeeper.hosts,
        "ZOOKEEPER_AUTH_FILE": str(auth_file),
        "ZOOKEEPER_TLS_KEY_PASSWORD": SECRETS["auth"],
        "STATE_DIR": str(state),
        "LOG_LEVEL": "debug",
    }
    os.environ["A_FOREIGN_SECRET"] = SECRETS["environment"]
    try:
        with DaemonProcess(tmp_path, **keys) as daemon:
            async with Client(daemon.address) as client, asyncio.timeout(60):
                await client.create("/app", SECRETS["data"].encode(), wait_for_ready=True)
                async with client.watch("/app", scope=Scope.SUBTREE) as watch, client.lock("/app/lock") as held:
                    await anext(watch)
                    token, stream = await held_with_token(daemon.address)
                    cli = Zkside(daemon.address)
                    file = tmp_path / "bundle.tar.gz"
                    done = await asyncio.to_thread(cli.process, "-o", "json", "debug", "bundle", "-f", str(file))
                    daemon.signal(signal.SIGUSR1)
                    dumped = daemon.wait_for("daemon.dumped")
                    stream.cancel()
                    files = unpacked(file)
                    state_now = json.loads(files["state.json"])
                    assert done.code == 0, done
                    assert done.json["missing"] == {}
                    assert {row["path"] for row in state_now["holds"]} >= {held.path}
            daemon.signal(signal.SIGTERM)
            assert daemon.wait_ended() == 0
    finally:
        del os.environ["A_FOREIGN_SECRET"]
    told = Path(dumped["file"]).read_bytes()
    assert Path(dumped["file"]).stat().st_mode & 0o777 == 0o600 == file.stat().st_mode & 0o777
    assert state_now["configuration"]["zookeeper.auth"] == '["***"]'
    assert any(row["path"] == "/app" for row in state_now["watches"])
    assert any("HoldEphemeral" in row["method"] for row in state_now["streams"])
    stacks = ["".join(row["stack"]) for row in state_now["tasks"]]
    assert any("_feed" in stack and "audience" in stack for stack in stacks), "down to what it waits for"
    assert any(row["name"] == "MainThread" for row in state_now["threads"])
    assert b"zkside_session_epoch 1.0" in files["metrics.txt"]
    assert b"session.connected" in files["log.jsonl"]
    assert b"ok    session" in files["doctor.txt"]
    assert b"VmRSS" in files["process.txt"]
    assert token
    secrets = [*(secret.rpartition(":")[2].encode() for secret in SECRETS.values()), token.encode()]
    assert leaks(files | {"dump": told, "log": daemon.log.encode()}, secrets) == []
    assert leaks({"journal": (state / "session.journal").read_bytes() + token.encode()}, secrets), "it would be found"


async def held_with_token(address: str) -> tuple[str, Any]:
    """The resume token of a hold that is open, and its stream."""
    channel = grpc.aio.insecure_channel(address)
    stream = NodeServiceStub(channel).HoldEphemeral(
        node_pb2.HoldEphemeralRequest(path="/app/mine", data=SECRETS["data"].encode())
    )
    async for update in stream:
        if update.state == hold_pb2.HOLD_STATE_HELD:
            return update.hold.resume_token, stream
    raise AssertionError("never held")


def bundle_of(daemon: DaemonProcess, directory: Path, **keys: str) -> tuple[int, dict[str, bytes]]:
    """Made as an operator makes it, with the configuration of that host in the environment."""
    file = directory / "bundle.tar.gz"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZKSIDE_")}
    environment |= {"ZKSIDE_ADDRESS": daemon.address, **{f"ZKSIDE_{name}": value for name, value in keys.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "zkside", "-t", "1s", "debug", "bundle", "-f", str(file)],
        env=environment,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, unpacked(file)


def test_of_a_daemon_that_hangs_it_has_the_stacks_of_its_threads(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with DaemonProcess(tmp_path, backend="memory", STATE_DIR=state) as daemon:
        daemon.signal(signal.SIGWINCH)
        code, files = bundle_of(daemon, tmp_path, STATE_DIR=state, HTTP_LISTEN=f"127.0.0.1:{daemon.http_port}")
    told = parts(files)
    assert code == 1
    assert "daemon" in told["status.json"]["missing"]
    assert "event loop did not answer" in told["metrics.txt"]["missing"]
    assert b"daemon.py" in files["stacks.txt"], "the thread of the event loop"
    assert b'"http"' not in files["stacks.txt"]
    assert files["stacks.txt"].count(b"Thread 0x") >= 2


def test_of_a_stopped_daemon_it_has_what_the_kernel_knows_and_says_what_is_missing(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with DaemonProcess(tmp_path, backend="memory", STATE_DIR=state) as daemon:
        daemon.signal(signal.SIGSTOP)
        try:
            code, files = bundle_of(daemon, tmp_path, STATE_DIR=state)
        finally:
            daemon.signal(signal.SIGCONT)
        told = parts(files)
        assert code == 1
        assert "does not answer" in told["state.json"]["missing"]
        assert "daemon" in told["status.json"]["missing"]
        assert "stopped" in told["stacks.txt"]["missing"]
        assert b"State:\tT" in files["process.txt"]
        assert not told["config.toml"]["missing"]


def test_of_a_daemon_that_is_gone_it_says_so(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, backend="memory") as daemon:
        daemon.signal(signal.SIGKILL)
        daemon.wait_ended()
        code, files = bundle_of(daemon, tmp_path)
    told = parts(files)
    assert code == 1
    assert "the daemon is gone" in told["process.txt"]["missing"]
    assert "no daemon answers" in told["status.json"]["missing"]
    assert {"client.json", "config.toml", "doctor.txt"} <= set(files)
    assert b"fail  socket" in files["doctor.txt"]
