"""The log: lines on standard error, for people or as JSON objects."""

from __future__ import annotations

import json
import logging
import math
import sys
from datetime import UTC, datetime

_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

REPEAT_AFTER_S = 60.0
MOST_LINES = 1000


class TextLines(logging.Formatter):
    """`2025-01-31T12:00:00.000Z INFO zkside.daemon: what happened`"""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_instant(record)} {record.levelname} {record.name}: {record.getMessage()}"
        for name, value in _extra(record).items():
            line += f" {name}={value}"
        return line + _trace(self, record)


class JsonLines(logging.Formatter):
    """An object a line: time, level, logger, message, what else was given, and a trace if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _instant(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _extra(record)
        trace = _trace(self, record)
        if trace:
            line["trace"] = trace.lstrip("\n")
        return json.dumps(line, default=str, ensure_ascii=False)


class Repeated(logging.Filter):
    """Holds back a line that says what was said less than a minute ago; its next one tells how often. An outage
    of a day must not fill the disk. Errors always pass."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
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


def start_logging(level: str, *, as_json: bool) -> None:
    """Send all log lines of the process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Repeated())
    handler.setFormatter(JsonLines() if as_json else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _instant(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _KNOWN}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
