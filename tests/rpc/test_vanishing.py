"""Clients that are killed: their end, and no defect of the daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import pytest

from tests.rpc.host import PATIENCE_S, Host, Stubs
from tests.rpc.vanishing import STREAMS
from zkside.pb.node_pb2 import CreateRequest, SetRequest

CLIENTS = 3


async def test_clients_that_are_killed_in_the_middle_of_streams_are_no_defect_of_the_daemon(
    host: Host, client: Stubs, caplog: pytest.LogCaptureFixture
) -> None:
    """What is being written when a process ends fails in gRPC, before gRPC says that the client has gone."""
    await client.node.Create(CreateRequest(path="/n", data=b"first"))
    program = (sys.executable, "-m", "tests.rpc.vanishing", host.address, "/n")
    processes = [await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE) for _ in range(CLIENTS)]
    for process in processes:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE_S) == b"watching\n"
    with caplog.at_level(logging.DEBUG):
        # gRPC takes some megabytes for them; then each stream has a message on its way.
        while len(host.rpc.streams.writing) < CLIENTS * STREAMS:
            await client.node.Set(SetRequest(path="/n", data=os.urandom(900_000)))
        for process in processes:
            process.kill()
            await process.wait()
        await asyncio.wait_for(host.rpc.streams.wait_ended(infrastructure=True), PATIENCE_S)
    assert host.rpc.interceptors.incidents == 0
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
    ended = {
        sample.labels["grpc_code"]: sample.value
        for family in host.rpc.interceptors.collect()
        for sample in family.samples
        if sample.name == "grpc_server_handled_total" and sample.labels["grpc_method"] == "Watch"
    }
    assert ended == {"CANCELLED": CLIENTS * STREAMS}
