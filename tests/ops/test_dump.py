"""The dump of the state: whole, and in turns with everything else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from zkside.ops import dump

LONGEST_S = 0.03
"""That the loop may be kept from others; a slice takes one or two milliseconds."""


def test_five_thousand_holds_and_tasks_are_dumped_without_a_stall(tmp_path: Path) -> None:
    """O4: as many holds, each with a task that waits for it, as a large host has. In a process of its own: this one
    has the garbage of thousands of tests, which is looked at in between."""
    command = (sys.executable, "-m", "tests.ops.dumping", tmp_path)
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    document = json.loads((tmp_path / "state" / "state-dump.json").read_text())
    assert len(document["holds"]) == told["holds"] == 5_000
    assert [row["count"] for row in document["tasks"] if row["stack"][0].endswith("wait")] == [told["holds"]]
    assert told["longest_s"] < LONGEST_S
    print(f"dump: {told['took_s'] * 1000:.0f} ms, longest turn {told['longest_s'] * 1000:.1f} ms")


async def test_a_list_without_an_end_is_cut_and_says_so() -> None:
    """O4, O1: bounded, never silent."""
    more = dump.MOST_ITEMS + 7
    text = "".join([piece async for piece in dump.document({}, {"many": range(more)})])
    document = json.loads(text)
    assert len(document["many"]) == dump.MOST_ITEMS
    assert document["many_left_out"] == 7
