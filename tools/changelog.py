"""CHANGELOG.md: what is unreleased, and the cut that makes a release of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from packaging.version import Version

FILE = Path("CHANGELOG.md")
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
UNRELEASED = "## [Unreleased]"

_HEADING = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<day>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """What one heading has below it."""

    name: str
    day: date | None
    """None: unreleased."""
    body: str

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(re.findall(r"^### (.+)$", self.body, re.MULTILINE))

    @property
    def has_entries(self) -> bool:
        return re.search(r"^[*-] \S", self.body, re.MULTILINE) is not None


def sections(text: str) -> list[Section]:
    """Newest first, as in the file."""
    headings = list(_HEADING.finditer(text))
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    return [
        Section(found["name"], date.fromisoformat(found["day"]) if found["day"] else None, text[found.end() : end])
        for found, end in zip(headings, ends, strict=False)
    ]


def releases(text: str) -> list[Version]:
    """Newest first."""
    return [Version(section.name) for section in sections(text) if section.day is not None]


def cut(text: str, version: Version, day: date) -> str:
    """The text in which what was unreleased is that release, and nothing is unreleased.

    Raises: ValueError, saying what is missing.
    """
    first, *others = sections(text) or [Section("", None, "")]
    if first.name != "Unreleased":
        raise ValueError(f"{FILE} does not begin with {UNRELEASED}")
    if not first.has_entries:
        raise ValueError(f"{FILE} has no entry below {UNRELEASED}: say what is new for those who run it")
    if str(version) in (section.name for section in others):
        raise ValueError(f"{FILE} has a section for {version} already")
    return text.replace(UNRELEASED, f"{UNRELEASED}\n\n## [{version}] - {day.isoformat()}", 1)
