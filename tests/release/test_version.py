"""The version is in one place, and all that cannot read it there follows."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.version import Version

import zkside
from tests.release.conftest import ROOT, copy_sources
from tools import changelog, version
from zkside.daemon_parts import versions


def test_what_runs_says_the_version_of_the_package() -> None:
    assert str(version.read(ROOT)) == zkside.__version__
    assert versions()["version"] == zkside.__version__


def test_the_trunk_is_called_after_the_release_to_come() -> None:
    released = changelog.releases((ROOT / changelog.FILE).read_text())
    trunk = version.read(ROOT)
    assert trunk in released or (trunk.is_devrelease and all(one < trunk for one in released))


def test_the_manifests_name_the_image_of_the_newest_release() -> None:
    """Or, before the first one, of that one."""
    released = changelog.releases((ROOT / changelog.FILE).read_text())
    newest = max(released, default=Version(version.read(ROOT).base_version))
    tags = version.image_tags(ROOT)
    assert len(tags) >= 3
    assert set(tags.values()) == {str(newest)}


def test_no_other_file_names_a_version_of_the_image() -> None:
    texts = [file.read_text() for file in (*(ROOT / "deploy").rglob("*.yaml"), *ROOT.glob("compose*.yaml"))]
    assert sum(text.count("newTag:") for text in texts) == len(version.image_tags(ROOT))
    assert [found for text in texts for found in re.findall(r"image: \S*zkside:\d\S*", text)] == []


def test_a_new_version_reaches_them_all(tmp_path: Path) -> None:
    sources = copy_sources(tmp_path)
    version.write(sources, Version("7.8.9"))
    version.write_image_tags(sources, Version("7.8.9"))
    assert version.read(sources) == Version("7.8.9")
    assert set(version.image_tags(sources).values()) == {"7.8.9"}
    assert list(version.image_tags(sources)) == list(version.image_tags(ROOT))


def test_releases_are_three_numbers() -> None:
    assert version.is_release("1.20.3")
    assert not any(map(version.is_release, ("1.2", "v1.2.3", "1.2.3rc1", "01.2.3", "1.2.3.dev0", "")))
    assert version.following(Version("1.2.3")) == Version("1.2.4.dev0")
