"""Builds the wheel, the sdist and the bill of materials: `python -m tools.dist [--into dist]`, from the root.

The same sources give the same bytes, wherever and whenever they are built: what builds is pinned in pyproject.toml,
and the files in the archives bear no time of their own (or that of SOURCE_DATE_EPOCH).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from datetime import UTC, datetime, time
from pathlib import Path

from tools import changelog, sbom, version


class BuildError(Exception):
    """What the builder said."""


def source_date(root: Path) -> datetime:
    """When these sources were made: SOURCE_DATE_EPOCH, the day of the release, or the time of the last commit."""
    if told := os.environ.get("SOURCE_DATE_EPOCH"):
        return datetime.fromtimestamp(int(told), UTC)
    name = str(version.read(root))
    for section in changelog.sections((root / changelog.FILE).read_text()):
        if section.name == name and section.day is not None:
            return datetime.combine(section.day, time(), UTC)
    committed = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=root, check=True, capture_output=True, text=True
    )
    return datetime.fromtimestamp(int(committed.stdout), UTC)


def build(root: Path, into: Path) -> tuple[Path, Path]:
    """The wheel and the sdist of the sources in `root`. Older ones of zkside in `into` go first.

    Raises: BuildError.
    """
    into = into.resolve()
    into.mkdir(parents=True, exist_ok=True)
    for old in (*into.glob("zkside-*.whl"), *into.glob("zkside-*.tar.gz"), *into.glob("zkside-*.cdx.json")):
        old.unlink()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(into)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(done.stderr.strip())
    name = f"zkside-{version.read(root)}"
    return into / f"{name}-py3-none-any.whl", into / f"{name}.tar.gz"


def describe(root: Path, wheel: Path) -> Path:
    """The bill of materials, written beside the wheel. Raises: sbom.Refused."""
    name = str(version.read(root))
    file = wheel.with_name(f"zkside-{name}.cdx.json")
    file.write_text(sbom.text(sbom.bill(name, root, wheel, source_date(root))))
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the wheel, the sdist and the bill of materials.")
    parser.add_argument("--into", type=Path, default=Path("dist"))
    into = parser.parse_args().into
    root = Path.cwd()
    try:
        wheel, sdist = build(root, into)
        made = [wheel, sdist, describe(root, wheel)]
    except (BuildError, sbom.Refused) as error:
        sys.exit(f"not built: {error}")
    for file in made:
        print(f"{file}  {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
