"""Bearer tokens: who sends which is called what, how they are exchanged, and that nobody reads them."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cli.conftest import environment
from tests.ops.process import DaemonProcess
from tests.rpc.host import Host
from tests.security.authority import Authority, Issued, Volume
from tests.security.reception import APP_TOKEN, CI_TOKEN, Reception, look, who
from zkside.client import Client
from zkside.client.credentials import credentials_for
from zkside.errors import InvalidArgument, StartError, Unauthenticated
from zkside.model.identity import Auth, Peer
from zkside.rpc.listeners import TcpListener, UnixListener
from zkside.rpc.tokens import Tokens, read_tokens

OPTIONAL = TcpListener("127.0.0.1", 0)
DEMANDING = TcpListener("127.0.0.1", 0, auth=Auth.TOKEN)


def bearing(token: str, scheme: str = "Bearer") -> tuple[tuple[str, str], ...]:
    return (("authorization", f"{scheme} {token}"),)


# Files


def test_tokens_stand_in_files_as_they_are_or_as_digests(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    digest = sha256(APP_TOKEN.encode()).hexdigest()
    file.write_text(f"# old and new\n\nci {CI_TOKEN}\n  ci \t {CI_TOKEN}-new  \napp sha256:{digest}\n")
    tokens = read_tokens([file])
    assert (len(tokens), tokens.names) == (3, frozenset({"ci", "app"}))
    assert [tokens.name_of(each) for each in (CI_TOKEN, f"{CI_TOKEN}-new", APP_TOKEN)] == ["ci", "ci", "app"]
    for wrong in (
        "",
        CI_TOKEN[:-1],
        f"{CI_TOKEN} ",
        CI_TOKEN.upper(),
        digest,
        f"sha256:{digest}",
        "\udcff",
        "x" * 9999,
    ):
        with pytest.raises(Unauthenticated):
            tokens.name_of(wrong)


def test_a_directory_has_a_file_for_each_name(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "secret", ci=CI_TOKEN.encode(), app=f"{APP_TOKEN}\n{APP_TOKEN}-new\n".encode())
    (tmp_path / "more").write_text("ops ops-0123456789-abcdef")
    tokens = read_tokens([volume.directory, tmp_path / "more"])
    assert tokens.names == {"ci", "app", "ops"}
    assert tokens.name_of(f"{APP_TOKEN}-new") == "app"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{CI_TOKEN}", "line 1: a name and a token are expected"),
        (f"ci {CI_TOKEN}\nci short-token", "line 2: a token has 16 to 8192 characters, this one 11"),
        (f"ci {CI_TOKEN} {APP_TOKEN}", "line 1: a token has printable characters of ASCII and no space"),
        (f"a/b {CI_TOKEN}", "line 1: a name has letters, digits"),
        (f"ci {CI_TOKEN}\napp {CI_TOKEN}", "line 2: the token of app is also that of ci"),
        (f"ci sha256:{'0' * 63}", "line 1: behind sha256: 64 hexadecimal digits"),
        (f"ci {'é' * 16}", "line 1: a token has printable characters"),
        (b"ci \xff\xff", "is not text"),
        (b"x" * ((4 << 20) + 1), "has more than"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_without_the_token(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    """O2: secrets are not printed, also not wrong ones."""
    file = tmp_path / "tokens"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StartError, match=message) as raised:
        read_tokens([file])
    assert str(file) in str(raised.value)
    assert CI_TOKEN not in str(raised.value)
    with pytest.raises(StartError, match="cannot be read: No such file"):
        read_tokens([tmp_path / "gone"])


def test_tokens_are_not_kept_and_not_printed(tokens: Path) -> None:
    known = read_tokens([tokens])
    kept = repr([getattr(known, slot) for slot in Tokens.__slots__]) + repr(known)
    assert CI_TOKEN not in kept
    assert CI_TOKEN not in repr(Peer("unix:/s", names=("token:ci",), token=CI_TOKEN))


# Calls


async def test_a_known_token_names_its_caller(tokens: Path) -> None:
    async with (
        Reception(DEMANDING, token_files=(tokens,)) as reception,
        grpc.aio.insecure_channel(reception.addresses[0]) as channel,
    ):
        assert (await who(channel, metadata=bearing(CI_TOKEN)))["names"] == ["token:ci"]
        assert (await who(channel, metadata=bearing(APP_TOKEN, "bearer")))["names"] == ["token:app"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ((), "this listener wants a bearer token"),
        (bearing("wrong-0123456789-abcdefghij"), "not, or no longer, one that this daemon knows"),
        (bearing(CI_TOKEN[:-1]), "not, or no longer"),
        (bearing(CI_TOKEN, "Basic"), "is not `Bearer` and a token"),
        (bearing(""), "is not `Bearer` and a token"),
        ((("authorization", CI_TOKEN),), "is not `Bearer` and a token"),
        ((*bearing("wrong-0123456789-abcdefghij"), *bearing(CI_TOKEN)), "not, or no longer"),
    ],
)
async def test_a_caller_without_a_known_token_is_refused_and_no_token_is_told(
    tokens: Path, metadata: Any, words: str
) -> None:
    """O2."""
    async with (
        Reception(DEMANDING, token_files=(tokens,)) as reception,
        grpc.aio.insecure_channel(reception.addresses[0]) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=words) as raised:
            await who(channel, metadata=metadata)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert CI_TOKEN[:-1] not in str(raised.value)


async def test_where_a_token_is_not_demanded_a_wrong_one_is_refused_all_the_same(
    tokens: Path, short_path: Path
) -> None:
    """Who shows a token means to be known by it: without it the call would run as somebody else."""
    listeners = (UnixListener(short_path / "s", identity="host"), OPTIONAL)
    async with Reception(*listeners, token_files=(tokens,)) as reception:
        for address, identity in zip(reception.addresses, ("host", ""), strict=True):
            async with grpc.aio.insecure_channel(address) as channel:
                nobody, ci = await who(channel), await who(channel, metadata=bearing(CI_TOKEN))
                assert (nobody["names"], nobody["listener_identity"]) == ([], identity)
                assert (ci["names"], ci["listener_identity"]) == (["token:ci"], identity)
                with pytest.raises(grpc.aio.AioRpcError):
                    await who(channel, metadata=bearing("wrong-0123456789-abcdefghij"))


async def test_a_token_adds_its_name_to_those_of_a_certificate(
    tokens: Path, authority: Authority, server: Issued, app: Issued
) -> None:
    both = TcpListener("127.0.0.1", 0, tls=True, auth=Auth.CERTIFICATE)
    pair = app.key.read_bytes(), app.cert.read_bytes()
    credentials = grpc.ssl_channel_credentials(authority.cert.read_bytes(), *pair)
    tls = authority.files(server, demanding=True)
    async with (
        Reception(both, tls=tls, token_files=(tokens,)) as reception,
        grpc.aio.secure_channel(reception.addresses[0], credentials) as channel,
    ):
        names = (await who(channel, metadata=bearing(CI_TOKEN)))["names"]
        assert (names[0], names[-1]) == ("uri:spiffe://example.org/app", "token:ci")


async def test_every_method_of_a_daemon_wants_the_token(hosts: str, short_path: Path, tokens: Path) -> None:
    """O2: also health, reflection and channelz, and before a request is so much as parsed."""
    async with Host(hosts, short_path, listeners=(DEMANDING,), token_files=(tokens,)) as host:
        handlers = host.rpc._all_handlers(None)._by_name
        async with grpc.aio.insecure_channel(host.address) as channel:
            assert len(handlers) > 50
            for method, handler in handlers.items():
                unary_request = not handler.request_streaming
                kind = f"{'unary' if unary_request else 'stream'}_{'stream' if handler.response_streaming else 'unary'}"
                call = getattr(channel, kind)(method)(*([b"\xff rubbish"] if unary_request else []), timeout=10)
                assert await call.code() is grpc.StatusCode.UNAUTHENTICATED, method
        async with Client(host.address) as nobody:
            with pytest.raises(Unauthenticated, match="token_file"):
                await nobody.get("/")
            with pytest.raises(Unauthenticated):
                async with nobody.lock("/tokens"):
                    raise AssertionError("nobody may hold anything")
            with pytest.raises(Unauthenticated):
                await anext(nobody.watch("/"))


# Exchange


async def test_a_token_that_was_exchanged_counts_with_the_next_call_and_streams_go_on(
    hosts: str, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files exchanged as Kubernetes does: the daemon knows old and new first, then the client sends the new
    one, then the old one is forgotten."""
    monkeypatch.setattr("zkside.client.credentials.LOOK_INTERVAL_S", 0.0)
    new = f"{CI_TOKEN}-new"
    known = Volume(short_path / "known", ci=CI_TOKEN.encode())
    own = Volume(short_path / "own", token=CI_TOKEN.encode())
    async with (
        Host(hosts, short_path, listeners=(DEMANDING,), token_files=(known.directory,)) as host,
        Client(host.address, token_file=own.path("token")) as client,
        client.lock("/exchanged") as held,
    ):
        known.exchange(ci=f"{CI_TOKEN}\n{new}\n".encode())
        look(host.files)
        own.exchange(token=f"{new}\n".encode())
        assert await client.exists("/")
        known.exchange(ci=new.encode())
        look(host.files)
        assert await client.exists("/")
        assert held.is_held()
        old = short_path / "old"
        old.write_text(CI_TOKEN)
        async with Client(host.address, token_file=old) as late:
            with pytest.raises(Unauthenticated, match="no longer"):
                await late.exists("/")


