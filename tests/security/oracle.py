"""What a policy means, said once more in the dumbest way: lists of names, and one loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

WORST = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xF900), *range(0xFFF0, 0x10000))]
REFUSED = frozenset(WORST)


class Verdict(Enum):
    ALLOWED = "allowed"
    DENIED = "denied"
    INVALID = "invalid"
    UNKNOWN = "unknown"
    """The caller is nobody."""


@dataclass(frozen=True)
class Who:
    """An identity: its rules as (path, verbs)."""

    name: str
    rules: tuple[tuple[str, str], ...]
    chroot: str = ""
    is_known: bool = True

    def toml(self) -> str:
        from tests.security.guarded import identity

        more = f'chroot = "{self.chroot}"' if self.chroot else ""
        return identity(self.name, self.rules, more=more)


def names_of(path: str) -> list[str] | None:
    """The names in a path; None if ZooKeeper would not take it."""
    if path == "/":
        return []
    head, *names = path.split("/")
    if head or not names or len(path.encode("utf-8", "surrogatepass")) > 65536:
        return None
    for name in names:
        if name in ("", ".", "..") or any(letter in REFUSED or ord(letter) > 0xFFFF for letter in name):
            return None
    return names


def verdict(who: Who, verb: str, path: str, *, child: bool = False) -> Verdict:
    """`child`: the node is made below the path's parent, under a name that nobody knows yet."""
    if not who.is_known:
        return Verdict.UNKNOWN
    if child and path.endswith("/") and path != "/":
        names = names_of(path[:-1])
    else:
        names = names_of(path)
        if child and names:
            names = names[:-1]
    if names is None:
        return Verdict.INVALID
    above = names_of(who.chroot or "/")
    assert above is not None
    return Verdict.ALLOWED if covered(who, verb, above + names) else Verdict.DENIED


def covered(who: Who, verb: str, names: Sequence[str]) -> bool:
    """Whether a rule lets them do that at these names, counted from the daemon's root."""
    for path, verbs in who.rules:
        above = names_of(path)
        assert above is not None
        if verb in verbs.split() and list(names[: len(above)]) == above:
            return True
    return False
