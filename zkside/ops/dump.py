"""The daemon's whole state as one JSON document, made in slices so that no call has to wait for it.

It is for people who look for a fault: no contract, no secrets, no resume tokens, no data of nodes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from inspect import isasyncgen, iscoroutine
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

SLICE = 50
"""Items that are made and written before others have their turn: about a millisecond."""
MOST_ITEMS = 20_000
"""In one list; of those beyond, the number is told."""


async def document(head: Mapping[str, object], lists: Mapping[str, Iterable[object]]) -> AsyncIterator[str]:
    """The text in pieces: the head's values as they are, then each list, and at last the tasks and threads.

    Every list is seen as it is when its turn comes: it may be a generator over a copy.
    """
    yield "{\n"
    for name, value in head.items():
        yield f"{json.dumps(name)}: {_json(value)},\n"
        await asyncio.sleep(0)
    for name, items in lists.items():
        async for piece in _list(name, items):
            yield piece
    async for piece in _list("tasks", [row async for row in _tasks()]):
        yield piece
    yield f'"threads": {_json(threads())}\n}}\n'


async def _list(name: str, items: Iterable[object]) -> AsyncIterator[str]:
    """One member of the document, and its comma."""
    yield f"{json.dumps(name)}: ["
    rest = iter(items)
    written = 0
    while written < MOST_ITEMS and (some := [*islice(rest, min(SLICE, MOST_ITEMS - written))]):
        yield ("," if written else "") + ",".join("\n" + _json(item) for item in some)
        written += len(some)
        await asyncio.sleep(0)
    yield "],\n"
    if left := sum(1 for _ in rest):
        yield f"{json.dumps(name + '_left_out')}: {left},\n"


async def _tasks() -> AsyncIterator[dict[str, object]]:
    """Tasks with the same stack are one row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for count, task in enumerate(asyncio.all_tasks()):
        if count % SLICE == SLICE - 1:
            await asyncio.sleep(0)
        rows.setdefault(tuple(stack(task)), []).append(task.get_name())
    for frames, names in sorted(rows.items(), key=lambda row: -len(row[1])):
        yield {"count": len(names), "names": names[:5], "stack": frames}


def stack(task: asyncio.Task[Any]) -> list[str]:
    """Where a task waits, outermost first: through all that it awaits, where `Task.get_stack` has one frame."""
    frames: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        for kind in ("cr", "gi", "ag"):
            frame: FrameType | None = getattr(awaited, f"{kind}_frame", None)
            if frame is not None:
                frames.append(_place(frame))
                awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            # A step of an asynchronous generator, and a wrapper that gRPC awaits, keep that to themselves.
            awaited = next((each for each in gc.get_referents(awaited) if isasyncgen(each) or iscoroutine(each)), None)
    return frames


def threads() -> list[dict[str, object]]:
    """Every thread of the process and where it is, outermost first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    rows: list[dict[str, object]] = []
    for ident, innermost in sys._current_frames().items():
        frames: list[str] = []
        frame: FrameType | None = innermost
        while frame is not None:
            frames.append(_place(frame))
            frame = frame.f_back
        rows.append({"name": names.get(ident, "?"), "stack": frames[::-1]})
    return rows


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{frame.f_lineno} {code.co_qualname}"


def _json(value: object) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    """Enumerations become their names, values dictionaries; keys become text."""
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def _key(key: object) -> str:
    if isinstance(key, tuple):
        return " ".join(map(_key, key))
    return key.name if isinstance(key, Enum) else str(key)
