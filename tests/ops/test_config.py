"""Configuration: file, then environment, then flags; what is wrong is refused in words that help."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zkside
from zkside.config import Config, LeaseProof, LogLevel
from zkside.config_keys import KEYS, flatten
from zkside.config_kinds import AclEntry, Address, Duration, Listen, Mode, Number, Secret, Several
from zkside.config_source import documented, printed, read
from zkside.errors import StartError
from zkside.model.operation import Acl

PACKAGE = Path(zkside.__file__).parent


def refusal(**sources: Any) -> str:
    """What `read` says about sources that it must refuse."""
    with pytest.raises(StartError) as refused:
        read(**({"environment": {}} | sources))
    return str(refused.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "zkside.toml"


def test_nothing_given_is_the_defaults() -> None:
    reading = read(environment={})
    assert reading.config == Config()
    assert reading.origins == {}


def test_the_environment_wins_over_the_file_and_a_flag_over_both(file: Path) -> None:
    file.write_text('[zookeeper]\nhosts = "file:1"\nsession_timeout = "20s"\n[log]\nlevel = "error"\n')
    config, origins = read(
        file=file,
        environment={"ZKSIDE_ZOOKEEPER_HOSTS": "environment:1", "ZKSIDE_LOG_LEVEL": "warning"},
        flags={"log.level": "debug", "log.format": None},
    )
    assert config.zookeeper.session_timeout_s == 20.0
    assert config.zookeeper.hosts == "environment:1"
    assert config.log.level is LogLevel.DEBUG
    assert origins["zookeeper.hosts"] == "environment: ZKSIDE_ZOOKEEPER_HOSTS"
    assert origins["log.level"] == "flag: --log-level"
    assert origins["zookeeper.session_timeout"] == f"{file}: zookeeper.session_timeout"


def test_an_unknown_key_is_refused_with_the_nearest_known_one(file: Path) -> None:
    file.write_text('[zookeeper]\nsesion_timeout = "20s"\n[zokeeper]\nhosts = "x"\n')
    said = refusal(file=file, environment={"ZKSIDE_LEASE_PROF": "sync"}, flags={"log.levl": "debug"})
    assert f"{file}: zookeeper.sesion_timeout is not known: did you mean zookeeper.session_timeout?" in said
    assert f"{file}: zokeeper (a table) is not known: did you mean zookeeper?" in said
    assert "environment: ZKSIDE_LEASE_PROF is not known: did you mean ZKSIDE_LEASE_PROOF?" in said
    assert "flag: --log-levl is not known: did you mean --log-level?" in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('listen = "unix:/x"', 'listen: must be a list in the file, not text: write ["unix:/x"]'),
        (
            '[zookeeper]\nread_only = "yes"',
            "zookeeper.read_only: must be true or false in the file, not text: write true",
        ),
        ('[zookeeper]\nmax_in_flight = "5"', "max_in_flight: must be a number in the file, not text: write 5"),
        ('[zookeeper]\nauth = "digest:a:s3cret"', 'auth: must be a list in the file, not text: write ["…", "…"]'),
        ('[zookeeper]\nread_only = "perhaps"', "zookeeper.read_only: must be true or false, not 'perhaps'"),
        ("zookeeper = 5", "zookeeper: is a table of keys, such as zookeeper.hosts, and takes no value itself"),
        ("bogus = 5", "bogus is not known: `zkside config print` shows all that there are"),
    ],
)
def test_a_value_of_the_file_has_its_type_and_what_is_wrong_says_what_to_write(
    text: str, told: str, file: Path
) -> None:
    """A list that is written as text would be split at commas that belong to its items."""
    file.write_text(text)
    said = refusal(file=file)
    assert told in said
    assert "s3cret" not in said


def test_in_the_environment_all_is_text() -> None:
    config = read(environment={"ZKSIDE_LISTEN": "unix:/x", "ZKSIDE_ZOOKEEPER_READ_ONLY": "yes"}).config
    assert list(map(str, config.listen)) == ["unix:/x"]
    assert config.zookeeper.read_only is True


def test_a_variable_that_is_no_key_is_told_to_be_unset() -> None:
    said = refusal(environment={"ZKSIDE_BOGUS": "1", "ZKSIDE_ADDRES": "unix:/x"})
    assert "environment: ZKSIDE_BOGUS is not known: `zkside config print` shows all that there are. Variables" in said
    assert "ZKSIDE_ADDRES is not known: did you mean ZKSIDE_ADDRESS? Variables that begin with ZKSIDE_ are" in said


def test_what_kubernetes_and_the_client_set_in_the_environment_is_not_a_key() -> None:
    read(
        environment={
            "ZKSIDE_ADDRESS": "unix:/run/zkside/zkside.sock",
            "ZKSIDE_SERVICE_HOST": "10.0.0.1",
            "ZKSIDE_SERVICE_PORT_METRICS": "9464",
            "ZKSIDE_PORT": "tcp://10.0.0.1:9464",
            "ZKSIDE_METRICS_PORT_9464_TCP_ADDR": "10.0.0.1",
        }
    )


def test_every_problem_is_told_at_once_and_with_its_place(file: Path) -> None:
    file.write_text('socket_mode = "999"\n[zookeeper]\nsession_timeout = 10\n[hub]\nwindow_size = -1\n')
    said = refusal(file=file, flags={"lease.proof": "faith"})
    assert f"{file}: socket_mode: must be permissions" in said
    assert f'{file}: zookeeper.session_timeout: must be a duration such as "10s"' in said
    assert f"{file}: hub.window_size: must lie between 1 and 10,000,000, not at -1" in said
    assert 'flag: --lease-proof: must be one of "ping", "sync", "write", not \'faith\'' in said


def test_a_file_that_is_not_there_or_not_toml_is_told(file: Path) -> None:
    assert f"{file}: cannot be read: No such file or directory" in refusal(file=file)
    file.write_text("listen = [")
    assert f"{file}: is not TOML" in refusal(file=file)


def test_a_listener_beyond_this_host_is_refused() -> None:
    """O2: callers on TCP are not authenticated, so only this host may reach them."""
    assert "0.0.0.0:7000 can be reached from other machines" in refusal(flags={"listen": "0.0.0.0:7000"})
    assert "[::]:7000 can be reached" in refusal(flags={"listen": "[::]:7000"})
    local = "unix:/run/x.sock,127.0.0.1:7000,[::1]:7000,localhost:7000"
    assert len(read(environment={}, flags={"listen": local}).config.addresses) == 4


def test_a_lease_that_its_margin_eats_up_is_refused() -> None:
    said = refusal(flags={"zookeeper.session_timeout": "2s", "lease.tick": "3s"})
    assert "leave nothing of zookeeper.session_timeout (2 s)" in said


def test_a_client_is_refused_before_it_waits_without_a_word() -> None:
    said = refusal(flags={"quotas.max_streams_per_client": "200"})
    assert "has to be less than quotas.max_concurrent_streams (200)" in said


def test_a_secret_comes_from_a_file_and_is_never_printed(tmp_path: Path) -> None:
    kept = tmp_path / "password"
    kept.write_text("s3cret-of-the-file\n")
    reading = read(
        environment={"ZKSIDE_ZOOKEEPER_AUTH": "digest:app:s3cret-of-the-environment"},
        flags={
            "zookeeper.sasl.mechanism": "DIGEST-MD5",
            "zookeeper.sasl.username": "app",
            "zookeeper.sasl.password_file": str(kept),
        },
    )
    assert reading.config.zookeeper.sasl.password == Secret("s3cret-of-the-file")
    assert reading.config.zookeeper.auth == (Secret("digest:app:s3cret-of-the-environment"),)
    assert "s3cret" not in printed(reading)
    assert "s3cret" not in repr(reading)


ENTRIES = ("digest:app:pa,ss", "digest:app:a,b:c", "x509:CN=app,O=x")


@pytest.mark.parametrize(
    "written",
    [
        '["digest:app:pa,ss", "digest:app:a,b:c", "x509:CN=app,O=x"]',
        "[ 'digest:app:pa,ss',\n  'digest:app:a,b:c', 'x509:CN=app,O=x', ]",
        "digest:app:pa,ss\ndigest:app:a,b:c\nx509:CN=app,O=x\n",
    ],
)
def test_a_list_whose_items_have_commas_can_be_written_in_the_environment(written: str) -> None:
    """O5: in brackets as in the file, or an item a line."""
    reading = read(environment={"ZKSIDE_ZOOKEEPER_AUTH": written})
    assert tuple(secret.reveal() for secret in reading.config.zookeeper.auth) == ENTRIES


@pytest.mark.parametrize("text", ["\n".join(ENTRIES), "# who we are\n\n  {}\r\n{}\n{}\n\n".format(*ENTRIES)])
def test_a_file_of_secrets_has_an_entry_a_line(text: str, tmp_path: Path) -> None:
    """O5: with whatever commas and colons."""
    kept = tmp_path / "auth"
    kept.write_text(text)
    reading = read(environment={"ZKSIDE_ZOOKEEPER_AUTH_FILE": str(kept)})
    assert tuple(secret.reveal() for secret in reading.config.zookeeper.auth) == ENTRIES
    kept.write_text(ENTRIES[0])
    (only,) = read(environment={"ZKSIDE_ZOOKEEPER_AUTH_FILE": str(kept)}).config.zookeeper.auth
    assert only.reveal() == ENTRIES[0]


def test_what_is_wrong_with_entries_is_told_without_them(tmp_path: Path) -> None:
    """O1: a comma in a password is the likeliest reason."""
    said = refusal(environment={"ZKSIDE_ZOOKEEPER_AUTH": "digest:app:s3c,ret"})
    assert "zookeeper.auth: entry 2 is not like" in said
    assert '["…", "…"]' in said
    assert "digest:user:password" in refusal(environment={"ZKSIDE_ZOOKEEPER_AUTH": "digest:s3cret"})
    said += refusal(environment={"ZKSIDE_ZOOKEEPER_AUTH": '["digest:app:s3cret"'})
    assert "is no list such as" in said
    kept = tmp_path / "auth"
    kept.write_text("digest:app:x\ndigest:a:s3cret,digest:b:s3cret\n")
    said += refusal(environment={"ZKSIDE_ZOOKEEPER_AUTH_FILE": str(kept)})
    assert "line 2 seems to have two entries" in said
    assert "s3c" not in said


def test_every_list_takes_items_with_commas() -> None:
    """O5: access control lists, files, listeners."""
    reading = read(
        environment={
            "ZKSIDE_ZOOKEEPER_DEFAULT_ACL": '["x509:CN=app,O=x:cdrwa", "world:anyone:r"]',
            "ZKSIDE_TOKENS_FILES": "/etc/a,b\n/etc/c",
            "ZKSIDE_LISTEN": "[::1]:7000,127.0.0.1:7001",
        }
    )
    assert [entry.id for entry in reading.config.zookeeper.default_acl] == ["CN=app,O=x", "anyone"]
    assert reading.config.tokens.files == (Path("/etc/a,b"), Path("/etc/c"))
    assert list(map(str, reading.config.listen)) == ["[::1]:7000", "127.0.0.1:7001"]
    said = refusal(environment={"ZKSIDE_ZOOKEEPER_DEFAULT_ACL": "x509:CN=app,O=x:cdrwa"})
    assert "not 'x509:CN=app'" in said
    assert '["…", "…"]' in said


def test_a_secret_and_its_file_in_one_source_are_refused(tmp_path: Path) -> None:
    kept = tmp_path / "password"
    kept.write_text("x")
    both = {"zookeeper.sasl.password": "y", "zookeeper.sasl.password_file": str(kept)}
    assert "give one of them" in refusal(flags=both)
    gone = {"zookeeper.sasl.password_file": str(tmp_path / "gone")}
    assert "cannot be read" in refusal(flags=gone)


def test_what_is_printed_can_be_read_again(file: Path) -> None:
    first = read(
        environment={},
        flags={
            "listen": "unix:/run/x y.sock,[::1]:0",
            "lease.proof": "write",
            "lease.margin": "250ms",
            "zookeeper.default_acl": "sasl:app:cdrwa,world:anyone:r",
            "health.listen": "0.0.0.0:9465",
            "http.listen": "",
        },
    )
    file.write_text(printed(first))
    assert read(file=file, environment={}).config == first.config
    assert first.config.lease.proof is LeaseProof.WRITE
    assert first.config.http.listen is None


@pytest.mark.parametrize(
    ("written", "seconds"), [("10s", 10.0), ("500ms", 0.5), ("1.5m", 90.0), ("2h", 7200.0), ("0.25s", 0.25)]
)
def test_durations_have_units(written: str, seconds: float) -> None:
    kind = Duration(0.1, 86400)
    assert kind.parse(written) == pytest.approx(seconds)
    assert kind.parse(eval(kind.show(seconds))) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (Duration(1, 2), "10"),
        (Duration(1, 2), "3s"),
        (Number(0, 5), True),
        (Number(0, 5), "1.5"),
        (Mode(), "0888"),
        (Listen(unix=True), "unix:relative.sock"),
        (Listen(unix=True), "unix:/" + "x" * 107),
        (Listen(unix=True), "example.org:80"),
        (Listen(unix=False), "unix:/run/x.sock"),
        (Listen(unix=False), "127.0.0.1:99999"),
        (AclEntry(), "world:somebody:r"),
        (AclEntry(), "digest:x:q"),
        (Several(AclEntry(), may_be_empty=False), ""),
        (Several(AclEntry(), may_be_empty=False), []),
    ],
)
def test_values_that_make_no_sense_are_refused(kind: Any, raw: object) -> None:
    with pytest.raises(ValueError, match=r"must|no IP address|makes no sense|at most"):
        kind.parse(raw)


@given(st.integers(1, 31), st.sampled_from([("world", "anyone"), ("digest", "u:h="), ("sasl", "app/host@REALM")]))
def test_an_acl_entry_survives_printing(permissions: int, who: tuple[str, str]) -> None:
    entry = Acl(permissions, *who)
    assert AclEntry().parse(eval(AclEntry().show(entry))) == entry


def test_an_address_is_written_as_clients_write_it() -> None:
    assert str(Address(path="/run/zkside/zkside.sock")) == "unix:/run/zkside/zkside.sock"
    assert str(Address(host="::1", port=7000)) == "[::1]:7000"
    assert Listen(unix=True).parse("unix:///run/x.sock") == Address(path="/run/x.sock")


def test_every_key_is_read_by_the_daemon() -> None:
    """A key that nothing reads would be a promise that nothing keeps."""
    read_somewhere = {
        ast.unparse(node)
        for source in (PACKAGE / "config.py", PACKAGE / "daemon.py", PACKAGE / "daemon_parts.py")
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Attribute)
    }

    def unread(section: Any, prefix: str) -> list[str]:
        missing = []
        for one in fields(section):
            name = prefix + one.name
            if "kind" not in one.metadata:
                missing += unread(getattr(section, one.name), f"{name}.")
            elif not any(chain.endswith((f"config.{name}", f"self.{name}")) for chain in read_somewhere):
                missing.append(name)
        return missing

    assert unread(Config(), "") == []


def test_every_key_stands_in_the_documentation() -> None:
    text = documented()
    assert len(KEYS) == len(flatten(Config()))
    for key in KEYS.values():
        assert f"`{key.name.rpartition('.')[2]}`" in text
        assert key.help.endswith(".")
