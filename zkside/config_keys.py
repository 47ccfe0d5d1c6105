"""The keys of the configuration, read off its sections: their names, and from values by name to sections and back."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any

from zkside.config import Config
from zkside.config_kinds import Kind, Password, Several


@dataclass(frozen=True, slots=True)
class Key:
    """What can be configured, under one name."""

    name: str
    kind: Kind[Any]
    default: Any
    help: str
    live: bool
    """Whether a new value has its effect while the daemon runs (daemon_operation.py)."""

    @property
    def variable(self) -> str:
        return "ZKSIDE_" + self.name.upper().replace(".", "_")

    @property
    def flag(self) -> str:
        return "--" + self.name.replace(".", "-").replace("_", "-")

    @property
    def is_secret(self) -> bool:
        kind = self.kind.item if isinstance(self.kind, Several) else self.kind
        return isinstance(kind, Password)


def _name_of(field: str) -> str:
    """A key's last part: a value's unit is in the field's name; in the file it is written with the value."""
    return field.removesuffix("_s").removesuffix("_bytes")


def _keys_of(section: type[Any], prefix: str) -> dict[str, Key]:
    keys: dict[str, Key] = {}
    for one in fields(section):
        if "kind" in one.metadata:
            name = prefix + _name_of(one.name)
            meta = one.metadata
            keys[name] = Key(name, meta["kind"], one.default, meta["help"], meta["live"])
        elif one.default_factory is not MISSING:
            keys |= _keys_of(type(one.default_factory()), f"{prefix}{one.name}.")
    return keys


KEYS: dict[str, Key] = _keys_of(Config, "")
"""Every key by its name, in the order of the tree."""


def build(values: dict[str, Any], section: type[Any] = Config, prefix: str = "") -> Any:
    """The tree of these values; what is not among them has its default."""
    parts: dict[str, Any] = {}
    for one in fields(section):
        name = prefix + _name_of(one.name)
        if "kind" not in one.metadata and one.default_factory is not MISSING:
            parts[one.name] = build(values, type(one.default_factory()), f"{prefix}{one.name}.")
        elif name in values:
            parts[one.name] = values[name]
    return section(**parts)


def flatten(section: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a tree by the names of their keys."""
    values: dict[str, Any] = {}
    for one in fields(section):
        value = getattr(section, one.name)
        if "kind" in one.metadata:
            values[prefix + _name_of(one.name)] = value
        else:
            values |= flatten(value, f"{prefix}{one.name}.")
    return values
