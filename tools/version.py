"""The version: kept in zkside/__init__.py, and followed by what cannot read it there.

Between releases it ends in .dev0 and names the release to come. What a user applies without building anything (the
image tags of the manifests) names the newest release instead, and before the first one that first one.
"""

from __future__ import annotations

import re
from pathlib import Path

from packaging.version import Version

SOURCE = Path("zkside/__init__.py")
MANIFESTS = Path("deploy/k8s")

_ASSIGNMENT = re.compile(r'^(__version__ = ")([^"]+)(")$', re.MULTILINE)
_TAG = re.compile(r'(- name: zkside\n(?: +newName: .*\n)? +newTag: ")([^"]+)(")')


def read(root: Path) -> Version:
    """As the sources under `root` have it."""
    found = _ASSIGNMENT.findall((root / SOURCE).read_text())
    if len(found) != 1:
        raise ValueError(f"{SOURCE} has {len(found)} lines with __version__, not one")
    return Version(found[0][1])


def write(root: Path, version: Version) -> None:
    _replace(root / SOURCE, _ASSIGNMENT, version)


def image_tags(root: Path) -> dict[Path, str]:
    """The tag of zkside's image in each kustomization that names one."""
    found = {}
    for file in sorted((root / MANIFESTS).rglob("kustomization.yaml")):
        for _, tag, _ in _TAG.findall(file.read_text()):
            found[file.relative_to(root)] = tag
    return found


def write_image_tags(root: Path, version: Version) -> None:
    for file in image_tags(root):
        _replace(root / file, _TAG, version)


def following(version: Version) -> Version:
    """What the trunk is called after a release."""
    return Version(f"{version.major}.{version.minor}.{version.micro + 1}.dev0")


def is_release(text: str) -> bool:
    """x.y.z and nothing more."""
    return re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", text) is not None


def _replace(file: Path, pattern: re.Pattern[str], version: Version) -> None:
    file.write_text(pattern.sub(rf"\g<1>{version}\g<3>", file.read_text()))
