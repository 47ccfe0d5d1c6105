"""Who we are, and who the server is: digest, SASL, TLS, against real servers."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.world import WITHIN_S
from tests.zk.conftest import Connect
from zkside import errors
from zkside.cli.zookeeper import DEBIAN_JARS, Installation, ZooKeeperServer, free_port
from zkside.model.operation import Acl, Create, GetAcl, GetData, Sync
from zkside.zk.dialing import Context
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.kazoo_parts import digest_id
from zkside.zk.port import Ending
from zkside.zk.sasl import SaslSettings

ANN = ("digest", "ann:secret")


async def test_who_authenticates_by_digest_may_do_what_the_list_says(connect: Connect, hosts: str) -> None:
    ann = await connect(hosts, auth=(ANN, ("digest", "other:identity")))
    stranger = await connect(hosts)
    entry = Acl(31, "digest", digest_id("ann", "secret"))
    await ann.do(Create("/hers", b"1", acl=(entry,)))
    with pytest.raises(errors.NoAuth):
        await stranger.do(GetData("/hers"))
    assert (await ann.do(GetAcl("/hers")))[0] == (entry,)


async def test_a_scheme_that_the_server_does_not_know_ends_the_session(connect: Connect, hosts: str) -> None:
    peer = await connect(hosts, connected=False, auth=(ANN, ("unheard-of", "x")))
    assert await peer.wait_for("ended") is Ending.AUTH_FAILED
    assert not peer.all("connected")


# --- SASL


@pytest.fixture(scope="module")
def sasl_zookeeper(
    zookeeper_installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ZooKeeperServer]:
    jaas = tmp_path_factory.mktemp("sasl") / "jaas.conf"
    jaas.write_text('Server { org.apache.zookeeper.server.auth.DigestLoginModule required user_ann="secret"; };\n')
    flags = (
        f"-Djava.security.auth.login.config={jaas}",
        "-Dzookeeper.authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
    )
    with ZooKeeperServer(zookeeper_installation, tick_ms=200, jvm_flags=flags) as server:
        yield server


async def test_sasl_is_done_before_the_session_is_announced(connect: Connect, sasl_zookeeper: ZooKeeperServer) -> None:
    sasl = SaslSettings("DIGEST-MD5", "ann", "secret")
    ann = await connect(sasl_zookeeper.hosts, sasl=sasl)
    await ann.do(Create("/hers", acl=(Acl(31, "sasl", "ann"),)))
    await ann.do(GetData("/hers"))
    stranger = await connect(sasl_zookeeper.hosts)
    with pytest.raises(errors.NoAuth):
        await stranger.do(GetData("/hers"))


async def test_a_wrong_sasl_password_ends_the_session(connect: Connect, sasl_zookeeper: ZooKeeperServer) -> None:
    sasl = SaslSettings("DIGEST-MD5", "ann", "wrong")
    peer = await connect(sasl_zookeeper.hosts, connected=False, sasl=sasl)
    assert await peer.wait_for("ended") is Ending.AUTH_FAILED
    assert not peer.all("connected")


def test_a_mechanism_that_cannot_work_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kerberos", None)  # as if it were not installed
    with pytest.raises(errors.StartError, match="unknown SASL mechanism"):
        kazoo_connector(KazooSettings("h:1", sasl=SaslSettings("SCRAM", "ann", "x")))
    with pytest.raises(errors.StartError, match="needs the package kerberos"):
        kazoo_connector(KazooSettings("h:1", sasl=SaslSettings("GSSAPI")))


def test_secrets_are_not_printed() -> None:
    settings = KazooSettings("h:1", auth=(ANN,), sasl=SaslSettings("PLAIN", "ann", "secret"))
    assert "secret" not in repr(settings)


# --- TLS


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem signed server.pem (for the name localhost) and client.pem; both hold the key, too."""
    directory = tmp_path_factory.mktemp("tls")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(directory, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca")
    for name, alternative in (("server", "DNS:localhost"), ("client", "DNS:client")):
        (directory / "names").write_text(f"subjectAltName={alternative}\n")
        openssl(directory, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl(
            directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-extfile", "names", "-out", f"{name}.crt",
        )  # fmt: skip
        both = (directory / f"{name}.key").read_text() + (directory / f"{name}.crt").read_text()
        (directory / f"{name}.pem").write_text(both)
    return directory


@pytest.fixture(scope="module")
def tls_port(zookeeper_installation: Installation, certificates: Path) -> Iterator[int]:
    """A real server that takes TLS only, from clients with a certificate."""
    # Debian's jar does not name all of netty that TLS takes.
    more = tuple(jar for name in ("codec", "resolver") if (jar := DEBIAN_JARS / f"netty-{name}.jar").exists())
    installation = dataclasses.replace(zookeeper_installation, class_path=(*zookeeper_installation.class_path, *more))
    port = free_port()
    properties = {
        "secureClientPort": port,
        "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
        "ssl.keyStore.location": certificates / "server.pem",
        "ssl.trustStore.location": certificates / "ca.pem",
    }
    with ZooKeeperServer(installation, tick_ms=200, properties=properties):
        yield port


def trusting(certificates: Path) -> Context:
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "client.pem")
    return lambda: context


async def test_a_session_runs_over_tls(connect: Connect, tls_port: int, certificates: Path) -> None:
    peer = await connect(f"localhost:{tls_port}", ssl_context=trusting(certificates))
    data = bytes(range(256)) * 2000
    await peer.do(Create("/large", data))
    for _ in range(3):
        record: bytes = await peer.do(GetData("/large"))
        assert record[: len(data)] == data


async def test_a_certificate_for_another_name_is_refused(
    connect: Connect, tls_port: int, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="zkside")
    peer = await connect(
        f"127.0.0.1:{tls_port},localhost:{tls_port}", ssl_context=trusting(certificates), session_timeout_s=5.0
    )
    assert peer.all("connected")[0].server == f"localhost:{tls_port}"
    stranger = await connect(f"127.0.0.1:{tls_port}", connected=False, ssl_context=trusting(certificates))
    async with asyncio.timeout(WITHIN_S):
        while "certificate" not in caplog.text:
            await peer.do(Sync())
    assert not stranger.log
