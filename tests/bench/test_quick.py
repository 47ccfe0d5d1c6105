"""The bench itself works: a smoke run of its cheap parts on real ZooKeeper and a real daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import main


@pytest.mark.slow
def test_a_quick_run_measures_and_leaves_table_json_and_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quick", "--out", str(tmp_path), "burst", "holds", "handover", "restart"]) == 0
    assert "events delivered" in capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} == {
        "benchmarks.json",
        "benchmarks.md",
        "benchmarks.svg",
    }
