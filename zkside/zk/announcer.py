"""Tells listeners, one after the other, what they asked to be told: all of it, and in one order for all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from zkside import log
from zkside.model.event import WatchedEvent
from zkside.model.session import SessionStatus


@dataclass(slots=True, eq=False)
class _Ear:
    """One who listens."""

    status: Callable[[SessionStatus], None] | None
    event: Callable[[WatchedEvent], None] | None
    is_open: bool = True


class Announcer:
    """A listener that raises is logged and counted, and disturbs nobody."""

    def __init__(self) -> None:
        self._ears: tuple[_Ear, ...] = ()
        self._event_ears: tuple[_Ear, ...] = ()
        self._statuses: deque[tuple[SessionStatus, tuple[_Ear, ...]]] = deque()
        self._is_telling = False
        self.errors = 0

    def listen(
        self,
        status: Callable[[SessionStatus], None] | None,
        event: Callable[[WatchedEvent], None] | None,
    ) -> Callable[[], None]:
        ear = _Ear(status, event)
        self._set_ears((*self._ears, ear))

        def unsubscribe() -> None:
            ear.is_open = False
            self._set_ears(tuple(other for other in self._ears if other is not ear))

        return unsubscribe

    def tell_status(self, status: SessionStatus) -> None:
        """To all who listen now. What a listener causes is told when all have heard what came before."""
        self._statuses.append((status, self._ears))
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._statuses:
                status, ears = self._statuses.popleft()
                for ear in ears:
                    if ear.is_open and ear.status is not None:
                        try:
                            ear.status(status)
                        except Exception as error:
                            self._note_error(error, f"the change to {status.state.name}")
        finally:
            self._is_telling = False

    def tell_event(self, event: WatchedEvent) -> None:
        for ear in self._event_ears:
            if ear.is_open and ear.event is not None:
                try:
                    ear.event(event)
                except Exception as error:
                    self._note_error(error, f"{event.type.name} of {event.path}")

    def _note_error(self, error: Exception, what: str) -> None:
        self.errors += 1
        log.session_listener_failed(what=what, error=error)

    def _set_ears(self, ears: tuple[_Ear, ...]) -> None:
        self._ears = ears
        self._event_ears = tuple(ear for ear in ears if ear.event is not None)
