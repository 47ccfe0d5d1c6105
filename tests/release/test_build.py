"""What `make dist` builds: always the same bytes, with all that users need and nothing that they do not."""

from __future__ import annotations

import email
import filecmp
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.release.conftest import Built, copy_sources, run
from tools import dist, version


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_two_builds_of_the_same_sources_are_equal_to_the_byte(built: Built, tmp_path: Path) -> None:
    """In another directory, at another time, under another umask."""
    (tmp_path / "elsewhere").mkdir()
    elsewhere = copy_sources(tmp_path / "elsewhere")
    for file in elsewhere.rglob("*"):
        file.chmod(0o700 if file.is_dir() else file.stat().st_mode & 0o700)
    wheel, sdist = dist.build(elsewhere, tmp_path / "dist")
    assert filecmp.cmp(wheel, built.wheel, shallow=False)
    assert filecmp.cmp(sdist, built.sdist, shallow=False)


def test_the_sdist_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert not (unpacked / "zkside/pb").exists(), "generated, and so not source"
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=unpacked)
    assert filecmp.cmp(tmp_path / "again" / built.wheel.name, built.wheel, shallow=False)


def test_the_wheel_has_every_file_of_the_package_the_generated_code_and_the_protos(built: Built) -> None:
    """Whatever lies in the package is in it, pages and type markers too: nothing has to be listed by hand."""
    inside = set(names(built.wheel))
    sources = built.sources
    package = {str(file.relative_to(sources)) for file in (sources / "zkside").rglob("*") if file.is_file()}
    protos = {f"zkside/{file.relative_to(sources)}" for file in (sources / "proto/zkside").rglob("*.proto")}
    generated = {f"zkside/pb/{Path(name).stem}_pb2.py" for name in protos}
    assert {"zkside/py.typed", "zkside/client/sync.pyi", "zkside/proto/zkside/v1/node.proto"} <= package | protos
    missing = (package | protos | generated) - {name for name in package if "__pycache__" in name} - inside
    assert missing == set()


def test_the_wheel_has_no_tests_and_nothing_outside_the_package(built: Built) -> None:
    tops = {name.split("/")[0] for name in names(built.wheel)}
    assert tops == {"zkside", f"zkside-{version.read(built.sources)}.dist-info"}
    assert [name for name in names(built.wheel) if "test" in name or name.endswith((".pyc", ".binpb"))] == []


def test_the_sdist_has_no_tests_either(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {"zkside", "proto", "docs", "deploy", "requirements", "LICENSE", "CHANGELOG.md"} <= tops
    assert not tops & {"tests", "bench", "tools"}


def test_the_metadata_say_what_an_index_and_its_users_ask_for(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        about = email.message_from_bytes(archive.read(name))
    project = tomllib.loads((built.sources / "pyproject.toml").read_text())["project"]
    assert about["Name"] == "zkside"
    assert about["Version"] == str(version.read(built.sources))
    assert about["Requires-Python"] == ">=3.11"
    assert about["License-Expression"] == "Apache-2.0"
    assert about.get_all("License-File") == ["LICENSE"]
    assert about.get_all("Classifier") == project["classifiers"]
    assert about["Description-Content-Type"] == "text/markdown"
    assert str(about.get_payload()).startswith("# zkside")


def test_twine_finds_no_fault(built: Built) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(built.wheel), str(built.sdist)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_a_build_that_fails_says_why(tmp_path: Path) -> None:
    broken = copy_sources(tmp_path / "sources")
    (broken / "proto/zkside/v1/node.proto").write_text("syntax = 'proto3'; nonsense\n")
    with pytest.raises(dist.BuildError, match=r"protoc failed"):
        dist.build(broken, tmp_path / "dist")


def test_what_builds_is_pinned_alike_for_the_wheel_and_for_development() -> None:
    """Another hatchling or protoc would write other bytes."""
    whole = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    builders = set(whole["build-system"]["requires"])
    assert all("==" in one for one in builders)
    assert builders <= set(whole["project"]["optional-dependencies"]["dev"])
