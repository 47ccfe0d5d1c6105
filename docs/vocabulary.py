"""The tables of docs/logging.md, from the declarations in zkside/log.py."""

from __future__ import annotations

import logging

from zkside.log import FIELDS, FOREIGN
from zkside.log_event import EVENTS

_TYPES = {
    "str": "text",
    "int": "number",
    "float": "number",
    "bool": "true or false",
    "Path": "text",
    "BaseException": "text",
    "tuple[str, ...]": "list of texts",
}


def events() -> str:
    """A table for each logger."""
    lines: list[str] = []
    logger = ""
    for event in EVENTS.values():
        if event.logger != logger:
            logger = event.logger
            lines += ["", f"### `{logger}`", "", "| event | level | fields | meaning |", "|---|---|---|---|"]
        names = [*event.fields, *(["trace"] if event.with_trace else [])]
        fields = ", ".join(f"`{name}`" for name in names)
        lines.append(f"| `{event.name}` | {logging.getLevelName(event.level).lower()} | {fields} | {event.meaning} |")
    lines += ["", "### Other loggers", "", "| event | level | fields | meaning |", "|---|---|---|---|"]
    lines.append(f"| `{FOREIGN}` | any | `logger` | A library logged this: kazoo, grpc, asyncio. |")
    return "\n".join(lines)


def fields() -> str:
    """Every field, its type and its meaning."""
    types: dict[str, set[str]] = {}
    for event in EVENTS.values():
        for name, of in event.fields.items():
            types.setdefault(name, set()).add(_TYPES[of])
    lines = ["| field | type | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {', '.join(sorted(types[name]))} | {text} |" for name, text in FIELDS.items()]
    return "\n".join(lines)
