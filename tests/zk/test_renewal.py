"""TLS to ZooKeeper: certificates and authorities are exchanged under a daemon, as they are every few weeks."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.parts.eventually import until
from tests.rpc.conftest import short_path
from tests.security.authority import Authority, Issued
from tests.zk.conftest import Connect
from zkside.cli.zookeeper import DEBIAN_JARS, Installation, ZooKeeperServer, free_port
from zkside.client import Client
from zkside.config import Config
from zkside.config_source import read
from zkside.daemon import Daemon
from zkside.zk.tls import ZooKeeperTls, load

__all__ = ["short_path"]


class Place:
    """A ZooKeeper that takes TLS alone, from clients that its authority knows, and the files of both sides."""

    def __init__(self, installation: Installation, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        # Debian's jar does not name all of netty that TLS takes.
        more = tuple(jar for name in ("codec", "resolver") if (jar := DEBIAN_JARS / f"netty-{name}.jar").exists())
        self.server = ZooKeeperServer(
            dataclasses.replace(installation, class_path=(*installation.class_path, *more)),
            tick_ms=200,
            properties={
                "secureClientPort": self.port,
                "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
                "ssl.keyStore.location": directory / "server.pem",
                "ssl.trustStore.location": directory / "server-ca.pem",
            },
        )

    def exchange(self, authority: Authority, *, days: int = 2) -> None:
        """Everything is another authority's from now on; the server sees it when it starts again."""
        server = authority.issue("server", "DNS:localhost")
        (self.directory / "server.pem").write_text(server.key.read_text() + server.cert.read_text())
        shutil.copy(authority.cert, self.directory / "server-ca.pem")
        self.give(authority.issue("client", "DNS:client", days=days))
        shutil.copy(authority.cert, self.directory / "ca.pem")

    def give(self, client: Issued) -> None:
        shutil.copy(client.cert, self.directory / "client.crt")
        shutil.copy(client.key, self.directory / "client.key")

    def config(self, host: str = "localhost", **keys: object) -> Config:
        files = {"ca": "ca.pem", "cert": "client.crt", "key": "client.key"}
        flags = {f"zookeeper.tls.{key}": str(self.directory / name) for key, name in files.items()}
        given = {name.replace("__", "."): value for name, value in keys.items()}
        return read(
            file=Path("/dev/null"),
            environment={},
            flags={
                "listen": f"unix:{self.directory}/zkside.sock",
                "http.listen": "",
                "zookeeper.hosts": f"{host}:{self.port}",
                "zookeeper.session_timeout": "4s",
                "zookeeper.tls.enabled": True,
                **flags,
                **given,
            },
        ).config


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Daemon]:
    daemon = Daemon(config, read=lambda: config)
    await daemon.start()
    try:
        yield daemon
    finally:
        await daemon.stop()


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    directory = tmp_path_factory.mktemp("authorities")
    return Authority(directory / "one", "one"), Authority(directory / "other", "other")


@pytest.fixture
def place(
    zookeeper_installation: Installation, authorities: tuple[Authority, Authority], short_path: Path
) -> Iterator[Place]:
    place = Place(zookeeper_installation, short_path)
    place.exchange(authorities[0])
    with place.server:
        yield place


def value(daemon: Daemon, name: str, **labels: str) -> float:
    """Of a metric as it would be scraped now."""
    samples = (sample for family in daemon.rpc.collect() for sample in family.samples)
    return next(sample.value for sample in samples if (sample.name, sample.labels) == (name, labels))


async def test_new_certificates_of_another_authority_are_taken_up_without_a_restart(
    place: Place, authorities: tuple[Authority, Authority]
) -> None:
    """O5: the server is started again with its new ones; reload says that files were read."""
    async with running(place.config()) as daemon, Client(daemon.addresses[0]) as client:
        await asyncio.wait_for(daemon.session.wait_connected(), 30)
        place.exchange(authorities[1], days=5)
        await asyncio.to_thread(place.server.restart)
        await until(lambda: daemon.session.connecting().last_error_unix_s > 0 or daemon.session.epoch > 1)
        await asyncio.wait_for(daemon.session.wait_connected(), 30)
        await client.create("/seen")
        told = await client.admin.reload_config()
        assert (told.read_again, told.refused) == (("zookeeper_tls",), ())
        for certificate, days in (("zookeeper_client", 5), ("zookeeper_ca", 30)):
            ends_s = value(daemon, "zkside_tls_certificate_expiry_timestamp_seconds", certificate=certificate)
            assert abs(ends_s - time.time() - days * 86400) < 86400


async def test_a_half_written_pair_leaves_the_old_one_in_use_and_says_so(
    place: Place, authorities: tuple[Authority, Authority], caplog: pytest.LogCaptureFixture
) -> None:
    """O5: the new certificate is there, its key not yet."""
    async with running(place.config()) as daemon, Client(daemon.addresses[0]) as client:
        await asyncio.wait_for(daemon.session.wait_connected(), 30)
        other = authorities[0].issue("again", "DNS:client")
        shutil.copy(other.cert, place.directory / "client.crt")
        await until(lambda: value(daemon, "zkside_files_current", source="zookeeper_tls") == 0)
        assert "the key is not that of the certificate" in caplog.text
        (refused,) = (await client.admin.reload_config()).refused
        assert "the key is not that of the certificate" in refused
        await asyncio.to_thread(place.server.restart)
        await until(lambda: daemon.session.statistics().connection is not None)
        await asyncio.wait_for(daemon.session.wait_connected(), 30)
        shutil.copy(other.key, place.directory / "client.key")
        await until(lambda: value(daemon, "zkside_files_current", source="zookeeper_tls") == 1)


async def test_certificates_are_taken_as_they_are_unless_they_are_to_be_to_the_letter(place: Place) -> None:
    """O5, O1: on every release of Python alike; 3.13 looks closely by itself."""
    async with running(place.config()) as daemon:
        await asyncio.wait_for(daemon.session.wait_connected(), 30)
    async with running(place.config(zookeeper__tls__strict=True)) as daemon:
        await until(lambda: "zookeeper.tls.strict = false" in daemon.session.connecting().last_error)
        assert daemon.session.connecting().failures["tls"] > 0


async def test_a_name_with_a_dot_at_its_end_is_verified_without_it(connect: Connect, place: Place) -> None:
    """O5: the dot is the DNS's; no certificate has it."""
    directory = place.directory
    tls = ZooKeeperTls(directory / "ca.pem", directory / "client.crt", directory / "client.key")
    asked: list[str] = []

    def lookup(name: str, port: int) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"]

    await connect(f"localhost.:{place.port}", ssl_context=lambda: load(tls).context, lookup=lookup)
    assert {*asked} == {"localhost."}
