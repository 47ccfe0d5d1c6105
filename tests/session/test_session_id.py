"""A session id is 64 bits without a sign, and begins with the number of the server that gave it."""

from __future__ import annotations

import pytest

from zkside.cli.zookeeper import Installation, ZooKeeperServer, free_port
from zkside.model.operation import Create, CreateMode, Exists
from zkside.model.session import hex_of
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.session import Session, SessionSettings


@pytest.mark.parametrize(
    ("session_id", "shown"),
    [(0, ""), (0x1000A, "0x1000a"), (-0x37FFFFFFFFFFFFFF, "0xc800000000000001"), (-1, "0xffffffffffffffff")],
)
def test_it_is_printed_as_zookeeper_prints_it(session_id: int, shown: str) -> None:
    assert hex_of(session_id) == shown


async def test_a_server_whose_number_is_200_gives_sessions_that_begin_with_it(
    zookeeper_installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    """It was told as -0x37…, in the log too, and no 4lw of the server knew that."""
    alone = {"standaloneEnabled": "false", "server.200": f"127.0.0.1:{free_port()}:{free_port()}"}
    caplog.set_level("INFO", "zkside")
    with ZooKeeperServer(zookeeper_installation, tick_ms=200, server_id=200, properties=alone) as server:
        session = Session(kazoo_connector(KazooSettings(server.hosts)), SessionSettings())
        session.start()
        await session.wait_connected()
        shown = session.status.session_id_hex
        assert shown.startswith("0xc8")
        assert shown in server.four_letter("cons")
        await session.call(Create("/own", mode=CreateMode.EPHEMERAL))
        stat = (await session.call(Exists("/own"))).value
        assert stat is not None
        assert hex_of(stat.ephemeral_owner) == shown
        await session.close(keep_session=False, within_s=2.0)
    assert "-0x" not in " ".join(str(vars(line)) for line in caplog.records)
