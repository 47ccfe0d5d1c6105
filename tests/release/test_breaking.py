"""`make check` refuses protos that break who was built with the last release."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.release.conftest import ROOT, clean_environment, run

COMMON = "proto/zkside/v1/common.proto"
SCRIPTS = sysconfig.get_path("scripts")


class Repository:
    """A repository of the protos alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("proto", "tools"):
            shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "buf.yaml", directory)
        self.git("init", "--quiet")
        self.freeze()
        self.commit("begin")

    def git(self, *arguments: str) -> None:
        run("git", "-c", "user.name=Somebody", "-c", "user.email=nobody@example.org", *arguments, cwd=self.directory)

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def freeze(self) -> None:
        """As `make baseline`."""
        command = (f"{SCRIPTS}/buf", "build", "--exclude-source-info", "-o", "proto/baseline.binpb")
        run(*command, cwd=self.directory)

    def edit(self, old: str, new: str, file: str = COMMON) -> None:
        text = (self.directory / file).read_text()
        assert text.count(old) == 1
        (self.directory / file).write_text(text.replace(old, new))

    def check(self) -> tuple[bool, str]:
        done = subprocess.run(
            ["tools/breaking"],
            cwd=self.directory,
            env=clean_environment(PATH=f"{SCRIPTS}:{os.environ['PATH']}"),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


BREAKS = {
    "a field that changes its number": ("  int64 czxid = 1;", "  int64 czxid = 99;"),
    "a field that changes its name": ("  int64 czxid = 1;", "  int64 made_by = 1;"),
    "a field that changes its type": ("  int64 czxid = 1;", "  string czxid = 1;"),
    "a field that is gone": ("  int64 czxid = 1;\n", ""),
}


@pytest.mark.parametrize("tagged", [True, False], ids=["since a tag", "without a tag"])
@pytest.mark.parametrize("what", BREAKS)
def test_a_break_is_refused(repository: Repository, what: str, tagged: bool) -> None:
    if tagged:
        repository.git("tag", "v1.0.0")
    repository.edit(*BREAKS[what])
    passed, told = repository.check()
    assert not passed
    assert "czxid" in told or "Stat" in told
    assert ("compared with v1.0.0" if tagged else "compared with proto/baseline.binpb") in told


def test_an_addition_passes(repository: Repository) -> None:
    repository.git("tag", "v1.0.0")
    repository.edit("  int64 czxid = 1;", "  int64 czxid = 1;\n  int64 added = 99;")
    assert repository.check() == (True, "protos: compared with v1.0.0\n")


def test_a_break_is_not_hidden_by_a_new_baseline(repository: Repository) -> None:
    """The tag is what clients were built with, whatever the file says."""
    repository.git("tag", "v1.0.0")
    repository.edit(*BREAKS["a field that is gone"])
    repository.freeze()
    repository.commit("break it")
    passed, told = repository.check()
    assert not passed
    assert "Stat" in told


def test_the_baseline_changes_at_releases_only(repository: Repository) -> None:
    repository.git("tag", "v1.0.0")
    repository.edit("  int64 czxid = 1;", "  int64 czxid = 1;\n  int64 added = 99;")
    repository.freeze()
    repository.commit("add")
    passed, told = repository.check()
    assert not passed
    assert "proto/baseline.binpb is not what v1.0.0 had" in told
    repository.git("tag", "v1.1.0")
    assert repository.check() == (True, "protos: compared with v1.1.0\n")


def test_tags_of_other_things_are_not_releases(repository: Repository) -> None:
    repository.git("tag", "nightly")
    repository.git("tag", "vendor")
    assert repository.check() == (True, "protos: compared with proto/baseline.binpb\n")
