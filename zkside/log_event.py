"""How the daemon logs: every line is an event of one vocabulary, and an event is a function.

    @event("session.lost", ERROR, "session lost: {reason} (epoch {epoch})")
    def session_lost(*, reason: str, epoch: int) -> None:
        \"\"\"What the session owned is gone.\"\"\"

    log.session_lost(reason="expired", epoch=3)

So the type checker knows the fields of each event, no line is without a name, and docs/logging.md is written from
the table that the declarations fill. The logger is the first part of the name below `zkside`: `zkside.session`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec

P = ParamSpec("P")

EVENTS: dict[str, Event] = {}
"""Every declared event by its name, in the order of the declarations."""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the vocabulary."""

    name: str
    level: int
    text: str
    """The message, with the names of fields in braces."""
    meaning: str
    fields: Mapping[str, str]
    """The types of the fields by their names."""
    with_trace: bool
    """Whether the traceback of the field `error` is written too."""

    @property
    def logger(self) -> str:
        return f"zkside.{self.name.partition('.')[0]}"


@dataclass(frozen=True, slots=True)
class Said:
    """What a record of the vocabulary carries as its attribute `said`."""

    event: Event
    fields: Mapping[str, object]


def event(
    name: str, level: int, text: str, *, with_trace: bool = False
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Declare an event. The function's keyword parameters are its fields, its docstring is the meaning."""

    def declare(function: Callable[P, None]) -> Callable[P, None]:
        types = {parameter: str(of) for parameter, of in inspect.get_annotations(function).items()}
        types.pop("return")
        declared = Event(name, level, text, inspect.getdoc(function) or "", types, with_trace)
        assert name not in EVENTS, f"{name} is declared twice"
        EVENTS[name] = declared
        logger = logging.getLogger(declared.logger)

        @wraps(function)
        def say(*_: P.args, **given: P.kwargs) -> None:
            if not logger.isEnabledFor(level):
                return
            fields = {field: _plain(value) for field, value in given.items()}
            error = given.get("error") if with_trace else None
            trace = error if isinstance(error, BaseException) else None
            words = {field: _words(value) for field, value in fields.items()}
            logger.log(
                level,
                "%s",
                text.format_map(words),
                exc_info=trace,
                extra={"said": Said(declared, fields)},
            )

        return say

    return declare


def _words(value: object) -> object:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else value


def _plain(value: object) -> object:
    """A field as JSON has it."""
    if isinstance(value, BaseException):
        return str(value) or type(value).__name__
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return value
