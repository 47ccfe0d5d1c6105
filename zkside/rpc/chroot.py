"""An identity's chroot: its requests' paths get it in front, and what it hears has it taken off again.

Which fields hold paths is found once for each message type, from its descriptor: text fields named as in PATH_FIELDS.
Texts for people may quote paths, so those that leave are looked through, errors too. What cannot be told without a
name from outside of the chroot is not told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from zkside.errors import ZksideError
from zkside.pb import node_pb2

M = TypeVar("M", bound=Message)

PATH_FIELDS = frozenset({"path", "paths", "unreadable"})
TEXT_FIELDS = frozenset({"zkside.v1.Failure.message", "zkside.v1.Failure.metadata", "zkside.v1.Session.reason"})
"""For people, and perhaps with paths in them; also maps to such texts."""

_SEQUENTIAL_MODES = frozenset(number for name, number in node_pb2.CreateMode.items() if "SEQUENTIAL" in name)
# What can stand before a path in a sentence, and what ends one there.
_BEFORE, _END = r"(?<![^\s'\"`(:,;=\[])", r"\s'\"`,;)\]…"


class _Outside(Exception):
    """A path that is not below the chroot."""


class _Step(NamedTuple):
    """One field that is, or contains, what is to be rewritten."""

    name: str
    is_repeated: bool
    is_text: bool
    inner: tuple[_Step, ...]
    """Of the message that the field holds; empty for text."""
    is_path: bool
    is_map: bool = False


@cache
def plan(kind: Descriptor) -> tuple[_Step, ...]:
    """The fields of a message type that hold paths or texts about paths, at any depth."""
    return _plan(kind, ())


def _plan(kind: Descriptor, above: tuple[str, ...]) -> tuple[_Step, ...]:
    steps = []
    for field in kind.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            is_path, is_text = field.name in PATH_FIELDS, field.full_name in TEXT_FIELDS
            if is_path or is_text:
                steps.append(_Step(field.name, field.is_repeated, is_text, (), is_path))
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            if field.full_name in TEXT_FIELDS:
                steps.append(_Step(field.name, False, True, (), False, is_map=True))
        elif field.message_type is not None:
            assert field.message_type.full_name not in above, "no message contains itself"
            inner = _plan(field.message_type, (*above, kind.full_name))
            if inner:
                steps.append(_Step(field.name, field.is_repeated, False, inner, False))
    return tuple(steps)


class Chroot:
    """One chroot; its path is one that core/policy_document.py takes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._below = path + "/"
        self._first = "/" + path.split("/")[1]
        self._inside = re.compile(rf"{_BEFORE}{re.escape(path)}(?:(/[^{_END}]*)|(?=[{_END}:.]|$))")

    def enter_path(self, path: str) -> str:
        """The path of the tree. What is no absolute path stays as it is, so that it is refused as such."""
        if path == "/":
            return self.path
        return self.path + path if path.startswith("/") else path

    def leave_path(self, path: str) -> str | None:
        """The path as the caller knows it; None if it is outside."""
        if path.startswith(self._below):
            return path[len(self.path) :]
        return {self.path: "/", "": ""}.get(path)

    def enter(self, request: M) -> M:
        """The request as the caller would have made it without a chroot; another message."""
        made = _copy(request)
        _rewrite(made, plan(made.DESCRIPTOR), self._enter_field, lambda text: text)
        return made

    def leave(self, answer: M) -> M:
        """The answer as the caller is to see it; another message, for others may be about to be sent the same one.

        Elements of lists and whole parts that are about a node outside of the chroot are left out of it.
        Raises: ZksideError for an answer that as a whole is about such a node (a defect).
        """
        made = _copy(answer)
        try:
            _rewrite(made, plan(made.DESCRIPTOR), self._leave_field, self.scrub)
        except _Outside:
            raise ZksideError("an answer was withheld: it is about a node outside of the caller's chroot") from None
        return made

    def error(self, error: ZksideError) -> ZksideError:
        """The error as the caller is to see it; another one, for others may be about to be told the same."""
        message = self.scrub(str(error)) or type(error).__doc__ or error.reason
        made = type(error).__new__(type(error))
        made.__dict__.update(error.__dict__)
        made.args = (message,)
        told = {key: self.scrub(value) for key, value in error.metadata.items()}
        made.metadata = {key: value for key, value in told.items() if value}
        return made

    def scrub(self, text: str) -> str:
        """The text with the chroot taken off the paths in it; '' if it speaks of something outside."""
        if self._first in self._inside.sub("", text):
            return ""
        return self._inside.sub(lambda found: found[1] or "/", text)

    def _enter_field(self, message: Any, path: str) -> str:
        if path == "/" and _names_a_child(message):
            # A number or a prefix is added to the last name: to that of the chroot it would make a sibling of it.
            return self._below
        return self.enter_path(path)

    def _leave_field(self, message: Any, path: str) -> str:
        left = self.leave_path(path)
        if left is None:
            raise _Outside
        return left


def _names_a_child(message: Any) -> bool:
    if isinstance(message, node_pb2.CreateRequest):
        return message.protected or message.mode in _SEQUENTIAL_MODES
    return isinstance(message, node_pb2.HoldEphemeralRequest) and message.sequential


def _copy(message: M) -> M:
    made = type(message)()
    made.CopyFrom(message)
    return made


def _rewrite(
    message: Any, steps: tuple[_Step, ...], path: Callable[[Any, str], str], text: Callable[[str], str]
) -> None:
    """Raises: _Outside, from `path`."""
    for step in steps:
        if step.inner:
            _rewrite_part(message, step, path, text)
        elif step.is_map:
            entries = getattr(message, step.name)
            for key, value in dict(entries).items():
                entries[key] = text(value)
        elif step.is_repeated:
            several = getattr(message, step.name)
            several[:] = [path(message, each) if step.is_path else text(each) for each in several]
        else:
            value = getattr(message, step.name)
            if value:
                setattr(message, step.name, path(message, value) if step.is_path else text(value))


def _rewrite_part(message: Any, step: _Step, path: Callable[[Any, str], str], text: Callable[[str], str]) -> None:
    if step.is_repeated:
        several = getattr(message, step.name)
        outside = []
        for index, each in enumerate(several):
            try:
                _rewrite(each, step.inner, path, text)
            except _Outside:
                outside.append(index)
        for index in reversed(outside):
            del several[index]
    elif message.HasField(step.name):
        try:
            _rewrite(getattr(message, step.name), step.inner, path, text)
        except _Outside:
            message.ClearField(step.name)
