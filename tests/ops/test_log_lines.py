"""Log lines: for people or as JSON, and never the same one all day."""

from __future__ import annotations

import json
import logging

from zkside.ops.log_lines import MOST_LINES, REPEAT_AFTER_S, JsonLines, Repeated, TextLines


def record(message: str, *, at_s: float = 0.0, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "zkside.test", "levelno": level, "levelname": "INFO", "msg": message})
    made.created = at_s
    vars(made).update(extra)
    return made


def test_a_json_line_is_one_object_with_all_that_was_given() -> None:
    line = JsonLines().format(record("two\nlines", at_s=1.5, epoch=3))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "info",
        "logger": "zkside.test",
        "message": "two\nlines",
        "epoch": 3,
    }


def test_a_text_line_is_for_people() -> None:
    assert TextLines().format(record("hello", epoch=3)) == ("1970-01-01T00:00:00.000Z INFO zkside.test: hello epoch=3")


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
