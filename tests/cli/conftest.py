"""What the command line's tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from tests.client.conftest import daemon  # noqa: F401 (the real daemon of the run)
from tests.ops.process import DaemonProcess
from zkside.cli.manual import PAGES, Page
from zkside.cli.root import zkside as command


class Run(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Of a command that prints one object."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def environment(address: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZKSIDE_")}
    return {**kept, "ZKSIDE_ADDRESS": address, "COLUMNS": "120"}


def page_of(arguments: Sequence[str]) -> Page | None:
    """What the help says of the command in these arguments."""
    for start in range(len(arguments)):
        for name in (" ".join(arguments[start : start + 2]), arguments[start]):
            if name in PAGES:
                return PAGES[name]
    return None


class Zkside:
    """The command `zkside`. Called, it runs inside this process, which saves a second each; `start` and `process`
    run it as users do."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __call__(self, *arguments: str, data: bytes = b"") -> Run:
        known = {name: None for name in os.environ if name.startswith("ZKSIDE_")}
        done = CliRunner().invoke(command, arguments, input=data, env={**known, "ZKSIDE_ADDRESS": self.address})
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        page = page_of(arguments)
        assert page is None or page.passes_on or done.exit_code in page.statuses, f"{arguments}: {done.exit_code}"
        return Run(done.exit_code, done.stdout_bytes.decode(errors="surrogateescape"), done.stderr)

    def process(self, *arguments: str, data: bytes = b"", within_s: float = 30.0) -> Run:
        done = subprocess.run(
            [sys.executable, "-m", "zkside", *arguments],
            input=data,
            capture_output=True,
            env=environment(self.address),
            timeout=within_s,
            check=False,
        )
        return Run(done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode())

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """One that runs on; its standard output is a pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", "zkside", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment(self.address),
        )


@pytest.fixture
def zkside(daemon: DaemonProcess) -> Zkside:  # noqa: F811
    """The command, talking to the shared daemon."""
    return Zkside(daemon.address)
