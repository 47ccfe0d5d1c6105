"""A stream, or one hold of a Carry stream, for as long as the guard lets it be served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from zkside.errors import Denied
from zkside.model.hold import HoldState, Reason
from zkside.recipes.holds import Holds
from zkside.rpc import convert
from zkside.rpc.caller import Caller
from zkside.rpc.identity import Door
from zkside.rpc.interceptors import StreamCall
from zkside.rpc.needs import Ask, Row
from zkside.rpc.recording import Record

_STATES = {number: state for state, number in convert.HOLD_STATES.items()}

LAST_WORDS_S = 0.2
"""How long the last updates of a Carry stream may take to leave before it is ended."""


class Served:
    """Ends when it is over, or when a right that it needs is lost."""

    def __init__(
        self,
        holds: Holds,
        row: Row,
        record: Record,
        caller: Caller,
        door: Door,
        call: StreamCall,
        asks: Iterable[Ask],
        stream: Served | None = None,
    ) -> None:
        """`stream`: the Carry stream that it is a hold of."""
        self.row = row
        self.record = record
        self.caller = caller
        self.door = door
        self.call = call
        self.asks = tuple(asks)
        self.denied: Denied | None = None
        """Why it is about to end."""
        self.watch_id = ""
        self.hold_id = ""
        self.fencing_token = 0
        self._holds = holds
        self._stream = stream
        self._carried = 0
        if stream is not None:
            stream._carried += 1

    def deny(self, denied: Denied) -> None:
        """End it with this error.

        Who has a hold first gives it back, as for a drain: nobody else gets it while its owner may believe in it.
        """
        if self.denied is not None:
            return
        self.denied = denied
        if self.hold_id:
            self._take_back()
        elif self._stream is None and not self._carried:
            self.call.stream.end(denied)
        # What is carried and has told nothing yet is taken back with its first update.

    def note(self, hold_id: str, path: str, state: HoldState, fencing_token: int) -> None:
        """An update of its hold, before it is sent."""
        is_new = hold_id != self.hold_id
        self.hold_id = hold_id
        if state is HoldState.HELD and (is_new or fencing_token != self.fencing_token):
            self.fencing_token = fencing_token
            self.record.granted(path, fencing_token)
        if is_new and self.denied is not None:
            self._take_back()

    def left(self) -> None:
        """It is over. The Carry stream of a caller who may do nothing any more ends with its last hold."""
        stream = self._stream
        if stream is not None:
            stream._carried -= 1
            if stream.denied is not None and not stream._carried:
                loop = asyncio.get_running_loop()
                loop.call_later(LAST_WORDS_S, stream.call.stream.end, stream.denied)

    def _take_back(self) -> None:
        hold = self._holds.find(self.hold_id)
        if hold is not None:
            hold.recall(Reason.POLICY_DENIED)


def noted(served: Served, update: Any) -> None:
    """As `note`, for an update as it is sent."""
    served.note(update.hold.hold_id, update.hold.path, _STATES[update.state], update.hold.fencing_token)
