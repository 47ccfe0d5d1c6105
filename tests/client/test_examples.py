"""The examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops.process import DaemonProcess

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"
SAYS = {
    "hello.py": "not set: it has version 1 by now",
    "settings.py": "colour: blue (current)",
    "members.py": "I leave; still held: True",
    "paused.py": "in the store: from the second holder; the balance: 100",
    "leader.py": "I resign; still leading: True",
    "nightly.py": "done",
    "fencing.py": "with fencing tokens: 'of the second'",
}


def test_every_example_is_run() -> None:
    assert {program.name for program in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", list(SAYS))
def test_an_example_says_what_it_is_for(daemon: DaemonProcess, name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        env={**os.environ, "ZKSIDE_ADDRESS": daemon.address, "SECONDS_TO_STAY": "0.3"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
