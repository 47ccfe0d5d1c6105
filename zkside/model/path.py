"""Znode paths: absolute, UTF-8, no trailing slash. Plain `str`, checked once where they come in."""

from __future__ import annotations

import re

from zkside.errors import InvalidPath

MAX_PATH_BYTES = 64 * 1024

# What ZooKeeper's PathUtils.validatePath refuses: control characters, surrogates and private use, noncharacters.
# All beyond U+FFFF, such as emoji, are surrogates to Java.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\U0010ffff]")


def validate(path: str, *, sequential: bool = False, field: str = "path") -> str:
    """Return the path unchanged if ZooKeeper accepts it.

    With `sequential` a trailing slash is allowed: ZooKeeper appends the number to it.

    Raises: InvalidPath, which says what is wrong and where. Source: ZooKeeper's PathUtils.validatePath.
    """
    if not path:
        raise InvalidPath("a path must not be empty", field=field)
    if path[0] != "/":
        raise InvalidPath(f"a path must begin with '/': {path[:80]!r}", field=field)
    if len(path) == 1:
        return path
    if path[-1] == "/" and not sequential:
        raise InvalidPath(f"a path must not end with '/': {path[:80]!r}", field=field)
    if "//" in path:
        raise InvalidPath(f"empty name at character {path.index('//') + 1}", field=field)
    if "/." in path:
        for name in path.split("/"):
            if name in (".", ".."):
                raise InvalidPath(f"relative names are not allowed: {path[:80]!r}", field=field)
    bad = _FORBIDDEN.search(path)
    if bad is not None:
        raise InvalidPath(f"character {bad.group()!r} at {bad.start()} is not allowed", field=field)
    if len(path) > MAX_PATH_BYTES // 4 and len(path.encode()) > MAX_PATH_BYTES:
        raise InvalidPath(f"a path must not be longer than {MAX_PATH_BYTES} bytes", field=field)
    return path


def parent(path: str) -> str:
    """The path above; '/' for a child of the root, and for the root itself."""
    return path[: path.rfind("/")] or "/"


def name(path: str) -> str:
    """The last name; '' for the root."""
    return path[path.rfind("/") + 1 :]


def join(path: str, child: str) -> str:
    """The path of a child."""
    return f"/{child}" if path == "/" else f"{path}/{child}"


def is_within(path: str, root: str) -> bool:
    """Whether the path is the root or lies below it."""
    return path == root or root == "/" or (path.startswith(root) and path[len(root)] == "/")


def ancestors(path: str) -> list[str]:
    """The paths above, nearest first, ending with '/'; none for the root."""
    above = []
    while path != "/":
        path = parent(path)
        above.append(path)
    return above


def shown(path: str, most_characters: int) -> str:
    """The path, or its beginning, for a sentence."""
    return path if len(path) <= most_characters else path[:most_characters] + "…"
