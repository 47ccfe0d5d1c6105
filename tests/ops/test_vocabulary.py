"""Every log line of the daemon is an event of one vocabulary (docs/logging.md)."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

from zkside import log
from zkside.log_event import EVENTS, Event
from zkside.ops.log_lines import JsonLines, TextLines

SOURCE = Path(log.__file__).parent
OWNERS = {SOURCE / "log.py", SOURCE / "log_event.py", SOURCE / "ops" / "log_lines.py", SOURCE / "ops" / "levels.py"}
CLIENTS = (SOURCE / "client", SOURCE / "cli", SOURCE / "pb")
"""They run in other processes than the daemon."""

VALUES = {
    "str": "text",
    "int": 7,
    "float": 0.5,
    "bool": True,
    "Path": Path("/file"),
    "BaseException": ValueError("wrong"),
    "tuple[str, ...]": ("one", "two"),
}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for source in sorted(SOURCE.rglob("*.py")):
        if not any(source.is_relative_to(folder) for folder in CLIENTS):
            yield source, ast.parse(source.read_text())


def foreign_ways(tree: ast.Module) -> Iterator[str]:
    """Where a module logs by other means than the vocabulary."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="logging"), attr=name)) if name != "shutdown":
                yield f"line {node.lineno}: logging.{name}"
            case ast.Call(func=ast.Name(id="print")):
                yield f"line {node.lineno}: print"
            case ast.ImportFrom(module="logging"):
                yield f"line {node.lineno}: from logging import …"


def said(tree: ast.Module) -> Iterator[str]:
    """The functions of zkside.log that a module names."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="log"), attr=name):
                yield name


def test_the_daemon_logs_by_its_vocabulary_and_by_no_other_means() -> None:
    found = {
        str(source): ways for source, tree in sources() if source not in OWNERS and (ways := list(foreign_ways(tree)))
    }
    assert found == {}


def test_another_way_of_logging_would_be_found() -> None:
    wrong = 'import logging\nfrom logging import getLogger\nlogging.getLogger("x").info("y")\nprint("z")\n'
    assert len(list(foreign_ways(ast.parse(wrong)))) == 3


def test_every_event_is_said_somewhere_and_what_is_said_is_an_event() -> None:
    named = {name for source, tree in sources() if source not in OWNERS for name in said(tree)}
    named |= set(said(ast.parse((SOURCE / "ops" / "levels.py").read_text())))
    declared = {name.replace(".", "_") for name in EVENTS}
    assert declared - named == set(), "nobody says it"
    functions = {name for name, value in vars(log).items() if callable(value) and hasattr(value, "__wrapped__")}
    assert functions == declared, "a function is not named after its event"


def test_every_field_has_one_meaning_and_none_is_forgotten() -> None:
    used = {field for event in EVENTS.values() for field in event.fields}
    assert used == set(log.FIELDS)
    types = {of for event in EVENTS.values() for of in event.fields.values()}
    assert types <= set(VALUES), "a type of field that could carry anything, such as a Secret"


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_each_event_is_whole_in_both_formats(event: Event, caplog: pytest.LogCaptureFixture) -> None:
    """A name of two parts, a meaning, and a message whose fields exist."""
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", event.name)
    assert event.meaning.endswith((".", "?"))
    assert {field for _, field, _, _ in Formatter().parse(event.text) if field} <= set(event.fields)
    with caplog.at_level(logging.DEBUG, event.logger):
        getattr(log, event.name.replace(".", "_"))(**{name: VALUES[of] for name, of in event.fields.items()})
    (record,) = caplog.records
    document = json.loads(JsonLines().format(record))
    assert {"time", "level", "event", "logger", "message", *event.fields} <= set(document)
    assert (document["event"], document["logger"]) == (event.name, event.logger)
    assert ("trace" in document) == event.with_trace
    text = TextLines().format(record).splitlines()[0]
    assert f"{event.name}: " in text
    for name in event.fields:
        assert f"{name}=" in text or f"{{{name}" in event.text
