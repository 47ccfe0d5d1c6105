"""TLS to clients: what is encrypted, who is let in, and how certificates are renewed without a restart."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.ops.process import DaemonProcess
from tests.rpc.host import Host
from tests.security.authority import Authority, Issued, Volume, openssl
from tests.security.reception import Reception, look, served, who
from zkside.client import Client, TlsOptions
from zkside.errors import InvalidArgument, StartError, Unavailable
from zkside.model.identity import Auth
from zkside.rpc.listeners import TcpListener, TlsFiles
from zkside.rpc.server import SERVER_OPTIONS
from zkside.rpc.tls import read_certificates
from zkside.zk.der import validity

ENCRYPTED = TcpListener("127.0.0.1", 0, tls=True)
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
DEMANDING = TcpListener("127.0.0.1", 0, tls=True, auth=Auth.CERTIFICATE)


def channel(address: str, authority: Authority, shown: Issued | None = None) -> grpc.aio.Channel:
    """gRPC's own, without the SDK."""
    pair = (shown.key.read_bytes(), shown.cert.read_bytes()) if shown is not None else (None, None)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(authority.cert.read_bytes(), *pair))


def copied(issued: Issued, directory: Path) -> Issued:
    """Files of their own, to be replaced."""
    directory.mkdir(exist_ok=True)
    for name, source in (("tls.crt", issued.cert), ("tls.key", issued.key)):
        shutil.copy(source, directory / name)
    return Issued(directory / "tls.crt", directory / "tls.key")


# Who is let in


async def test_a_caller_is_known_by_all_names_of_its_certificate(
    authority: Authority, server: Issued, app: Issued
) -> None:
    async with (
        Reception(DEMANDING, tls=authority.files(server, demanding=True)) as reception,
        channel(reception.addresses[0], authority, app) as secured,
    ):
        taken_for = await who(secured)
    assert taken_for["names"] == [
        "uri:spiffe://example.org/app",
        "dns:app.example.org",
        "dns:app2.example.org",
        "cn:the-app",
    ]


async def test_a_caller_without_a_certificate_of_a_known_authority_is_not_let_in(
    authority: Authority, stranger: Authority, server: Issued
) -> None:
    """O2."""
    foreign = stranger.issue("foreign", "DNS:app.example.org")
    expired = authority.issue("expired", "DNS:app.example.org", days=-1)
    async with Reception(DEMANDING, tls=authority.files(server, demanding=True)) as reception:
        for shown in (None, foreign, expired):
            async with channel(reception.addresses[0], authority, shown) as secured:
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await who(secured)
                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_without_any_name_is_nobody_s(authority: Authority, server: Issued, tmp_path: Path) -> None:
    """O2."""
    nameless = Authority(tmp_path / "nameless")
    issued = nameless.issue("nobody", cn="")
    openssl("req", "-new", "-key", issued.key, "-subj", "/O=nobody", "-out", tmp_path / "csr")
    openssl(
        *("x509", "-req", "-in", tmp_path / "csr", "-CA", nameless.cert, "-CAkey", nameless.cert.with_suffix(".key")),
        *("-CAcreateserial", "-out", issued.cert),
    )
    files = TlsFiles(server.cert, server.key, nameless.cert)
    async with (
        Reception(DEMANDING, tls=files) as reception,
        channel(reception.addresses[0], authority, issued) as secured,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await who(secured)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_nothing_is_served_in_the_clear_where_tls_is_spoken(authority: Authority, server: Issued) -> None:
    """O2."""
    async with (
        Reception(ENCRYPTED, tls=authority.files(server)) as reception,
        grpc.aio.insecure_channel(reception.addresses[0]) as plain,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await who(plain)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_of_tls_are_refused(authority: Authority, server: Issued, version: ssl.TLSVersion) -> None:
    def connect(address: str) -> None:
        context = ssl.create_default_context(cafile=str(authority.cert))
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, version
        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), 5) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            pass

    async with Reception(ENCRYPTED, tls=authority.files(server)) as reception:
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(connect, reception.addresses[0])


# The SDK


