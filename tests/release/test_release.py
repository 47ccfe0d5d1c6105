"""`make release`, in a scratch clone: it refuses what is not ready, and changes nothing then."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from packaging.version import Version

from tests.release.conftest import clean_environment, copy_sources, run
from tools import changelog, release, version

pytestmark = pytest.mark.release

NOTES = "\n\n## To 0.9.0\n\nNothing to do.\n"


class Clone:
    """A repository with one commit, of the sources as they are here, ready to be released as 0.9.0."""

    def __init__(self, directory: Path, origin: Path) -> None:
        run("git", "clone", "--quiet", origin, directory, cwd=origin)
        self.directory = directory
        self.git("config", "user.name", "Somebody")
        self.git("config", "user.email", "nobody@example.org")

    def git(self, *arguments: str) -> str:
        return run("git", *arguments, cwd=self.directory).stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change")

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.directory / file).read_text()
        assert old in text
        (self.directory / file).write_text(text.replace(old, new, 1))

    def release(self, name: str = "0.9.0", check: str = "true") -> subprocess.CompletedProcess[str]:
        """With the clone's own tools, as `make release` does."""
        return subprocess.run(
            [sys.executable, "-m", "tools.release", name, "--check", check],
            cwd=self.directory,
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def release_here(self, name: str = "0.9.0", check: str = "true") -> None:
        """The same in this process, which saves it the start of another."""
        release.release(self.directory, name, [check], self.directory / "dist")

    @property
    def state(self) -> tuple[str, str, str]:
        return self.git("rev-parse", "HEAD"), self.git("tag", "--list"), self.git("status", "--porcelain")

    def refuses(self, name: str = "0.9.0", check: str = "true") -> str:
        """What it says; nothing has changed."""
        before = self.state
        with pytest.raises(release.Refused) as refused:
            self.release_here(name, check)
        assert self.state == before
        return str(refused.value)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = copy_sources(tmp_path_factory.mktemp("origin"))
    notes = directory / "docs/upgrading.md"
    notes.write_text(notes.read_text() + NOTES)
    run("git", "init", "--quiet", "--initial-branch=main", cwd=directory)
    run("git", "add", "--all", cwd=directory)
    author = ("-c", "user.name=Somebody", "-c", "user.email=nobody@example.org")
    run("git", *author, "commit", "--quiet", "--message", "Change", cwd=directory)
    return directory


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone", origin)


def test_a_release_is_a_commit_a_tag_and_three_files(clone: Clone) -> None:
    done = clone.release(check="grep -q dev0 zkside/__init__.py")
    assert done.returncode == 0, done.stderr
    assert clone.git("log", "--format=%s").splitlines() == ["Begin 0.9.1.dev0", "Release 0.9.0", "Change"]
    assert clone.git("cat-file", "-t", "v0.9.0") == "tag"
    assert clone.git("rev-parse", "v0.9.0^{commit}") == clone.git("rev-parse", "HEAD~1")
    assert clone.git("status", "--porcelain") == ""
    made = sorted(file.name for file in (clone.directory / "dist").iterdir())
    assert made == ["zkside-0.9.0-py3-none-any.whl", "zkside-0.9.0.cdx.json", "zkside-0.9.0.tar.gz"]
    bill = json.loads((clone.directory / "dist/zkside-0.9.0.cdx.json").read_text())
    assert bill["metadata"]["component"]["version"] == "0.9.0"
    # The trunk goes on, and names the release where users take an image.
    assert version.read(clone.directory) == Version("0.9.1.dev0")
    assert set(version.image_tags(clone.directory).values()) == {"0.9.0"}
    first, second = changelog.sections((clone.directory / changelog.FILE).read_text())[:2]
    assert (first.name, first.has_entries) == ("Unreleased", False)
    assert (second.name, second.has_entries, second.day is not None) == ("0.9.0", True, True)


def test_a_release_freezes_the_protos_and_what_was_built_can_be_built_again(clone: Clone, tmp_path: Path) -> None:
    clone.edit("proto/zkside/v1/common.proto", "  int64 czxid = 1;", "  int64 czxid = 1;\n  int64 added = 99;")
    clone.commit()
    clone.release_here()
    built = {file.name: file.read_bytes() for file in (clone.directory / "dist").iterdir()}
    again = tmp_path / "again"
    clone.git("worktree", "add", "--quiet", str(again), "v0.9.0")
    buf = f"{sysconfig.get_path('scripts')}/buf"
    run(buf, "build", "--exclude-source-info", "-o", tmp_path / "now.binpb", cwd=again)
    assert (tmp_path / "now.binpb").read_bytes() == (again / "proto/baseline.binpb").read_bytes()
    run(sys.executable, "-m", "tools.dist", cwd=again)
    assert {file.name: file.read_bytes() for file in (again / "dist").iterdir()} == built


def test_what_is_not_committed_is_not_released(clone: Clone) -> None:
    (clone.directory / "README.md").write_text("draft")
    assert "README.md" in clone.refuses()
    clone.git("checkout", "--", "README.md")
    (clone.directory / "zkside/strange.py").write_text("")
    assert "zkside/strange.py" in clone.refuses()


def test_checks_that_fail_end_it(clone: Clone) -> None:
    assert "`false` failed" in clone.refuses(check="false")


def test_checks_that_change_files_end_it(clone: Clone) -> None:
    before = clone.state
    with pytest.raises(release.Refused, match=r"the checks changed files:\nM README\.md"):
        clone.release_here(check="echo >> README.md")
    assert clone.state[:2] == before[:2]


def test_a_release_follows_the_one_before_and_is_made_once(clone: Clone) -> None:
    assert "VERSION='0.9' is not of the form x.y.z" in clone.refuses("0.9")
    clone.release_here()
    assert "there is a tag v0.9.0 already" in clone.refuses("0.9.0")
    clone.git("tag", "--delete", "v0.9.0")
    assert "0.9.0 does not follow 0.9.0" in clone.refuses("0.9.0")
    assert "0.8.0 does not follow 0.9.0" in clone.refuses("0.8.0")
    assert "has no entry below ## [Unreleased]" in clone.refuses("0.9.1")


def test_a_release_without_upgrade_notes_is_refused(clone: Clone) -> None:
    assert "docs/upgrading.md has nothing below a heading '## To 0.9.1'" in clone.refuses("0.9.1")
    clone.edit("docs/upgrading.md", NOTES, "\n\n## To 0.9.0\n\n")
    clone.commit()
    assert "docs/upgrading.md has nothing below a heading '## To 0.9.0'" in clone.refuses()


def test_a_build_that_fails_leaves_the_tree_as_it_was(clone: Clone) -> None:
    clone.edit("hatch_build.py", 'raise SystemExit("protoc failed")', "pass")
    clone.edit("hatch_build.py", "protoc.main(arguments) != 0", 'sys.exit("no compiler today")')
    clone.commit()
    told = clone.refuses()
    assert "no compiler today" in told
    assert "the tree is as it was" in told


def test_a_licence_that_is_not_allowed_ends_it_too(clone: Clone) -> None:
    clone.edit("tools/sbom.py", '"MIT", "PSF-2.0"', '"MIT"')
    clone.commit()
    before = clone.state
    done = clone.release()
    assert done.returncode == 1
    assert done.stderr.startswith("no release: typing-extensions is under PSF-2.0")
    assert "(the tree is as it was)" in done.stderr
    assert clone.state == before
