"""The log: lines on standard error, for people or as JSON objects; the last ones are kept in memory too.

Every line has an event of the vocabulary (zkside/log.py). What a library logs is a `library.line`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections import deque
from datetime import UTC, datetime

from zkside.log import FOREIGN
from zkside.log_event import Said
from zkside.ops.foreign_output import ForeignOutput, is_wanted

REPEAT_AFTER_S = 60.0
MOST_LINES = 1000
RING_BYTES = 256 * 1024
LONGEST_LINE = 8 * 1024
"""In characters; of a longer one the ring keeps the beginning."""

LONGEST_TEXT = 2_000
"""In characters, of a message or of a field's value, which may be a path of a megabyte."""
LONGEST_TRACE = 16_000
MOST_VALUES = 50

# What would end a line, move a terminal's cursor, or turn the direction of what stands behind it; and what is no
# character at all, but may stand in the name of a node.
_FORGING = (*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
_JSON_CONTROL = {code: f"\\u{code:04x}" for code in (*_FORGING, *range(0xD800, 0xE000))}
_CONTROL = _JSON_CONTROL | {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_TRACE_CONTROL = {code: text for code, text in _CONTROL.items() if code not in (0x0A, 0x09)}


class TextLines(logging.Formatter):
    """`2025-01-31T12:00:00.000Z INFO session.lost: what happened field=value`, and a trace below if there is one, each
    line of it indented: the words of an error may have line feeds in them.

    A field that the message has in it is not repeated.
    """

    def format(self, record: logging.LogRecord) -> str:
        said = _said(record)
        line = f"{_instant(record)} {record.levelname} {_name(said)}: {_short(record.getMessage())}"
        for name, value in _fields(record, said).items():
            if said is None or f"{{{name}" not in said.event.text:
                line += f" {name}={_value(value)}"
        trace = _trace(self, record).translate(_TRACE_CONTROL)
        return line.translate(_CONTROL) + trace.replace("\n", "\n    ")


class JsonLines(logging.Formatter):
    """An object a line: time, level, event, logger, message, the event's fields, and a trace if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        said = _said(record)
        line: dict[str, object] = {
            "time": _instant(record),
            "level": record.levelname.lower(),
            "event": _name(said),
            "logger": record.name,
            "message": _short(record.getMessage()),
        }
        line |= _fields(record, said)
        trace = _trace(self, record)
        if trace:
            line["trace"] = trace.lstrip("\n")
        return json.dumps(line, default=str, ensure_ascii=False).translate(_JSON_CONTROL)


class Repeated(logging.Filter):
    """Holds back a line that says what was said less than a minute ago; its next one tells how often. An outage
    of a day must not fill the disk. Errors always pass, and so does what was asked for with level debug."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR or record.levelno <= logging.DEBUG:
            return True
        line = (record.name, record.getMessage())
        said_s, held_back = self._said.get(line, (-math.inf, 0))
        if record.created - said_s < REPEAT_AFTER_S:
            self._said[line] = (said_s, held_back + 1)
            return False
        if len(self._said) >= MOST_LINES:
            del self._said[next(iter(self._said))]
        self._said.pop(line, None)
        self._said[line] = (record.created, 0)
        if held_back:
            vars(record)["repeated"] = held_back
        return True


class Ring(logging.Handler):
    """The last lines as JSON, for `zkside debug bundle`: at most RING_BYTES of them, oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self._lines: deque[str] = deque()
        self._size = 0
        self.dropped = 0
        """Lines that had to go for newer ones."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if len(line) > LONGEST_LINE:
            line = json.dumps({"time": _instant(record), "event": _name(_said(record)), "cut": line[:LONGEST_LINE]})
        self._lines.append(line)
        self._size += len(line)
        while self._size > RING_BYTES:
            self._size -= len(self._lines.popleft())
            self.dropped += 1

    def lines(self) -> list[str]:
        """Callable from any thread."""
        self.acquire()
        try:
            return list(self._lines)
        finally:
            self.release()


class Log:
    """Where all log lines of the process go, from `start` on."""

    def __init__(self) -> None:
        self.ring = Ring()
        self._handler = logging.StreamHandler(sys.stderr)
        self._handler.addFilter(Repeated())

    def start(self, *, as_json: bool) -> None:
        root = logging.getLogger()
        if is_wanted(os.environ):
            self._handler.setStream(ForeignOutput().start())
        self.set_format(as_json=as_json)
        root.handlers[:] = [self._handler, self.ring]

    def set_format(self, *, as_json: bool) -> None:
        self._handler.setFormatter(JsonLines() if as_json else TextLines())


def _said(record: logging.LogRecord) -> Said | None:
    said = vars(record).get("said")
    return said if isinstance(said, Said) else None


def _name(said: Said | None) -> str:
    return said.event.name if said is not None else FOREIGN


def _fields(record: logging.LogRecord, said: Said | None) -> dict[str, object]:
    fields: dict[str, object] = dict(said.fields) if said is not None else {"logger": record.name}
    if "repeated" in vars(record):
        fields["repeated"] = vars(record)["repeated"]
    return {name: _short(value) for name, value in fields.items()}


def _short(value: object) -> object:
    """A value within its bounds."""
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}… ({len(value)} characters)"
    if isinstance(value, list):
        shown = [_short(each) for each in value[:MOST_VALUES]]
        return shown if len(value) <= MOST_VALUES else [*shown, f"… ({len(value)} in all)"]
    return value


def _value(value: object) -> str:
    if isinstance(value, str) and value and not any(letter.isspace() or letter in '"=' for letter in value):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)


def _instant(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if not record.exc_info or not record.exc_info[0]:
        return ""
    trace = formatter.formatException(record.exc_info)
    return "\n" + (trace if len(trace) <= LONGEST_TRACE else f"{trace[:LONGEST_TRACE]}… ({len(trace)} characters)")