async def test_the_sdk_speaks_tls_and_shows_its_certificate(
    hosts: str, short_path: Path, authority: Authority, server: Issued, app: Issued
) -> None:
    tls = authority.files(server, demanding=True)
    async with (
        Host(hosts, short_path, listeners=(DEMANDING,), tls=tls) as host,
        Client(host.address, tls=authority.options(app)) as client,
    ):
        assert await client.exists("/")
        async with client.hold_ephemeral("/tls-", b"", sequential=True) as held:
            assert held.is_held()


async def test_what_is_wrong_with_tls_is_said_in_words(
    authority: Authority, stranger: Authority, server: Issued, app: Issued
) -> None:
    elsewhere = authority.issue("elsewhere", "DNS:elsewhere.example.org")
    for tls, options, words in (
        (authority.files(server), TlsOptions(stranger.cert), "not signed by an authority of ZKSIDE_CA"),
        (authority.files(elsewhere), authority.options(), "give the one it has as ZKSIDE_SERVER_NAME"),
        (authority.files(server), None, "it may want TLS"),
        (None, authority.options(), "it does not speak TLS there"),
    ):
        listener = ENCRYPTED if tls is not None else TcpListener("127.0.0.1", 0, identity="plain")
        async with Reception(listener, tls=tls) as reception, Client(reception.addresses[0], tls=options) as client:
            with pytest.raises(Unavailable, match=words):
                await client.get("/")
    tls = authority.files(server, demanding=True)
    async with (
        Reception(DEMANDING, tls=tls) as reception,
        Client(reception.addresses[0], tls=authority.options()) as client,
    ):
        with pytest.raises(Unavailable, match="or a certificate of an authority that it knows"):
            await client.get("/")


