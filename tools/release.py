"""Makes a release: `make release VERSION=x.y.z`. Nothing leaves this machine: the commit and the tag are local.

First it looks whether a release can be made, then it runs the checks, then it changes files, builds, commits and
tags, and begins the next version. Up to the commit a failure leaves the tree as it was.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from packaging.version import Version

from tools import changelog, dist, sbom, version

BASELINE = Path("proto/baseline.binpb")
NOTES = Path("docs/upgrading.md")


class Refused(Exception):
    """No release is made; says why, and what to do."""


def prepare(root: Path, name: str) -> Version:
    """The version to be released. Raises: Refused."""
    if not version.is_release(name):
        raise Refused(f"VERSION={name!r} is not of the form x.y.z")
    wanted = Version(name)
    if dirty := _git(root, "status", "--porcelain"):
        raise Refused(f"the tree is not as it was committed; commit it, or put it away:\n{dirty}")
    if _git(root, "tag", "--list", f"v{wanted}"):
        raise Refused(f"there is a tag v{wanted} already")
    history = (root / changelog.FILE).read_text()
    newest = max(changelog.releases(history), default=None)
    if newest is not None and wanted <= newest:
        raise Refused(f"{wanted} does not follow {newest}, the newest release in {changelog.FILE}")
    try:
        changelog.cut(history, wanted, date.today())
    except ValueError as error:
        raise Refused(str(error)) from error
    if not has_notes((root / NOTES).read_text(), wanted):
        raise Refused(f"{NOTES} has nothing below a heading '## To {wanted}': say what the upgrade takes")
    return wanted


def has_notes(text: str, wanted: Version) -> bool:
    """Whether the upgrade notes have a section for it, with words in it."""
    section = re.search(rf"^## To {re.escape(str(wanted))}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return section is not None and bool(section[1].strip())


def check(root: Path, commands: Sequence[str]) -> None:
    """Raises: Refused at the first command that fails."""
    for command in commands:
        print(f"release: {command}", flush=True)
        if subprocess.run(command, shell=True, cwd=root, check=False).returncode != 0:
            raise Refused(f"`{command}` failed")
    if changed := _git(root, "status", "--porcelain"):
        raise Refused(f"the checks changed files:\n{changed}")


def change(root: Path, wanted: Version, day: date) -> None:
    """What a release has that the trunk did not: its number, its day, and the protos that the next ones keep."""
    file = root / changelog.FILE
    file.write_text(changelog.cut(file.read_text(), wanted, day))
    version.write(root, wanted)
    version.write_image_tags(root, wanted)
    buf = str(Path(sysconfig.get_path("scripts")) / "buf")
    command = [buf, "build", "--exclude-source-info", "-o", str(BASELINE)]
    if subprocess.run(command, cwd=root, check=False).returncode != 0:
        raise Refused("buf could not build the protos")


def release(root: Path, name: str, commands: Sequence[str], into: Path) -> list[Path]:
    """The files to publish. Raises: Refused."""
    wanted = prepare(root, name)
    check(root, commands)
    try:
        change(root, wanted, date.today())
        wheel, sdist = dist.build(root, into)
        made = [wheel, sdist, dist.describe(root, wheel)]
    except (Refused, dist.BuildError, sbom.Refused) as error:
        _git(root, "checkout", "--quiet", "--", ".")
        raise Refused(f"{error}\n(the tree is as it was)") from error
    _git(root, "commit", "--quiet", "--all", "--message", f"Release {wanted}")
    _git(root, "tag", "--annotate", "--message", f"zkside {wanted}", f"v{wanted}")
    version.write(root, version.following(wanted))
    _git(root, "commit", "--quiet", "--all", "--message", f"Begin {version.following(wanted)}")
    return made


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refused(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a release, locally.")
    parser.add_argument("version", help="x.y.z")
    parser.add_argument("--check", action="append", default=[], metavar="COMMAND", help="has to pass; in this order")
    parser.add_argument("--into", type=Path, default=Path("dist"))
    told = parser.parse_args()
    try:
        made = release(Path.cwd(), told.version, told.check, told.into)
    except Refused as refused:
        sys.exit(f"no release: {refused}")
    print(f"\nv{told.version} is committed and tagged here. Built:")
    for file in made:
        print(f"  {file}")
    print("Look at both commits; then publish as docs/releasing.md says.")


if __name__ == "__main__":
    main()
