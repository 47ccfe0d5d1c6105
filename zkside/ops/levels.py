"""Which lines are logged: the configured level, and levels that were set while the daemon runs, for a while or not."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from zkside import log
from zkside.errors import InvalidArgument
from zkside.log_event import EVENTS
from zkside.model.admin import LoggerLevel

LEVELS = ("debug", "info", "warning", "error")
LIBRARIES = ("asyncio", "grpc", "kazoo", "opentelemetry")
ALL = "all loggers"


@dataclass(slots=True)
class _Set:
    """A level that was asked for."""

    level: str
    until_s: float
    """By the loop's clock; 0: until told otherwise."""
    timer: asyncio.TimerHandle | None


class Levels:
    """The levels of the process's loggers. Everything on the event loop, but for `__init__`."""

    def __init__(self, level: str) -> None:
        self._configured = level
        self._set: dict[str, _Set] = {}
        logging.getLogger().setLevel(level.upper())

    def configure(self, level: str) -> None:
        """The configuration has this level now. One that was set for all loggers goes before it."""
        self._configured = level
        if "" not in self._set:
            logging.getLogger().setLevel(level.upper())

    def set(self, logger: str, level: str, for_s: float = 0.0) -> None:
        """`logger` as in the lines, "" for all; `level` "" is back to what the configuration says; `for_s` 0 is
        until told otherwise. Raises: InvalidArgument."""
        if level not in ("", *LEVELS):
            raise InvalidArgument(f"must be one of {', '.join(LEVELS)}, not {level!r}", field="level")
        if logger not in known():
            raise InvalidArgument(f"{logger!r} is no logger; there are {', '.join(known()[1:])}", field="logger")
        before = self._set.pop(logger, None)
        if before is not None and before.timer is not None:
            before.timer.cancel()
        if level:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(for_s, self._restore, logger) if for_s else None
            self._set[logger] = _Set(level, loop.time() + for_s if for_s else 0.0, timer)
        self._apply(logger)
        log.log_level_set(whose=logger or ALL, level=self._level(logger), back_s=for_s)

    def list(self) -> tuple[LoggerLevel, ...]:
        """The level of all loggers first, then those that have one of their own."""
        now_s = asyncio.get_running_loop().time()
        names = ["", *(name for name in known() if name in self._set and name)]
        return tuple(
            LoggerLevel(name, self._level(name), max(0.0, found.until_s - now_s) if found and found.until_s else 0.0)
            for name in names
            for found in [self._set.get(name)]
        )

    @property
    def configured(self) -> str:
        return self._configured

    def close(self) -> None:
        """No timer is left."""
        for each in self._set.values():
            if each.timer is not None:
                each.timer.cancel()

    def _restore(self, logger: str) -> None:
        del self._set[logger]
        self._apply(logger)
        log.log_level_restored(whose=logger or ALL, level=self._level(logger))

    def _level(self, logger: str) -> str:
        if logger in self._set:
            return self._set[logger].level
        return self._level("") if logger else self._configured

    def _apply(self, logger: str) -> None:
        own = self._level(logger).upper() if not logger or logger in self._set else logging.NOTSET
        logging.getLogger(logger or None).setLevel(own)


def known() -> tuple[str, ...]:
    """The names that `set` takes."""
    return ("", "zkside", *sorted({event.logger for event in EVENTS.values()}), *LIBRARIES)
