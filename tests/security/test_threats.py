"""docs/security.md: each line of the threat model names the tests that prove it, and they exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "security.md"


def lines() -> Iterator[tuple[str, list[str]]]:
    """Each threat, with the names of its tests."""
    _, _, model = PAGE.read_text().partition("## Threat model")
    for line in model.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and not cells[0].startswith(("---", "threat", "**")):
            yield cells[0], re.findall(r"`(\w+)`", cells[2])


def names() -> Iterator[str]:
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield node.name


def test_each_line_of_the_threat_model_names_tests_that_exist() -> None:
    """A line without a test, or with one that was renamed, fails here."""
    known = set(names())
    model = list(lines())
    assert len(model) > 30
    assert not [threat for threat, named in model if not named]
    assert not {name for _, named in model for name in named} - known
