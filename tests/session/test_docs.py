"""The generated parts of the documentation are what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from zkside.core.session import diagram

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def generate() -> ModuleType:
    """docs/generate.py, which is a script and no package's module."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_diagram_in_the_documentation_is_the_table() -> None:
    assert diagram() in (DOCS / "session.md").read_text()


def test_an_outdated_part_is_found_and_written_anew(generate: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- generated: session-diagram -->\nold\n<!-- end of session-diagram -->\nb\n")
    new = generate.outdated(tmp_path)[page]
    assert diagram() in new
    assert "old" not in new
    page.write_text(new)
    assert generate.outdated(tmp_path) == {}


def test_a_part_that_nobody_generates_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(KeyError):
        generate.render("<!-- generated: nobody -->\n<!-- end of nobody -->")
