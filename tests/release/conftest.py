"""What is built from the sources as they are here, and empty environments to install it into."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from tools import dist

ROOT = Path(__file__).resolve().parents[2]


def clean_environment(**variables: str) -> dict[str, str]:
    """Of somebody who has never seen the checkout."""
    strange = ("ZKSIDE_", "PYTHON", "VIRTUAL_ENV", "SOURCE_DATE_EPOCH")
    return {name: value for name, value in os.environ.items() if not name.startswith(strange)} | variables


def run(*command: str | Path, cwd: Path, within_s: float = 110.0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Has to succeed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def copy_sources(to: Path) -> Path:
    """What git knows of, or would take, as it is in the checkout now."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return to


@dataclass(frozen=True, slots=True)
class Built:
    """One build."""

    sources: Path
    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    sources = copy_sources(tmp_path_factory.mktemp("sources"))
    return Built(sources, *dist.build(sources, tmp_path_factory.mktemp("dist")))


class Environment:
    """A virtual environment outside the checkout, at first with nothing but pip."""

    def __init__(self, directory: Path, python: str = sys.executable) -> None:
        self.directory = directory
        run(python, "-m", "venv", directory / "venv", cwd=directory)
        self.bin = directory / "venv/bin"

    def pip(self, *arguments: str | Path) -> str:
        return run(self.bin / "python", "-m", "pip", "-q", *arguments, cwd=self.directory).stdout

    def zkside(self, *arguments: str) -> str:
        return run(self.bin / "zkside", *arguments, cwd=self.directory).stdout

    @contextmanager
    def running(self, *arguments: str, until: str, **variables: str) -> Iterator[Self]:
        """`zkside` with these arguments, once it has printed those words; told to end afterwards, which it must."""
        with subprocess.Popen(
            [self.bin / "zkside", *arguments],
            cwd=self.directory,
            env=clean_environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                lines: list[str] = []
                while not lines or until not in lines[-1]:
                    line = process.stdout.readline()
                    assert line, f"ended without {until!r}: {''.join(lines)}"
                    lines.append(line)
                yield self
                process.terminate()
                rest, _ = process.communicate(timeout=30)
                assert process.returncode == 0, "".join(lines) + rest
            finally:
                process.kill()
