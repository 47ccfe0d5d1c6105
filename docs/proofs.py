"""Which tests prove which guarantee, read from the tests' docstrings."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "guarantees.md"

_NUMBER = re.compile(r"\b([SWRNHVTO])(\d{1,2})(?:[-–]\1?(\d{1,2}))?\b")  # noqa: RUF001
_GUARANTEE = re.compile(r"^- \*\*([A-Z]\d+)\*\* ")


def cited(docstring: str) -> set[str]:
    """The numbers in a docstring; "W1-W3" is three of them."""
    numbers = set()
    for letter, first, last in _NUMBER.findall(docstring):
        numbers |= {f"{letter}{number}" for number in range(int(first), int(last or first) + 1)}
    return numbers


def proofs() -> dict[str, list[str]]:
    """The tests by the number that they cite, as "tests/hub/test_feed.py::test_name". A number in a module's or a
    class's docstring is not enough: it is one test that proves a promise."""
    found: dict[str, list[str]] = defaultdict(list)
    for source in sorted((ROOT / "tests").rglob("test_*.py")):
        where = source.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(source.read_text())):
            is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            if is_test:
                for number in cited(ast.get_docstring(node) or ""):  # type: ignore[arg-type]
                    found[number].append(f"{where}::{node.name}")  # type: ignore[attr-defined]
    return found


def promised() -> list[str]:
    """The numbers on the page, in its order."""
    return [match[1] for line in PAGE.read_text().splitlines() if (match := _GUARANTEE.match(line))]


def table() -> str:
    """Markdown: each number on the page with the tests that cite it."""
    found = proofs()
    lines = ["| | proved by |", "|---|---|"]
    for number in promised():
        by_file: dict[str, list[str]] = defaultdict(list)
        for test in found[number]:
            file, _, name = test.partition("::")
            by_file[file].append(name.removeprefix("test_").replace("_", " "))
        cells = [f"`{file}`: {'; '.join(names)}" for file, names in sorted(by_file.items())]
        lines.append(f"| {number} | {'<br>'.join(cells) or ''} |")
    return "\n".join(lines)
