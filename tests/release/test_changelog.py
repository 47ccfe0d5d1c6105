"""CHANGELOG.md keeps its form, which releases are cut from."""

from __future__ import annotations

from datetime import date

import pytest
from packaging.version import Version

from tests.release.conftest import ROOT
from tools import changelog

TEXT = """# Changelog

## [Unreleased]

### Added

* A thing.

## [1.0.0] - 2026-01-02

### Fixed

* Another.
"""


def test_the_changelog_has_its_form() -> None:
    sections = changelog.sections((ROOT / changelog.FILE).read_text())
    assert sections[0].name == "Unreleased"
    for section in sections:
        assert set(section.kinds) <= set(changelog.KINDS), section.name
        assert len(section.kinds) == len(set(section.kinds)), f"{section.name} has a heading twice"
        assert section.kinds or not section.has_entries, section.name
    days = [section.day for section in sections if section.day is not None]
    assert len(days) == len(sections) - 1
    assert days == sorted(days, reverse=True)


def test_what_was_unreleased_becomes_the_release() -> None:
    after = changelog.cut(TEXT, Version("1.1.0"), date(2026, 3, 4))
    assert changelog.releases(after) == [Version("1.1.0"), Version("1.0.0")]
    first, second, third = changelog.sections(after)
    assert not first.has_entries
    assert (second.day, second.kinds) == (date(2026, 3, 4), ("Added",))
    assert third == changelog.sections(TEXT)[1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (TEXT.replace("* A thing.", ""), "no entry below"),
        (TEXT.replace("[Unreleased]", "[Later]"), "does not begin with"),
        (TEXT.replace("1.0.0", "1.1.0"), "has a section for 1.1.0 already"),
        ("", "does not begin with"),
    ],
)
def test_a_changelog_that_says_nothing_of_a_release_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        changelog.cut(text, Version("1.1.0"), date(2026, 3, 4))
