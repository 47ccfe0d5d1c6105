"""Blocking faces of the asynchronous classes, made from them: one rule for each kind of member, no class twice."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import wraps
from types import MappingProxyType
from typing import Any, TypeVar

from zkside.client import forked
from zkside.errors import ZksideError

T = TypeVar("T")


class LoopThread:
    """A private event loop in a thread of its own, for all that one client does."""

    def __init__(self) -> None:
        """Raises ZksideError where gRPC would hang."""
        forked.check_process()
        self.is_inherited = False
        """Whether it is a parent's, in a child that was forked: there it does not run."""
        forked.track(self)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="zkside client", daemon=True)
        self._thread.start()

    def forked(self) -> None:
        """Threads are not copied."""
        self.is_inherited = True

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to its end. An interrupt (Ctrl-C) of the caller cancels it."""
        if threading.current_thread() is self._thread or not self._thread.is_alive():
            work.close()
            if self.is_inherited:
                raise forked.error()
            if self._thread.is_alive():
                raise ZksideError("a callback must not block: this call would wait for itself")
            raise ZksideError("this client is closed; make a new one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """A plain function, on the loop."""

        async def work() -> T:
            return function(*arguments, **options)

        return self.run(work())

    def hand_over(self, future: asyncio.Future[T]) -> Any:
        """A future of the loop, as one for threads."""

        async def wait() -> T:
            return await future

        return asyncio.run_coroutine_threadsafe(wait(), self._loop)

    def drop(self, thing: object) -> None:
        """Let go of the last reference on the loop, where what it ends can be ended."""
        if self.is_inherited:
            forked.keep(thing)
        elif self._thread.is_alive() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(id, thing)

    def stop(self) -> None:
        """Idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class Face:
    """A blocking face; `source` is the asynchronous object behind it."""

    source: type
    faces: Mapping[type, type[Face]]

    def __init__(self, source: Any, thread: LoopThread) -> None:
        self._source = source
        self._thread = thread

    def __getattr__(self, name: str) -> Any:
        # What the source sets when it is made: `held.lost`, `client.admin`.
        if name.startswith("_"):
            raise AttributeError(name)
        return self._hand_out(getattr(self._source, name))

    def __del__(self) -> None:
        thread = self.__dict__.get("_thread")
        if thread is not None:
            thread.drop(self.__dict__.pop("_source", None))

    def _hand_out(self, value: Any) -> Any:
        if value is self._source:
            return self
        if asyncio.isfuture(value):
            return self._thread.hand_over(value)
        if isinstance(value, MappingProxyType):
            return MappingProxyType(dict(value))  # the loop goes on changing the other
        face = self.faces.get(type(value))
        return value if face is None else face(value, self._thread)


class Pages:
    """Iterates over an asynchronous iterator."""

    def __init__(self, source: Any, face: Face) -> None:
        self._source = source
        self._face = face

    def __iter__(self) -> Pages:
        return self

    def __next__(self) -> Any:
        return _next(self._face, self._source.__anext__())


def faces_of(sources: Iterable[type], direct: Iterable[type]) -> dict[type, type[Face]]:
    """The face of each class, by the class; a class comes after those that it is derived from.

    The plain members of `direct` classes are looked at in the caller's thread, all others on the loop.
    """
    direct = tuple(direct)
    faces: dict[type, type[Face]] = {}
    for source in sources:
        bases = tuple(faces[base] for base in source.__mro__[1:] if base in faces)[:1] or (Face,)
        members: dict[str, Any] = {"source": source, "faces": faces, "__doc__": source.__doc__}
        for name, member in _members(source):
            members |= _face_of(name, member, is_direct=issubclass(source, direct))
        faces[source] = type(source.__name__, bases, members)
    return faces


def _members(source: type) -> Iterator[tuple[str, Any]]:
    for kind in reversed(source.__mro__[:-1]):
        yield from vars(kind).items()


def _face_of(name: str, member: Any, *, is_direct: bool) -> dict[str, Any]:
    if name in _SPECIAL:
        return _SPECIAL[name]
    if name.startswith("_"):
        return {}
    if isinstance(member, property):
        return {name: property(_plain(name, is_direct), doc=member.__doc__)}
    if inspect.isasyncgenfunction(member):
        return {name: wraps(member)(_generator(name))}
    if inspect.iscoroutinefunction(member):
        return {name: wraps(member)(_blocking(name))}
    if inspect.isfunction(member):
        return {name: wraps(member)(_plain_call(name, is_direct))}
    return {}


def _plain(name: str, is_direct: bool) -> Callable[[Any], Any]:
    def look(face: Face) -> Any:
        if is_direct:
            return face._hand_out(getattr(face._source, name))
        return face._thread.call(lambda: face._hand_out(getattr(face._source, name)))

    return look


def _plain_call(name: str, is_direct: bool) -> Callable[..., Any]:
    def call(face: Face, *arguments: Any, **options: Any) -> Any:
        method = getattr(face._source, name)
        value = method(*arguments, **options) if is_direct else face._thread.call(method, *arguments, **options)
        return face._hand_out(value)

    return call


def _blocking(name: str) -> Callable[..., Any]:
    def call(face: Face, *arguments: Any, **options: Any) -> Any:
        return face._hand_out(face._thread.run(getattr(face._source, name)(*arguments, **options)))

    return call


def _generator(name: str) -> Callable[..., Any]:
    def call(face: Face, *arguments: Any, **options: Any) -> Pages:
        return Pages(getattr(face._source, name)(*arguments, **options), face)

    return call


def _next(face: Face, coming: Any) -> Any:
    async def wait() -> Any:
        # A coroutine cannot end with the StopIteration of a plain iterator, nor a future with the other.
        try:
            return face._hand_out(await coming)
        except StopAsyncIteration:
            return _END

    item = face._thread.run(wait())
    if item is _END:
        raise StopIteration
    return item


_END = object()


def _listed(face: Face) -> Iterator[Any]:
    return iter(face._thread.call(lambda: list(face._source)))


def _exit(face: Face, kind: Any, error: Any, traceback: Any) -> Any:
    if face._thread.is_inherited:
        # What is inside the block is the parent's: a child that leaves it ends nothing, but must not believe in it.
        leave = getattr(face._source, "_leave_inherited", None)
        return None if leave is None else leave(error)
    return face._thread.run(face._source.__aexit__(kind, error, traceback))


_SPECIAL: dict[str, dict[str, Any]] = {
    "__aenter__": {"__enter__": lambda face: face._hand_out(face._thread.run(face._source.__aenter__()))},
    "__aexit__": {"__exit__": _exit},
    "__aiter__": {"__iter__": lambda face: face},
    "__anext__": {"__next__": lambda face: _next(face, face._source.__anext__())},
    "__iter__": {"__iter__": _listed},
    "__len__": {"__len__": lambda face: face._thread.call(len, face._source)},
    "__contains__": {"__contains__": lambda face, key: face._thread.call(face._source.__contains__, key)},
    "__getitem__": {"__getitem__": lambda face, key: face._thread.call(face._source.__getitem__, key)},
}
"""How a member with a special name is called here."""
