"""What a PromQL expression speaks of: its metrics, and the labels it selects them by."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})
_TOKEN = re.compile(
    r"""
    (?P<grouping>\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\))
  | (?P<metric>[a-zA-Z_:][\w:]*)\s*(?P<labels>\{[^}]*\})
  | (?P<range>\[[^\]]*\])
  | (?P<duration>\b\d+(?:ms|[smhdw])\b)
  | (?P<function>[a-zA-Z_]\w*)(?=\s*(?:\(|by\b|without\b))
  | (?P<word>[a-zA-Z_:][\w:]*)
    """,
    re.VERBOSE,
)
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Selector:
    """One metric as an expression selects it."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]
    """(label, operator, value)"""


def selectors(expression: str) -> list[Selector]:
    """Every metric of an expression. No label's value may have a brace in it."""
    found = []
    for token in _TOKEN.finditer(expression):
        if token["metric"]:
            matchers = tuple((match[1], match[2], match[3]) for match in _MATCHER.finditer(token["labels"]))
            found.append(Selector(token["metric"], matchers))
        elif token["word"] and token["word"].lower() not in _WORDS and not token["word"].isdecimal():
            found.append(Selector(token["word"], ()))
    return found
