"""The signals of a command that holds something."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zkside.cli.child import Child

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
FORWARDED = (*ENDING, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """Passes them on to a child while there is one; otherwise an ending one ends the wait.

    Those that were ignored when zkside started (nohup) stay so."""

    def __init__(self) -> None:
        self.ended_by = 0
        """The first of ENDING that came; 0: none yet."""
        self.ending = asyncio.Event()
        self.child: Child | None = None

    def install(self) -> None:
        loop = asyncio.get_running_loop()
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self._got, number)

    def _got(self, number: signal.Signals) -> None:
        if number in ENDING and not self.ended_by:
            self.ended_by = number
            self.ending.set()
        if self.child is not None:
            self.child.signal(number)
