"""Where the daemon listens, whom a listener takes its callers for, and which listeners it refuses."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.rpc.host import Host
from tests.security.reception import Reception, who
from zkside.client import Client
from zkside.config_kinds import Address, Listen
from zkside.config_source import printed, read
from zkside.errors import StartError
from zkside.model.identity import Auth
from zkside.rpc.listeners import Listener, TcpListener, UnixListener, refuse_unsafe


def refusal(**keys: str) -> str:
    with pytest.raises(StartError) as raised:
        read(environment={f"ZKSIDE_{name}": value for name, value in keys.items()})
    return str(raised.value)


def listening(**keys: str) -> tuple[Any, ...]:
    from zkside.daemon_parts import Backend, rpc_settings

    config = read(environment={f"ZKSIDE_{name}": value for name, value in keys.items()}).config
    return rpc_settings(config, Backend.MEMORY).listeners


CERTIFICATE = {"TLS_CERT": "/c", "TLS_KEY": "/k"}


def test_a_listener_is_written_with_its_options_in_one_text() -> None:
    written = "unix:/run/app.sock?identity=app&mode=0600&group=staff,127.0.0.1:0?identity=ci&tls=no&auth=none"
    reading = read(environment={"ZKSIDE_LISTEN": written})
    assert reading.config.listen == (
        Address(path="/run/app.sock", identity="app", mode=0o600, group="staff"),
        Address(host="127.0.0.1", port=0, identity="ci", tls=False, auth=Auth.NONE),
    )
    assert tomllib.loads(printed(reading))["listen"] == written.split(",")
    assert tuple(Listen(unix=True).parse(one) for one in written.split(",")) == reading.config.listen


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("unix:/s?color=red", "'color' is no option of unix:/s: it takes identity, mode, group, auth"),
        ("127.0.0.1:1?mode=0600", "'mode' is no option of 127.0.0.1:1: it takes identity, tls, auth"),
        ("unix:/s?mode=rw", "mode must be permissions such as"),
        ("unix:/s?identity=", "identity has no value"),
        ("unix:/s?identity=a/b", "identity has letters, digits"),
        ("unix:/s?identity=a&identity=b", "identity stands there twice"),
        ("unix:/s?auth=maybe", 'auth must be one of "none", "token", "certificate"'),
        ("unix:/s,unix:/s?identity=a", "an address stands there twice"),
        ("127.0.0.1:1?tls=yes", "127.0.0.1:1 is to speak TLS: give tls.cert and tls.key"),
        ("unix:/s?auth=token", "unix:/s is to demand a token: give tokens.files"),
        ("unix:/s?auth=certificate", "unix:/s is to demand a certificate: that takes TLS"),
    ],
)
def test_what_makes_no_sense_behind_an_address_is_told(written: str, message: str) -> None:
    assert message in refusal(LISTEN=written)


def test_an_address_for_metrics_takes_no_options() -> None:
    assert "options behind a ? make sense where clients are served" in refusal(HTTP_LISTEN="127.0.0.1:1?identity=a")


def test_tls_and_authentication_are_on_by_default_where_they_are_configured() -> None:
    """O2."""
    both = {"LISTEN": "unix:/s,127.0.0.1:1", "TOKENS_FILES": "/t"}
    assert [each.auth for each in listening(**both)] == [Auth.NONE, Auth.TOKEN]
    unix, tcp = listening(**both, **CERTIFICATE)
    assert (unix.auth, tcp.auth, tcp.tls) == (Auth.NONE, Auth.TOKEN, True)
    _, tcp = listening(**both, **CERTIFICATE, TLS_CLIENT_CA="/ca")
    assert (tcp.auth, tcp.tls) == (Auth.CERTIFICATE, True)
    plain = {**both, "LISTEN": "127.0.0.1:1?tls=no&auth=none,127.0.0.1:2?auth=token"}
    plain_tcp, with_token = listening(**plain, **CERTIFICATE, TLS_CLIENT_CA="/ca")
    assert (plain_tcp.auth, plain_tcp.tls) == (Auth.NONE, False)
    assert (with_token.auth, with_token.tls) == (Auth.TOKEN, True)


BEYOND = ("0.0.0.0", "[::]", "192.0.2.1")


@pytest.mark.parametrize("host", BEYOND)
@pytest.mark.parametrize(
    ("options", "keys", "lacking"),
    [
        ("", {}, "TLS (tls.cert and tls.key) and a way to tell who calls (tls.client_ca or tokens.files)"),
        ("", CERTIFICATE, "a way to tell who calls"),
        ("", {"TOKENS_FILES": "/t"}, "TLS (tls.cert and tls.key)"),
        ("?identity=everybody", CERTIFICATE, "a way to tell who calls"),
        ("?auth=none", {**CERTIFICATE, "TOKENS_FILES": "/t"}, "a way to tell who calls"),
        ("?tls=no", {**CERTIFICATE, "TOKENS_FILES": "/t"}, "TLS (tls.cert and tls.key)"),
    ],
)
def test_a_port_that_other_hosts_reach_is_refused_without_tls_or_identity(
    host: str, options: str, keys: dict[str, str], lacking: str
) -> None:
    """O2."""
    assert f"{host}:7443 can be reached from other machines, and lacks {lacking}" in refusal(
        LISTEN=f"{host}:7443{options}", **keys
    )


@pytest.mark.parametrize("host", BEYOND)
@pytest.mark.parametrize("keys", [{"TOKENS_FILES": "/t"}, {"TLS_CLIENT_CA": "/ca"}])
def test_a_port_that_other_hosts_reach_is_taken_with_tls_and_identity(host: str, keys: dict[str, str]) -> None:
    """O2."""
    (listener,) = listening(LISTEN=f"{host}:7443", **CERTIFICATE, **keys)
    refuse_unsafe(listener)
    assert listener.tls
    assert listener.auth is not Auth.NONE


@pytest.mark.parametrize(
    ("listener", "lacking"),
    [
        (TcpListener("0.0.0.0", 0), "no TLS (tls.cert, tls.key) and no check of who calls"),
        (TcpListener("::", 0), "no TLS"),
        (TcpListener("192.0.2.1", 0, tls=True, identity="everybody"), "no check of who calls"),
        (TcpListener("zk.example", 0), "no TLS (tls.cert, tls.key) and no check of who calls"),
    ],
)
async def test_the_server_itself_opens_no_unsafe_port_whatever_the_configuration_said(
    listener: TcpListener, lacking: str
) -> None:
    """O2."""
    with pytest.raises(StartError, match="can be reached from other hosts") as raised:
        async with Reception(listener):
            pass
    assert lacking in str(raised.value)


def test_a_daemon_with_an_unsafe_port_does_not_start_and_says_why(tmp_path: Path) -> None:
    """O2."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZKSIDE_")}
    command = [sys.executable, "-m", "zkside", "serve", "--listen", "0.0.0.0:0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "listen: 0.0.0.0:0 can be reached from other machines, and lacks TLS" in done.stderr
    assert "Traceback" not in done.stderr


def test_metrics_may_be_scraped_from_other_hosts() -> None:
    """O2: what is served there is read only, and without the status page beyond loopback."""
    config = read(environment={"ZKSIDE_HTTP_LISTEN": "0.0.0.0:9464", "ZKSIDE_HEALTH_LISTEN": "0.0.0.0:9465"}).config
    assert str(config.http.listen) == "0.0.0.0:9464"


async def test_each_socket_has_its_own_mode_group_and_identity(short_path: Path) -> None:
    sockets = (
        UnixListener(short_path / "all.sock", 0o666),
        UnixListener(short_path / "app.sock", 0o600, os.getgid(), identity="app"),
    )
    async with Reception(*sockets) as reception:
        modes = [stat.S_IMODE(listener.path.stat().st_mode) for listener in sockets]
        assert modes == [0o666, 0o600]
        for address, listener in zip(reception.addresses, sockets, strict=True):
            async with grpc.aio.insecure_channel(address) as channel:
                taken_for = await who(channel)
                assert taken_for["listener"] == address
                assert taken_for["listener_identity"] == listener.identity
                assert taken_for["names"] == []
    assert not any(listener.path.exists() for listener in sockets)


async def test_a_port_of_loopback_can_give_an_identity_and_tells_the_caller_s_address() -> None:
    async with (
        Reception(TcpListener("127.0.0.1", 0, identity="local")) as reception,
        grpc.aio.insecure_channel(reception.addresses[0]) as channel,
    ):
        taken_for = await who(channel, metadata=(("authorization", "Bearer nobody-reads-this"),))
        assert taken_for["listener_identity"] == "local"
        assert taken_for["address"].startswith("ipv4:127.0.0.1:")
        assert taken_for["token"] == ""


@pytest.mark.parametrize(
    ("told_apart", "servers"),
    [((), 1), ((UnixListener(Path("app.sock"), identity="app"),), 3)],
)
async def test_only_listeners_that_are_told_apart_cost_a_server_each(
    short_path: Path, told_apart: tuple[UnixListener, ...], servers: int
) -> None:
    more = tuple(UnixListener(short_path / each.path, identity=each.identity) for each in told_apart)
    plain: tuple[Listener, ...] = (UnixListener(short_path / "a.sock"), TcpListener("127.0.0.1", 0))
    async with Reception(*plain, *more) as reception:
        assert len(reception.doors) == servers
        assert all((door is None) == (servers == 1) for door in reception.doors)


async def test_a_daemon_serves_by_every_one_of_its_sockets(hosts: str, short_path: Path) -> None:
    listeners = (
        UnixListener(short_path / "a.sock"),
        UnixListener(short_path / "b.sock", identity="b"),
        TcpListener("127.0.0.1", 0, identity="c"),
    )
    async with Host(hosts, short_path, listeners=listeners) as host:
        assert len(host.rpc.addresses) == 3
        for address in host.rpc.addresses:
            async with Client(address) as client:
                assert await client.exists("/")
