"""Log lines: for people or as JSON, and never the same one all day."""

from __future__ import annotations

import json
import logging
import string

import pytest

from zkside.log_event import Event, Said
from zkside.ops.log_lines import (
    LONGEST_TEXT,
    LONGEST_TRACE,
    MOST_LINES,
    MOST_VALUES,
    REPEAT_AFTER_S,
    RING_BYTES,
    JsonLines,
    Repeated,
    Ring,
    TextLines,
)


def record(message: str, *, at_s: float = 0.0, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "zkside.test", "levelno": level, "levelname": "INFO", "msg": message})
    made.created = at_s
    vars(made).update(extra)
    return made


def test_a_json_line_is_one_object_with_all_that_was_given() -> None:
    line = JsonLines().format(record("two\nlines", at_s=1.5))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "info",
        "event": "library.line",
        "logger": "zkside.test",
        "message": "two\nlines",
    }


def test_a_text_line_is_for_people() -> None:
    assert TextLines().format(record("hello")) == (
        "1970-01-01T00:00:00.000Z INFO library.line: hello logger=zkside.test"
    )


def test_what_was_said_just_now_is_held_back_and_counted() -> None:
    repeated = Repeated()
    assert repeated.filter(record("again", at_s=0.0))
    assert not any(repeated.filter(record("again", at_s=float(second))) for second in range(1, 10))
    assert repeated.filter(record("something else", at_s=10.0))
    later = record("again", at_s=REPEAT_AFTER_S)
    assert repeated.filter(later)
    assert vars(later)["repeated"] == 9


def test_errors_always_pass_and_memory_is_bounded() -> None:
    repeated = Repeated()
    assert all(repeated.filter(record("broken", level=logging.ERROR)) for _ in range(3))
    for number in range(3 * MOST_LINES):
        repeated.filter(record(f"line {number}"))
    assert len(repeated._said) == MOST_LINES


def test_what_came_from_elsewhere_makes_no_line_of_its_own_in_text() -> None:
    """O1: a name with a line feed or an escape sequence in it forges nothing and moves no cursor."""
    line = TextLines().format(record("reading /a\n2025-01-01 INFO daemon.stopped: \x1b[2J", path="\u2028"))
    assert "\n" not in line
    assert "\x1b" not in line
    assert r"/a\x0a2025" in line


FORGED = "\n2025-01-01T00:00:00.000Z ERROR session.lost: \x1b[2J\x9b2J\x85\u2028\u2029\u202e\u2066\ufeff\udcff\x7f"


@pytest.mark.parametrize("lines", [TextLines(), JsonLines()], ids=["text", "json"])
def test_whatever_comes_from_elsewhere_stays_inside_its_line(lines: logging.Formatter) -> None:
    """O1: in a message, in a field, in the words of an error and in its trace. A terminal and whoever splits lines at
    more than line feeds see nothing of it, and it can be written down though it is no character."""
    error = ValueError(FORGED)
    fields = {"reason": FORGED, "addresses": [FORGED]}
    said = Said(Event("session.lost", logging.ERROR, "{reason}", "", {}, with_trace=True), fields)
    text = lines.format(record(FORGED, exc_info=(ValueError, error, None), said=said))
    first, *trace = text.splitlines()
    assert all(line.startswith("    ") for line in trace)
    assert "session.lost" in first
    assert all(ord(letter) >= 0x20 for letter in text.replace("\n", ""))
    assert not set(text) & set(FORGED[1:]) - set(string.printable)
    text.encode()
    if isinstance(lines, JsonLines):
        assert trace == []
        assert json.loads(first)["reason"] == json.loads(first)["addresses"][0] == FORGED


@pytest.mark.parametrize("lines", [TextLines(), JsonLines()], ids=["text", "json"])
def test_a_line_is_bounded_whatever_is_in_it(lines: logging.Formatter) -> None:
    """O1: a path may have a megabyte, and an error has it in its words."""
    long = "x" * 1_000_000
    said = Said(
        Event("session.lost", logging.ERROR, "", "", {}, with_trace=True), {"path": long, "keys": [long] * 1_000}
    )
    text = lines.format(record(long, exc_info=(ValueError, ValueError(long), None), said=said))
    assert "1000000 characters" in text
    assert len(text) < (MOST_VALUES + 3) * LONGEST_TEXT + LONGEST_TRACE


def test_the_last_lines_stay_in_memory_within_their_bound() -> None:
    ring = Ring()
    for number in range(5_000):
        ring.emit(record(f"line {number} " + "x" * 100))
    lines = [json.loads(line) for line in ring.lines()]
    assert sum(map(len, ring.lines())) <= RING_BYTES
    assert lines[-1]["message"].startswith("line 4999 ")
    assert len(lines) + ring.dropped == 5_000
    ring.emit(record("y", exc_info=(ValueError, ValueError("y" * 10 * RING_BYTES), None)))
    assert "yyy" in json.loads(ring.lines()[-1])["cut"]
    assert sum(map(len, ring.lines())) <= RING_BYTES
