"""Bearer tokens from files: who sends which is called what.

A file has a line for each token, its name and then the token; a directory (as Kubernetes mounts a Secret) has a
file for each name, which holds its tokens, one a line. A token stands there as it is sent, or as `sha256:` and the
hexadecimal digest of it, so that the file gives nothing away. Several tokens may have one name: the old one and
the new one while they are being exchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from zkside.errors import StartError, Unauthenticated
from zkside.model.identity import is_name

MIN_TOKEN_CHARACTERS = 16
MAX_TOKEN_CHARACTERS = 8192
"""gRPC takes 8 KiB of metadata by default."""
MAX_FILE_BYTES = 4 << 20

_HASHED = re.compile(r"sha256:([0-9a-f]{64})")
_TOKEN = re.compile(r"[\x21-\x7e]+")


class Tokens:
    """The tokens that are known, by their digests; the tokens themselves are not kept."""

    __slots__ = ("_names",)

    def __init__(self, names: Mapping[bytes, str]) -> None:
        """`names`: by the SHA-256 digest of each token."""
        self._names = dict(names)

    def name_of(self, token: str) -> str:
        """Whose token it is. Raises: Unauthenticated.

        How long it takes says nothing of how much of a token was right: what is looked up is its digest.
        """
        name = self._names.get(sha256(token.encode("utf-8", "surrogateescape")).digest())
        if name is None:
            raise Unauthenticated("the bearer token is not, or no longer, one that this daemon knows")
        return name

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._names.values())

    def __len__(self) -> int:
        return len(self._names)


def read_tokens(paths: Iterable[Path]) -> Tokens:
    """Raises: StartError, which names the file and the line and never a token."""
    names: dict[bytes, str] = {}
    for where, name, token in _entries(paths):
        digest = _digest(token, where)
        if names.setdefault(digest, name) != name:
            raise StartError(f"{where}: the token of {name} is also that of {names[digest]}")
    return Tokens(names)


def _entries(paths: Iterable[Path]) -> Iterator[tuple[str, str, str]]:
    """Where each token stands, its name, and how it is written."""
    for path in paths:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                if not file.name.startswith(".") and file.is_file():
                    for number, line in _lines(file):
                        yield f"{file}, line {number}", _checked(file.name, str(file)), line
            continue
        for number, line in _lines(path):
            name, _, token = line.partition(" ")
            where = f"{path}, line {number}"
            if not token.strip():
                raise StartError(f"{where}: a name and a token are expected, with a space between them")
            yield where, _checked(name, where), token.strip()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise StartError(f"{path} has more than {MAX_FILE_BYTES} bytes")
        text = content.decode()
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise StartError(f"{path} is not text") from None
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.replace("\t", " ").strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def _checked(name: str, where: str) -> str:
    if not is_name(name):
        raise StartError(f"{where}: a name has letters, digits, and . _ @ - but not in front, at most 128 in all")
    return name


def _digest(token: str, where: str) -> bytes:
    if token.startswith("sha256:"):
        match = _HASHED.fullmatch(token)
        if match is None:
            raise StartError(f"{where}: behind sha256: 64 hexadecimal digits in lower case are expected")
        return bytes.fromhex(match[1])
    if not _TOKEN.fullmatch(token):
        raise StartError(f"{where}: a token has printable characters of ASCII and no space")
    if not MIN_TOKEN_CHARACTERS <= len(token) <= MAX_TOKEN_CHARACTERS:
        raise StartError(
            f"{where}: a token has {MIN_TOKEN_CHARACTERS} to {MAX_TOKEN_CHARACTERS} characters, this one {len(token)}"
        )
    return sha256(token.encode()).digest()