async def test_a_name_that_is_not_the_address_s_can_be_expected(authority: Authority) -> None:
    elsewhere = authority.issue("named", "DNS:zkside.example.org")
    options = TlsOptions(authority.cert, server_name="zkside.example.org")
    async with (
        Reception(ENCRYPTED, tls=authority.files(elsewhere)) as reception,
        Client(reception.addresses[0], tls=options) as client,
    ):
        assert (await who(client._link.channel))["listener"] == ENCRYPTED.address


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (TlsOptions(ca="/nowhere/ca.crt"), "/nowhere/ca.crt cannot be read: No such file"),
        (TlsOptions(ca=__file__), "TLS cannot be spoken with .*test_tls.py"),
        (TlsOptions(cert="/c"), "a certificate and its key belong together: ZKSIDE_CERT and ZKSIDE_KEY"),
    ],
)
async def test_files_that_the_sdk_cannot_use_are_told(options: TlsOptions, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        async with Client("127.0.0.1:1", tls=options) as client:
            await client.get("/")


async def test_tls_over_a_unix_socket_is_a_mistake_unless_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    with pytest.raises(InvalidArgument, match="is a Unix socket"):
        Client("unix:/s", tls=authority.options())
    monkeypatch.setenv("ZKSIDE_CA", str(authority.cert))
    async with Client("unix:/s") as client, Client("127.0.0.1:1") as other:
        assert client.environment == {"ZKSIDE_ADDRESS": "unix:/s"}
        assert other.environment == {"ZKSIDE_ADDRESS": "127.0.0.1:1", "ZKSIDE_CA": str(authority.cert)}


async def test_the_sdk_shows_a_renewed_certificate_with_the_next_call_and_keeps_its_streams(
    hosts: str, short_path: Path, authority: Authority, server: Issued, app: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zkside.client.credentials.LOOK_INTERVAL_S", 0.0)
    own = copied(app, short_path / "own")
    renewed = authority.issue("renewed", "DNS:renewed.example.org")
    tls = authority.files(server, demanding=True)
    async with (
        Reception(DEMANDING, tls=tls) as reception,
        Client(reception.addresses[0], tls=authority.options(own)) as client,
    ):
        asked = client._link.channel
        assert "cn:the-app" in (await who(asked))["names"]
        shutil.copy(renewed.cert, own.cert)
        assert "cn:the-app" in (await who(asked))["names"], "a key of another certificate is waited for"
        shutil.copy(renewed.key, own.key)
        assert (await who(asked))["names"] == ["dns:renewed.example.org", "cn:renewed"]
    copied(app, short_path / "own")
    async with (
        Host(hosts, short_path, listeners=(DEMANDING,), tls=tls) as host,
        Client(host.address, tls=authority.options(own)) as client,
        client.lock("/tls-lock") as held,
    ):
        copied(renewed, short_path / "own")
        assert await client.exists("/")
        assert held.is_held()
        assert (await client.contenders("/tls-lock")).holders


# Renewal


async def served_by(reception: Reception, authority: Authority) -> str:
    return await asyncio.to_thread(served, reception.addresses[0], authority.cert)


@pytest.mark.parametrize("way", ["rewritten", "replaced", "exchanged by a link"])
async def test_a_new_certificate_is_served_to_new_connections_and_streams_go_on(
    hosts: str, short_path: Path, authority: Authority, server: Issued, way: str
) -> None:
    """O2."""
    second = authority.server("second")
    volume = Volume(short_path / "v", tls_crt=server.cert.read_bytes(), tls_key=server.key.read_bytes())
    files = TlsFiles(volume.path("tls.crt"), volume.path("tls.key"))
    if way != "exchanged by a link":
        plain = copied(server, short_path / "plain")
        files = TlsFiles(plain.cert, plain.key)
    async with (
        Host(hosts, short_path, listeners=(ENCRYPTED,), tls=files) as host,
        Client(host.address, tls=authority.options()) as client,
        client.lock("/renewed") as held,
    ):
        watch = client.watch("/")
        await anext(watch)
        assert await asyncio.to_thread(served, host.address, authority.cert) == "server"
        if way == "rewritten":
            copied(second, short_path / "plain")
        elif way == "replaced":
            (short_path / "new").mkdir()
            for name, source in (("tls.crt", second.cert), ("tls.key", second.key)):
                shutil.copy(source, short_path / "new" / name)
                (short_path / "new" / name).replace(short_path / "plain" / name)
        else:
            volume.exchange(tls_crt=second.cert.read_bytes(), tls_key=second.key.read_bytes())
        look(host.files)
        assert await asyncio.to_thread(served, host.address, authority.cert) == "second"
        await client.set("/", way.encode())
        async with asyncio.timeout(10):
            await anext(watch)
        assert held.is_held()
        async with Client(host.address, tls=authority.options()) as new:
            assert await new.exists("/")


async def test_an_authority_that_is_taken_away_lets_nobody_in_any_more(
    authority: Authority, stranger: Authority, server: Issued, app: Issued, short_path: Path
) -> None:
    """O2."""
    trusted = short_path / "clients.crt"
    shutil.copy(authority.cert, trusted)
    foreign = stranger.issue("foreign", "DNS:foreign.example.org")
    async with Reception(DEMANDING, tls=TlsFiles(server.cert, server.key, trusted)) as reception:
        address = reception.addresses[0]
        async with channel(address, authority, app) as before:
            await who(before)
            trusted.write_bytes(stranger.cert.read_bytes())
            reception.look()
            await who(before)  # a connection is judged when it is made
            async with channel(address, authority, app) as after:
                with pytest.raises(grpc.aio.AioRpcError):
                    await who(after)
            async with channel(address, authority, foreign) as other:
                assert "cn:foreign" in (await who(other))["names"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_tls_session_is_not_resumed_past_the_end_of_its_authority(
    authority: Authority,
    stranger: Authority,
    server: Issued,
    app: Issued,
    short_path: Path,
    version: ssl.TLSVersion,
) -> None:
    """O2: a resumed session does without certificates, so it would be judged by what counted before."""
    context = ssl.create_default_context(cafile=str(authority.cert))
    context.load_cert_chain(app.cert, app.key)
    context.set_alpn_protocols(["h2"])
    context.maximum_version = version

    def connect(address: str, session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), 10) as plain,
            context.wrap_socket(plain, server_hostname=host, session=session) as secured,
        ):
            secured.sendall(HTTP2_PREFACE)
            if not secured.recv(100):
                raise ConnectionResetError
            return secured.session_reused, secured.session

    trusted = short_path / "clients.crt"
    shutil.copy(authority.cert, trusted)
    async with Reception(DEMANDING, tls=TlsFiles(server.cert, server.key, trusted)) as reception:
        _, session = await asyncio.to_thread(connect, reception.addresses[0], None)
        resumed, _ = await asyncio.to_thread(connect, reception.addresses[0], session)
        assert resumed
        trusted.write_bytes(stranger.cert.read_bytes())
        reception.look()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(connect, reception.addresses[0], session)


async def test_a_connection_that_never_speaks_is_closed(
    hosts: str, short_path: Path, authority: Authority, server: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O1: half-made connections of strangers do not pile up."""
    name = "grpc.server_handshake_timeout_ms"
    sooner = tuple((key, 300 if key == name else value) for key, value in SERVER_OPTIONS)
    assert sooner != SERVER_OPTIONS
    monkeypatch.setattr("zkside.rpc.server.SERVER_OPTIONS", sooner)
    async with Host(hosts, short_path, listeners=(ENCRYPTED,), tls=authority.files(server)) as host:
        address, _, port = host.address.rpartition(":")
        reader, writer = await asyncio.open_connection(address, int(port))
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"tls.crt": b""}, "tls.crt and .*tls.key cannot be used"),
        ({"tls.crt": b"-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"}, "cannot be used"),
        ({"tls.key": b"-----BEGIN PRIVATE KEY-----\n"}, "cannot be used"),
        ({"tls.key": None}, "tls.key cannot be read: No such file"),
        ({"tls.key": "another"}, "the key is not that of the certificate"),
        ({"tls.key": "encrypted"}, "is encrypted with a password"),
        ({"ca.crt": b"nothing"}, "ca.crt has no certificate in it"),
        ({"ca.crt": b"-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n"}, "ca.crt cannot be used"),
    ],
)
async def test_files_that_make_no_sense_change_nothing_and_are_seen(
    authority: Authority,
    server: Issued,
    short_path: Path,
    broken: dict[str, Any],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = copied(server, short_path)
    shutil.copy(authority.cert, short_path / "ca.crt")
    files = TlsFiles(own.cert, own.key, short_path / "ca.crt")
    async with Reception(ENCRYPTED, tls=files) as reception:
        ((name, content),) = broken.items()
        good = (short_path / name).read_bytes()
        if content is None:
            (short_path / name).unlink()
        elif content == "another":
            openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", short_path / name)
        elif content == "encrypted":
            openssl("ec", "-in", server.key, "-aes128", "-passout", "pass:secret", "-out", short_path / name)
        else:
            (short_path / name).write_bytes(content)
        reception.look()
        assert await served_by(reception, authority) == "server"
        (kept,) = reception.files.statistics()
        assert (kept.failures, bool(kept.error)) == (1, True)
        assert "what was read before stays in use" in caplog.text
        assert metric(reception, "zkside_files_current", source="tls") == 0
        with pytest.raises(StartError, match=words):
            async with Reception(ENCRYPTED, tls=files):
                pass
        (short_path / name).write_bytes(good)
        reception.look()
        assert metric(reception, "zkside_files_current", source="tls") == 1
        assert metric(reception, "zkside_files_failures_total", source="tls") == 1


def metric(reception: Reception, name: str, **labels: str) -> float:
    return next(
        sample.value
        for family in reception.entrances.collect()
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )


async def test_a_pair_that_is_exchanged_file_by_file_is_not_served_by_half(
    authority: Authority, server: Issued, short_path: Path
) -> None:
    own, second = copied(server, short_path), authority.server("second")
    async with Reception(ENCRYPTED, tls=TlsFiles(own.cert, own.key)) as reception:
        shutil.copy(second.cert, own.cert)
        reception.files.look()
        shutil.copy(second.key, own.key)
        reception.files.look()
        assert await served_by(reception, authority) == "server", "files that still change are not read"
        reception.files.look()
        assert await served_by(reception, authority) == "second"
        assert metric(reception, "zkside_files_failures_total", source="tls") == 0


async def test_files_that_never_rest_are_read_all_the_same(
    authority: Authority, server: Issued, short_path: Path
) -> None:
    own, second = copied(server, short_path), authority.server("second")
    async with Reception(ENCRYPTED, tls=TlsFiles(own.cert, own.key)) as reception:
        for _ in range(10):
            copied(second, short_path)
            reception.files.look()
        assert await served_by(reception, authority) == "second"


# Expiry


def not_after(cert: Path) -> float:
    """As openssl tells it."""
    told = openssl("x509", "-enddate", "-noout", "-in", cert).strip().removeprefix("notAfter=")
    return datetime.strptime(told, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC).timestamp()


async def test_the_metrics_tell_when_certificates_expire(authority: Authority, server: Issued) -> None:
    async with Reception(DEMANDING, tls=authority.files(server, demanding=True)) as reception:
        name = "zkside_tls_certificate_expiry_timestamp_seconds"
        assert metric(reception, name, certificate="server") == not_after(server.cert)
        assert metric(reception, name, certificate="client_ca") == not_after(authority.cert)


def test_of_a_chain_the_first_end_counts_and_an_expired_certificate_is_read(
    authority: Authority, server: Issued, tmp_path: Path
) -> None:
    chain, expired = tmp_path / "chain", authority.issue("old", "DNS:localhost", days=-1)
    chain.write_bytes(server.cert.read_bytes() + b"\nwords between\n" + authority.cert.read_bytes())
    assert read_certificates(TlsFiles(chain, server.key)).expires_unix_s == not_after(server.cert)
    assert read_certificates(TlsFiles(expired.cert, expired.key)).expires_unix_s == not_after(expired.cert)


@pytest.mark.parametrize("days", [1, 3650, 20_000, 1_000_000])
def test_the_end_of_validity_is_what_openssl_reads(tmp_path: Path, days: int) -> None:
    key, cert = tmp_path / "key", tmp_path / "cert"
    openssl(
        *("req", "-x509", "-newkey", "ed25519", "-nodes", "-keyout", key, "-out", cert),
        *("-subj", "/CN=x", "-days", str(days)),
    )
    assert validity(ssl.PEM_cert_to_DER_cert(cert.read_text()))[1] == not_after(cert)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_certificate_are_told_as_such(content: bytes) -> None:
    with suppress(ValueError):
        validity(content)


@given(data=st.data())
def test_a_damaged_certificate_is_told_as_such(authority: Authority, data: st.DataObject) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(authority.cert.read_text()))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        validity(bytes(der[: data.draw(st.integers(0, len(der)))]))


# A whole daemon


def test_a_running_daemon_takes_up_a_new_certificate_by_itself(
    hosts: str, short_path: Path, authority: Authority, server: Issued
) -> None:
    volume = Volume(short_path / "v", tls_crt=server.cert.read_bytes(), tls_key=server.key.read_bytes())
    second = authority.server("second")
    keys = {
        "ZOOKEEPER_HOSTS": hosts,
        "LISTEN": "127.0.0.1:0",
        "TLS_CERT": str(volume.path("tls.crt")),
        "TLS_KEY": str(volume.path("tls.key")),
    }
    with DaemonProcess(short_path, **keys) as daemon:
        (address,) = json.loads(daemon.lines[-1])["addresses"]
        assert served(address, authority.cert) == "server"
        volume.exchange(tls_crt=second.cert.read_bytes(), tls_key=second.key.read_bytes())
        assert daemon.wait_for("tls: read again")
        assert served(address, authority.cert) == "second"
        volume.exchange(tls_crt=second.cert.read_bytes(), tls_key=b"rubbish")
        assert daemon.wait_for("stays in use")
        assert served(address, authority.cert) == "second"
        _, page = daemon.get("/metrics")
        samples = {
            (sample.name, json.dumps(sample.labels)): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }
        expiry = samples["zkside_tls_certificate_expiry_timestamp_seconds", json.dumps({"certificate": "server"})]
        assert expiry == not_after(second.cert)
        assert samples["zkside_files_current", json.dumps({"source": "tls"})] == 0
