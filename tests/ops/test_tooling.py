"""The checks behind `make check` can fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sysconfig.get_path("scripts"))


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def buf_breaking(tree: Path) -> subprocess.CompletedProcess[str]:
    return run(str(BIN / "buf"), "breaking", "--against", str(ROOT / "proto/baseline.binpb"), cwd=tree)


def test_a_field_that_vanishes_from_the_protos_breaks_the_check(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    assert buf_breaking(tmp_path).returncode == 0
    common = tmp_path / "proto/zkside/v1/common.proto"
    text = common.read_text()
    assert "  int64 czxid = 1;" in text
    common.write_text(text.replace("  int64 czxid = 1;", "  int64 czxid = 12;"))
    broken = buf_breaking(tmp_path)
    assert broken.returncode != 0
    assert "czxid" in broken.stdout


def test_an_import_that_points_upward_breaks_the_floors(tmp_path: Path) -> None:
    """core must not know the event loop, and no floor the one above."""
    shutil.copytree(ROOT / "zkside", tmp_path / "zkside", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "zkside/core/wrong.py").write_text("import asyncio\n\nimport zkside.hub.table\n")
    lint = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(no_cache=True))"
    )
    done = run(sys.executable, "-c", lint, cwd=tmp_path)
    assert done.returncode == 1
    assert "zkside.core is not allowed to import asyncio" in done.stdout
    assert "zkside.core is not allowed to import zkside.hub" in done.stdout


def test_make_help_tells_every_target() -> None:
    told = run("make", "help").stdout
    for target in ("help", "run", "test", "check", "fmt", "proto", "bench", "faults"):
        assert f"  make {target} " in told


def test_every_proto_can_be_compiled_for_java() -> None:
    """The class of a file must not be called as a message of another: Java would have one file of two classes."""
    sources = {file.stem: file.read_text() for file in (ROOT / "proto").rglob("*.proto")}
    messages = {
        name for text in sources.values() for name in re.findall(r"^(?:message|enum|service) (\w+)", text, re.M)
    }
    for stem, text in sources.items():
        (outer,) = re.findall(r'^option java_outer_classname = "(\w+)";', text, re.M)
        assert outer == f"{stem.capitalize()}Proto"
        assert outer not in messages
