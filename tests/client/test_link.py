"""Where a client looks for its daemon."""

from __future__ import annotations

import pytest

from zkside.client.link import checked_address, default_address
from zkside.config import default_address as daemons_default
from zkside.errors import InvalidArgument


def test_client_and_daemon_have_the_same_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZKSIDE_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_address() == str(daemons_default()) == "unix:/run/user/7/zkside/zkside.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_address() == str(daemons_default()) == "unix:/run/zkside/zkside.sock"


def test_the_environment_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZKSIDE_ADDRESS", "127.0.0.1:7000")
    assert default_address() == "127.0.0.1:7000"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:///run/a.sock", "unix:/run/a.sock"),
        ("/run/a.sock", "unix:/run/a.sock"),
        ("localhost:7000", "localhost:7000"),
        ("[::1]:7000", "[::1]:7000"),
    ],
)
def test_an_address_is_written_in_several_ways(written: str, meant: str) -> None:
    assert checked_address(written) == meant


@pytest.mark.parametrize("written", ["unix:", "localhost", ":7000", "host:0", "host:70000", "unix:/" + "x" * 107])
def test_what_is_no_address_is_refused_before_anything_is_sent(written: str) -> None:
    with pytest.raises(InvalidArgument):
        checked_address(written)
