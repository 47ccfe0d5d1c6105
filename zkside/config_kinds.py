"""The kinds of value that a configuration key can have: how each is written, checked and printed.

A kind takes what a TOML file holds (text, numbers, lists) or what an environment variable or a flag holds
(always text), and gives the value that the program works with. `ValueError` says what is wrong with it, in
words that make sense behind "zookeeper.session_timeout: ".
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from zkside.model.identity import Auth, is_name
from zkside.model.operation import Acl

T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E", bound=Enum)

MAX_SOCKET_PATH_BYTES = 107
"""Of a Unix socket; Linux's sun_path less its closing NUL."""


class Kind(Protocol[T_co]):
    """A kind of value."""

    @property
    def accepts(self) -> str:
        """For people: what can be written."""

    def parse(self, raw: object) -> T_co:
        """Raises: ValueError."""

    def show(self, value: Any) -> str:
        """The value as TOML; parsing it again gives the value, but for a secret."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Text that is never printed."""

    _text: str

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a Unix socket (`path`) or TCP (`host` and `port`), and what is written behind it."""

    path: str = ""
    host: str = ""
    port: int = 0
    identity: str = ""
    """Of everybody who calls there; '' if the listener gives none."""
    mode: int | None = None
    """Of the socket's file; None: as for all of them."""
    group: str = ""
    tls: bool | None = None
    """None: as the rest of the configuration suggests."""
    auth: Auth | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this host can reach it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def written(self) -> str:
        """As the configuration has it."""
        options = {
            "identity": self.identity,
            "mode": "" if self.mode is None else f"{self.mode:04o}",
            "group": self.group,
            "tls": "" if self.tls is None else "yes" if self.tls else "no",
            "auth": "" if self.auth is None else self.auth.value,
        }
        behind = "&".join(f"{name}={value}" for name, value in options.items() if value)
        return f"{self}?{behind}" if behind else str(self)


def _text(raw: object) -> str:
    if isinstance(raw, str):
        return raw.strip()
    raise ValueError(f"must be text, not {raw!r}")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _within(value: float, low: float, high: float, show: Callable[[float], str]) -> None:
    if not low <= value <= high:
        raise ValueError(f"must lie between {show(low)} and {show(high)}, not at {show(value)}")


@dataclass(frozen=True, slots=True)
class Text:
    """Any text."""

    accepts: str = "text"
    check: Callable[[str], None] | None = None

    def parse(self, raw: object) -> str:
        text = _text(raw)
        if self.check is not None and text:
            self.check(text)
        return text

    def show(self, value: str) -> str:
        return _quoted(value)


def collector_address(text: str) -> None:
    """Raises: ValueError."""
    if not re.fullmatch(r"https?://[^\s/@]+:\d{1,5}/?", text):
        # Not shown: somebody may have written a password into it.
        raise ValueError("must be like http://127.0.0.1:4317 or https://collector:4317, and nothing else")


@dataclass(frozen=True, slots=True)
class Password:
    """Text that is never printed. Its key has a twin that ends in `_file` and names a file with it."""

    accepts: str = "text, never printed"

    def parse(self, raw: object) -> Secret | None:
        text = _text(raw)
        return Secret(text) if text else None

    def show(self, value: Secret | None) -> str:
        return '"***"' if value else '""'


_DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _show_duration(value_s: float) -> str:
    if value_s == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        amount = value_s / _DURATION_UNITS_S[unit]
        if amount >= 1 and math.isclose(amount, round(amount, 1)):
            return f"{amount:g}{unit}"
    return f"{value_s * 1000:g}ms"


@dataclass(frozen=True, slots=True)
class Duration:
    """A time; the value is in seconds."""

    low_s: float
    high_s: float
    optional: bool = False
    """Whether empty text means none."""

    @property
    def accepts(self) -> str:
        return f"duration, {_show_duration(self.low_s)} to {_show_duration(self.high_s)}"

    def parse(self, raw: object) -> float | None:
        if self.optional and raw == "":
            return None
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", raw.strip()) if isinstance(raw, str) else None
        if match is None:
            raise ValueError(f'must be a duration such as "10s" or "500ms", not {raw!r}')
        value_s = float(match[1]) * _DURATION_UNITS_S[match[2]]
        _within(value_s, self.low_s, self.high_s, _show_duration)
        return value_s

    def show(self, value: float | None) -> str:
        return _quoted("" if value is None else _show_duration(value))


