"""What the tests of security share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rpc.conftest import short_path
from tests.security.authority import Authority, Issued
from tests.security.reception import APP_TOKEN, CI_TOKEN

__all__ = ["short_path"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Everybody trusts it."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Nobody trusts it."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="session")
def server(authority: Authority) -> Issued:
    """A daemon's certificate, for this host."""
    return authority.server()


@pytest.fixture(scope="session")
def app(authority: Authority) -> Issued:
    """A client's certificate."""
    return authority.issue(
        "app", "URI:spiffe://example.org/app", "DNS:app.example.org", "DNS:app2.example.org", cn="the-app"
    )


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A file with the tokens of ci and of app."""
    path = tmp_path / "tokens"
    path.write_text(f"# of the tests\nci   {CI_TOKEN}\napp\t{APP_TOKEN}\n")
    return path