async def test_a_file_that_makes_no_sense_leaves_the_tokens_of_before(
    tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Reception(DEMANDING, token_files=(tokens,)) as reception,
        grpc.aio.insecure_channel(reception.addresses[0]) as channel,
    ):
        tokens.write_text(f"ci {CI_TOKEN}\nbroken {APP_TOKEN} and more\n")
        reception.look()
        assert (await who(channel, metadata=bearing(APP_TOKEN)))["names"] == ["token:app"]
        assert "tokens: not read again" in caplog.text
        assert APP_TOKEN not in caplog.text
        tokens.unlink()
        reception.look()
        assert (await who(channel, metadata=bearing(APP_TOKEN)))["names"] == ["token:app"]
        tokens.write_text(f"other {APP_TOKEN}\n")
        reception.look()
        assert (await who(channel, metadata=bearing(APP_TOKEN)))["names"] == ["token:other"]
        with pytest.raises(grpc.aio.AioRpcError):
            await who(channel, metadata=bearing(CI_TOKEN))


# The SDK and the command line


async def test_the_sdk_goes_on_with_its_token_while_the_file_is_exchanged(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zkside.client.credentials.LOOK_INTERVAL_S", 0.0)
    own = tmp_path / "own"
    async with (
        Reception(DEMANDING, token_files=(tokens,)) as reception,
        Client(reception.addresses[0], token_file=own) as client,
    ):
        for content in (None, "", "two words"):
            if content is not None:
                own.write_text(content)
            with pytest.raises(InvalidArgument, match=f"the token file {own} cannot be used"):
                await client.get("/")
        own.write_text(f"\n{CI_TOKEN}\n")
        assert (await who(client._link.channel))["names"] == ["token:ci"]
        own.write_text("")
        assert (await who(client._link.channel))["names"] == ["token:ci"]
        own.unlink()
        assert (await who(client._link.channel))["names"] == ["token:ci"]
        own.write_text(APP_TOKEN)
        assert (await who(client._link.channel))["names"] == ["token:app"]


def test_the_sdk_sends_no_token_in_the_clear_to_another_host(tmp_path: Path) -> None:
    """O2."""
    for address in ("10.0.0.1:7443", "zkside.example.org:7443", "[2001:db8::1]:7443"):
        with pytest.raises(InvalidArgument, match=r"a token would go to .* in the clear"):
            Client(address, token_file=tmp_path / "token")
        with pytest.raises(InvalidArgument, match="in the clear"):
            credentials_for(address, environment={"ZKSIDE_TOKEN_FILE": "/token"})
        assert credentials_for(address, environment={"ZKSIDE_TOKEN_FILE": "/token", "ZKSIDE_CA": "/ca"})
    for address in ("127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/s"):
        assert credentials_for(address, environment={"ZKSIDE_TOKEN_FILE": "/token"}).token_file == Path("/token")


def test_the_command_line_and_what_it_runs_show_the_same_credentials_and_no_log_has_the_token(
    hosts: str, short_path: Path, tokens: Path, authority: Authority, server: Issued
) -> None:
    """O2: TLS and a token, from the options of a command to those that it starts; the daemon logs all it can."""
    own = short_path / "token"
    own.write_text(CI_TOKEN)
    wrong = "wrong-0123456789-abcdefghij"
    (short_path / "wrong").write_text(wrong)
    keys = {
        "ZOOKEEPER_HOSTS": hosts,
        "LISTEN": "127.0.0.1:0",
        "LOG_LEVEL": "debug",
        "TLS_CERT": str(server.cert),
        "TLS_KEY": str(server.key),
        "TOKENS_FILES": str(tokens),
    }
    with DaemonProcess(short_path, **keys) as daemon:
        (address,) = json.loads(daemon.lines[-1])["addresses"]

        def zkside(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "zkside", *arguments]
            return subprocess.run(
                command, env=environment("unix:/nowhere"), capture_output=True, text=True, timeout=60, check=False
            )

        shown = ("-a", address, "--ca", str(authority.cert), "--token-file", str(own))
        inner = f"{sys.executable} -m zkside get /"
        done = zkside(*shown, "lock", "/by-command", "--", "sh", "-c", f"{inner} && env | grep ^ZKSIDE_")
        assert done.returncode == 0, done.stderr
        assert f"ZKSIDE_TOKEN_FILE={own}" in done.stdout
        assert f"ZKSIDE_CA={authority.cert}" in done.stdout
        nobody = zkside(*shown[:4], "get", "/")
        assert nobody.returncode != 0
        assert "this listener wants a bearer token" in nobody.stderr
        refused = zkside(*shown[:4], "--token-file", str(short_path / "wrong"), "get", "/")
        assert "no longer, one that this daemon knows" in refused.stderr
        assert wrong not in refused.stderr
        daemon.signal(signal.SIGTERM)
        daemon.wait_ended()
    log = daemon.log
    assert not any(secret in log for secret in (CI_TOKEN, APP_TOKEN, wrong))


async def test_no_line_of_any_library_has_a_token(tokens: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with Reception(DEMANDING, token_files=(tokens,)) as reception:
            own = tokens.with_name("own")
            own.write_text(CI_TOKEN)
            async with Client(reception.addresses[0], token_file=own) as client:
                assert (await who(client._link.channel))["token"] == CI_TOKEN
    assert CI_TOKEN not in caplog.text