_SIZE_UNITS_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _show_size(value: float) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if value >= _SIZE_UNITS_BYTES[unit] and value % _SIZE_UNITS_BYTES[unit] == 0:
            return f"{int(value) // _SIZE_UNITS_BYTES[unit]}{unit}"
    return f"{int(value)}B"


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes."""

    low_bytes: int
    high_bytes: int

    @property
    def accepts(self) -> str:
        return f"size, {_show_size(self.low_bytes)} to {_show_size(self.high_bytes)}"

    def parse(self, raw: object) -> int:
        match = re.fullmatch(r"(\d+)\s*(B|KiB|MiB|GiB)", raw.strip()) if isinstance(raw, str) else None
        if match is None:
            raise ValueError(f'must be a size such as "64MiB" (B, KiB, MiB or GiB), not {raw!r}')
        value = int(match[1]) * _SIZE_UNITS_BYTES[match[2]]
        _within(value, self.low_bytes, self.high_bytes, _show_size)
        return value

    def show(self, value: int) -> str:
        return _quoted(_show_size(value))


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number."""

    low: int
    high: int

    @property
    def accepts(self) -> str:
        return f"number, {self.low:,} to {self.high:,}"

    def parse(self, raw: object) -> int:
        if isinstance(raw, str) and re.fullmatch(r"[0-9][0-9_]*", raw.strip()):
            raw = int(raw)
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise ValueError(f"must be a whole number, not {raw!r}")
        _within(raw, self.low, self.high, lambda value: f"{int(value):,}")
        return raw

    def show(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no."""

    accepts: str = "true or false"

    def parse(self, raw: object) -> bool:
        if isinstance(raw, bool):
            return raw
        word = raw.strip().lower() if isinstance(raw, str) else ""
        if word in ("true", "yes", "on", "1"):
            return True
        if word in ("false", "no", "off", "0"):
            return False
        raise ValueError(f"must be true or false, not {raw!r}")

    def show(self, value: bool) -> str:
        return "true" if value else "false"


@dataclass(frozen=True, slots=True)
class Choice(Generic[E]):
    """One of an enumeration whose values are the words to write."""

    enumeration: type[E]

    @property
    def accepts(self) -> str:
        return ", ".join(f'"{member.value}"' for member in self.enumeration)

    def parse(self, raw: object) -> E:
        text = _text(raw)
        for member in self.enumeration:
            if member.value.lower() == text.lower():
                return member
        raise ValueError(f"must be one of {self.accepts}, not {raw!r}")

    def show(self, value: E) -> str:
        return _quoted(str(value.value))


@dataclass(frozen=True, slots=True)
class Mode:
    """A file's permissions."""

    accepts: str = 'octal text such as "0660"'

    def parse(self, raw: object) -> int:
        text = _text(raw)
        if not re.fullmatch(r"(0o?)?[0-7]{3}", text):
            raise ValueError(f'must be permissions such as "0660", not {raw!r}')
        return int(text.removeprefix("0o"), 8)

    def show(self, value: int) -> str:
        return f'"{value:04o}"'


@dataclass(frozen=True, slots=True)
class File:
    """A path of this machine; relative ones count from the working directory."""

    accepts: str = "path"

    def parse(self, raw: object) -> Path | None:
        text = _text(raw)
        return Path(text).expanduser() if text else None

    def show(self, value: Path | None) -> str:
        return _quoted(str(value) if value else "")


_UNIX_OPTIONS = ("identity", "mode", "group", "auth")
_TCP_OPTIONS = ("identity", "tls", "auth")


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on, or none."""

    unix: bool
    """Whether clients are served there: then a Unix socket will do too, and options may stand behind a "?"."""

    @property
    def accepts(self) -> str:
        tcp = '"host:port" (an IP address or localhost; port 0: any free one)'
        return f'"unix:/path" or {tcp}, and options behind a "?"' if self.unix else f'{tcp}, or "" for none'

    def parse(self, raw: object) -> Address | None:
        text = _text(raw)
        if not text:
            return None
        where, mark, behind = text.partition("?")
        address = self._unix(where) if where.startswith("unix:") else self._tcp(where)
        return self._with_options(address, behind) if mark else address

    def _tcp(self, text: str) -> Address:
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"must be {self.accepts}, not {text!r}")
        if host != "localhost":
            try:
                ip_address(host)
            except ValueError:
                raise ValueError(f"{host!r} is no IP address: listen on an address, not on a name") from None
        return Address(host=host, port=int(port))

    def _unix(self, text: str) -> Address:
        path = text.removeprefix("unix:").replace("///", "/", 1)
        if not self.unix:
            raise ValueError("must be host:port: a Unix socket makes no sense here")
        if not path.startswith("/"):
            raise ValueError(f"the path of a Unix socket must be absolute, not {path!r}")
        size = len(path.encode())
        if size > MAX_SOCKET_PATH_BYTES:
            raise ValueError(
                f"the path of a Unix socket has at most {MAX_SOCKET_PATH_BYTES} bytes, not {size}: {path!r}"
            )
        return Address(path=path)

    def _with_options(self, address: Address, behind: str) -> Address:
        if not self.unix:
            raise ValueError("options behind a ? make sense where clients are served alone")
        known = _UNIX_OPTIONS if address.path else _TCP_OPTIONS
        found: dict[str, Any] = {}
        for option in behind.split("&"):
            name, _, value = option.partition("=")
            if name not in known:
                raise ValueError(f"{name!r} is no option of {address}: it takes {', '.join(known)}")
            if name in found:
                raise ValueError(f"{name} stands there twice")
            found[name] = _option(name, value)
        return replace(address, **found)

    def show(self, value: Address | None) -> str:
        return _quoted(value.written if value else "")


def _option(name: str, value: str) -> object:
    """Raises: ValueError."""
    if not value:
        raise ValueError(f"{name} has no value")
    try:
        match name:
            case "mode":
                return Mode().parse(value)
            case "tls":
                return Flag().parse(value)
            case "auth":
                return Choice(Auth).parse(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
    if name == "identity" and not is_name(value):
        raise ValueError(f"identity has letters, digits, and . _ @ - but not in front, not {value!r}")
    return value


_PERMISSIONS = {"r": 1, "w": 2, "c": 4, "d": 8, "a": 16}


@dataclass(frozen=True, slots=True)
class AclEntry:
    """An entry of an access control list, as zkCli writes it."""

    accepts: str = '"scheme:id:permissions", with permissions of c, d, r, w, a'

    def parse(self, raw: object) -> Acl:
        match = re.fullmatch(r"(\w+):(.*):([cdrwa]+)", _text(raw))
        if match is None or (match[1] == "world" and match[2] != "anyone"):
            raise ValueError(f'must be like "world:anyone:cdrwa" or "sasl:app:rw", not {raw!r}')
        return Acl(sum(_PERMISSIONS[letter] for letter in set(match[3])), match[1], match[2])

    def show(self, value: Acl) -> str:
        letters = "".join(letter for letter in "cdrwa" if value.permissions & _PERMISSIONS[letter])
        return _quoted(f"{value.scheme}:{value.id}:{letters}")


class Unshown(ValueError):
    """What is wrong with a value, in words that do not show it: they may stand in a log whatever it is."""


QUOTING = """a list whose items have commas is written as in the file: ["…", "…"], or with an item a line"""


@dataclass(frozen=True, slots=True)
class Several:
    """A list. In the environment and in a flag: items separated by commas; or an item a line, if there are line breaks;
    or as in the file, in brackets and quotes."""

    item: Kind[Any]
    may_be_empty: bool = True

    @property
    def accepts(self) -> str:
        return f"list of {self.item.accepts}"

    def parse(self, raw: object) -> tuple[Any, ...]:
        by_commas = False
        if isinstance(raw, str):
            by_commas = "," in raw and not re.match(_BRACKETS, raw) and "\n" not in raw.strip()
            raw = _items(raw)
        if not isinstance(raw, list | tuple):
            raise ValueError(f"must be a list, not {raw!r}")
        try:
            values = tuple(value for value in map(self.item.parse, raw) if value is not None)
        except ValueError as error:
            raise (ValueError(f"{error} ({QUOTING})") if by_commas else error) from None
        if not values and not self.may_be_empty:
            raise ValueError("must have one item at least; leave the key out for its default")
        return values

    def show(self, value: tuple[Any, ...]) -> str:
        return f"[{', '.join(map(self.item.show, value))}]"


# Not the bracket alone: "[::1]:9000" is an address to listen on.
_BRACKETS = r"\s*\[\s*[\"'\]]"


def _items(text: str) -> list[object]:
    """Raises: Unshown."""
    if re.match(_BRACKETS, text):
        try:
            found = tomllib.loads(f"list = {text}")
        except tomllib.TOMLDecodeError:
            raise Unshown('begins with a bracket and a quote, and is no list such as ["one", "two"]') from None
        items = found.pop("list")
        if found or not isinstance(items, list):
            raise Unshown('begins with a bracket and a quote, and is more than a list such as ["one", "two"]')
        return items
    return [part for part in (text.splitlines() if "\n" in text.strip() else text.split(",")) if part.strip()]
