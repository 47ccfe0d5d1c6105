"""The image under test, built once per run, and places to run it in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.container import TOOL, Container, volumes


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the image, built from the tree as it is."""
    built = subprocess.run([str(TOOL)], capture_output=True, text=True, timeout=900, check=False)
    assert built.returncode == 0, built.stderr
    return built.stdout.strip()


@pytest.fixture
def place() -> Iterator[Path]:
    """Volumes for a container, with nothing in them."""
    with volumes() as directory:
        yield directory


@pytest.fixture
def container(image: str, place: Path, hosts: str) -> Iterator[Container]:
    """A container that serves and has its session."""
    with Container(image, place, hosts) as container:
        container.wait_connected()
        yield container
