"""Connect strings: what is taken, and what is refused with a word on what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from zkside.config_source import read
from zkside.errors import BadConfiguration, StartError
from zkside.zk.hosts import Hosts

TAKEN = {
    "h1,h2:2182,[::1]:2183/app/x": ((("h1", 2181), ("h2", 2182), ("::1", 2183)), "/app/x"),
    "h1:1/": ((("h1", 1),), ""),
    "h1:1": ((("h1", 1),), ""),
    " h1:1 , h2:2 ": ((("h1", 1), ("h2", 2)), ""),
    "zk.example.com.:2181": ((("zk.example.com.", 2181),), ""),
    "[fe80::1%eth0]": ((("fe80::1%eth0", 2181),), ""),
    "my_zookeeper:2181": ((("my_zookeeper", 2181),), ""),
    "ZK1:2181": ((("zk1", 2181),), ""),
    "127.0.0.1:2181,127.0.0.1:2182/a": ((("127.0.0.1", 2181), ("127.0.0.1", 2182)), "/a"),
}

REFUSED = {
    "": "it is empty",
    ",": "nothing between two commas",
    "h1:1,": "nothing between two commas",
    "h1:1,,h2:1": "nothing between two commas",
    ":2181": "a server has no name",
    "zk1:2181/app,zk2:2181/app": "was 'zk1:2181,zk2:2181/app' meant?",
    "zk1:2181,zk2:2181/app,zk3:2181": "was 'zk1:2181,zk2:2181,zk3:2181/app' meant?",
    "zk1/app,zk2/app,zk3/app": "was 'zk1,zk2,zk3/app' meant?",
    "zk1 zk2:2181": "servers are separated by commas",
    "zk1:2181 zk2:2181/app": "servers are separated by commas",
    "zk1:2181/app zk2:2181/app": "servers are separated by commas",
    "zk1:2181\nzk2:2181": "servers are separated by commas",
    "zk1:2181;zk2:2181": "by commas, not by semicolons",
    "user@zk1": "zookeeper.auth and zookeeper.sasl",
    "user:secret@zk1:2181,zk2": "zookeeper.auth and zookeeper.sasl",
    "zk1:2181?x": "options are keys of the configuration",
    "zk1:2181#x": "options are keys of the configuration",
    "hosts=zk1:2181": "options are keys of the configuration",
    "zk1:0": "'0' is no port",
    "zk1:65536": "'65536' is no port",
    "zk1:-1": "'-1' is no port",
    "zk1:port": "'port' is no port",
    "zk1:٢١٨١": "is no port",
    "zk1:": "no port behind it",
    "zk1,2181": "is it a port without its host?",
    "zk1:2181:2182": "more than one colon",
    "::1": "was '[::1]:2181' meant?",
    "fe80::1:2181": "was '[fe80::1:2181]:2181' meant?",
    "2001:db8:0:0:0:0:0:1:2182": "was '[2001:db8:0:0:0:0:0:1]:2182' meant?",
    "[::1:2181": "was '[::1]:2181' meant?",
    "[zk1]:2181": "brackets are for these alone",
    "[127.0.0.1]:2181": "brackets are for these alone",
    "zk1:2181,zk1:2181": "zk1:2181 stands there twice",
    "zk1,ZK1:2181": "zk1:2181 stands there twice",
    "zk://zk1:2181": "leave out 'zk://'",
    "zookeeper://zk1:2181,zk2:2181/app": "leave out 'zookeeper://'",
    '"zk1:2181"': "the quotes are part of the value",
    "zürich:2181": "was 'xn--zrich-kva' meant?",
    "256.0.0.1": "is no IP address",
    "127.1": "is no IP address",
    "-zk:2181": "is no host name",
    "zk..x:2181": "is no host name",
    f"{'a' * 64}:2181": "is no host name",
    "zk1:2181/app/": "was '/app' meant?",
    "zk1//x": "empty name",
    "zk1:2181/../x": "relative names",
}


@pytest.mark.parametrize("hosts", TAKEN)
def test_what_zookeeper_takes_is_taken(hosts: str) -> None:
    assert Hosts.parse(hosts) == Hosts(*TAKEN[hosts])


@pytest.mark.parametrize("hosts", REFUSED)
def test_what_makes_no_sense_is_refused_with_a_hint(hosts: str) -> None:
    """O1, O5."""
    with pytest.raises(StartError, match=r"^hosts = ") as raised:
        Hosts.parse(hosts)
    assert REFUSED[hosts] in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("source", ["file", "environment", "flag"])
def test_it_is_refused_wherever_the_configuration_comes_from(source: str, tmp_path: Path) -> None:
    """As `serve`, `dev`, `config check` and a reload read it."""
    hosts = "zk1:2181/app,zk2:2181/app"
    file = tmp_path / "zkside.toml"
    file.write_text(f'[zookeeper]\nhosts = "{hosts}"\n' if source == "file" else "")
    environment = {"ZKSIDE_ZOOKEEPER_HOSTS": hosts} if source == "environment" else {}
    flags = {"zookeeper.hosts": hosts} if source == "flag" else {}
    with pytest.raises(BadConfiguration) as raised:
        read(file=file, environment=environment, flags=flags)
    assert "was 'zk1:2181,zk2:2181/app' meant?" in str(raised.value)
