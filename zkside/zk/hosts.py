"""Which servers there are: the connect string, as ZooKeeper's own client takes it, read with more care.

What is no host, port or chroot is refused with a word on what was probably meant. ZooKeeper's parser and kazoo's take
most of it for a strange chroot or a name, which then is looked for in vain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from zkside.errors import InvalidPath, StartError
from zkside.model.path import validate

DEFAULT_PORT = 2181
_EXAMPLE = "'h1:2181,h2:2181/chroot'"
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True, slots=True)
class Address:
    """One server: the name that it was given by, and where that led this time."""

    name: str
    ip: str
    port: int

    def __str__(self) -> str:
        return written(self.name, self.port)


@dataclass(frozen=True, slots=True)
class Hosts:
    """'h1:2181,h2:2181/chroot', parsed."""

    names: tuple[tuple[str, int], ...]
    chroot: str
    """'' for none."""

    @classmethod
    def parse(cls, hosts: str) -> Hosts:
        """Raises: StartError."""
        try:
            return cls(*_parsed(hosts))
        except ValueError as error:
            # Somebody may have written a password before an "@".
            shown = re.sub(r"[^\s,/@]*@", "***@", hosts)
            raise StartError(f"hosts = {shown!r}: {error}; expected {_EXAMPLE}") from None


def written(name: str, port: int) -> str:
    """As a connect string has it."""
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _parsed(hosts: str) -> tuple[tuple[tuple[str, int], ...], str]:
    text = hosts.strip()
    if not text:
        raise ValueError("it is empty")
    if text[0] in "'\"":
        raise ValueError("the quotes are part of the value: leave them out")
    if match := re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ValueError(f"leave out {match[0]!r}: there is no scheme")
    listed, slash, behind = text.partition("/")
    if ";" in listed:
        raise ValueError("servers are separated by commas, not by semicolons")
    parts = [part.strip() for part in listed.split(",")]
    if "" in parts and len(parts) > 1:
        raise ValueError("there is nothing between two commas, or before the first or behind the last one")
    chroot = _chroot(parts, behind) if slash else ""
    names = [_server(part) for part in parts]
    for number, one in enumerate(names):
        if one in names[:number]:
            raise ValueError(f"{written(*one)} stands there twice: was another server meant?")
    return tuple(names), chroot


def _chroot(parts: list[str], behind: str) -> str:
    """Raises: ValueError."""
    chroot = f"/{behind}"
    if "," in chroot:
        # 'zk1:2181/app,zk2:2181/app': to ZooKeeper's parser a chroot called "/app,zk2:2181/app".
        first, *others = chroot.split(",")
        servers = ",".join([*parts, *(other.strip().partition("/")[0] for other in others)])
        raise ValueError(f"the chroot stands once, behind the last server: was {f'{servers}{first}'!r} meant?")
    if re.search(r"\s", chroot):
        raise ValueError(f"there is a space in the chroot {chroot!r}: servers are separated by commas")
    if len(chroot) > 1 and chroot.endswith("/"):
        raise ValueError(f"the chroot ends with a slash: was {chroot.rstrip('/') or '/'!r} meant?")
    try:
        validate(chroot, field="hosts")
    except InvalidPath as error:
        raise ValueError(f"the chroot is no path: {error}") from None
    return "" if chroot == "/" else chroot


def _server(part: str) -> tuple[str, int]:
    """Raises: ValueError."""
    if "@" in part:
        raise ValueError("there is no user in it: zookeeper.auth and zookeeper.sasl say who the daemon is")
    if match := re.search(r"[?#&=]", part):
        raise ValueError(f"{part!r} has a {match[0]!r}: options are keys of the configuration")
    if re.search(r"\s", part):
        raise ValueError(f"there is a space in {part!r}: servers are separated by commas")
    name, port = _apart(part)
    return _name(name), _port(port, part)


def _apart(part: str) -> tuple[str, str | None]:
    if part.startswith("["):
        match = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", part)
        if match is None:
            raise ValueError(f"{part!r} is no IPv6 address in brackets: was '[::1]:{DEFAULT_PORT}' meant?")
        if not _is_ip(match[1]) or ":" not in match[1]:
            raise ValueError(f"{match[1]!r} is no IPv6 address: brackets are for these alone")
        return match[1], match[2]
    if part.count(":") > 1:
        head, _, tail = part.rpartition(":")
        meant = part if _is_ip(part) else head if _is_ip(head) else "::1"
        port = tail if meant == head and tail.isdecimal() else str(DEFAULT_PORT)
        raise ValueError(f"{part!r} has more than one colon: was '[{meant}]:{port}' meant?")
    name, colon, port = part.partition(":")
    return name, port if colon else None


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _name(name: str) -> str:
    if not name:
        raise ValueError("a server has no name")
    if _is_ip(name):
        return name
    if not name.isascii():
        raise ValueError(f"{name!r} is not in ASCII{_in_ascii(name)}")
    if re.fullmatch(r"[0-9.]+", name):
        raise ValueError(f"{name!r} is no IP address" + (": is it a port without its host?" if "." not in name else ""))
    # A dot at the end is the DNS's own way to say that nothing is to be put behind the name.
    labels = name.removesuffix(".").split(".")
    if len(name) > 254 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{name!r} is no host name")
    return name.lower()


def _in_ascii(name: str) -> str:
    try:
        return f": was {name.encode('idna').decode()!r} meant?"
    except UnicodeError:
        return ""


def _port(port: str | None, part: str) -> int:
    if port is None:
        return DEFAULT_PORT
    if not port:
        raise ValueError(f"{part!r} has a colon and no port behind it")
    # Not isdecimal alone: that takes digits of all scripts.
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= 65535):
        raise ValueError(f"{port!r} is no port: it lies between 1 and 65535, usually at {DEFAULT_PORT}")
    return int(port)
