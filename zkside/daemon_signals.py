"""What the daemon's signals do: stop, read the configuration again, write the state down."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
from contextlib import ExitStack

from zkside import log
from zkside.daemon_operation import Operation
from zkside.ops.systemd import ServiceManager


class Signals:
    """SIGTERM and SIGINT ask for the stop, a second one cuts it; SIGHUP reloads; SIGUSR1 dumps the state,
    SIGUSR2 the stacks of all threads.

    From `install` to `close`, on one event loop.
    """

    def __init__(self, manager: ServiceManager) -> None:
        self.stop = asyncio.Event()
        """Set when the daemon is to stop."""
        self._manager = manager
        self._dump: asyncio.Task[None] | None = None
        self._files = ExitStack()

    def install(self) -> None:
        """From now on a stop can be asked for."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._ask, signum.name)
        for early in (signal.SIGHUP, signal.SIGUSR1):
            # Their default is to end the process, which a daemon that is still starting does not deserve.
            loop.add_signal_handler(early, lambda: None)

    def serve(self, operation: Operation) -> None:
        """From now on all of them do what they say."""
        loop = asyncio.get_running_loop()
        # At a crash, and when systemd's watchdog ends a daemon that hangs (SIGABRT): to the log.
        faulthandler.enable(all_threads=True)
        # Written by the signal's own handler in C, whatever the event loop does: for a daemon that hangs.
        faulthandler.register(signal.SIGUSR2, file=operation.open_stacks(self._files), all_threads=True)
        loop.add_signal_handler(signal.SIGHUP, self._reload, operation)
        loop.add_signal_handler(signal.SIGUSR1, self._write_state, operation)

    async def close(self) -> None:
        """Nothing of it is under way any more."""
        if self._dump is not None:
            self._dump.cancel()
            await asyncio.wait([self._dump])
        faulthandler.unregister(signal.SIGUSR2)
        self._files.close()

    def _ask(self, name: str) -> None:
        if self.stop.is_set():
            log.daemon_cut(signal=name)
            logging.shutdown()
            os._exit(1)
        log.daemon_stopping(signal=name)
        self._manager.stopping()
        self.stop.set()

    def _reload(self, operation: Operation) -> None:
        self._manager.reloading()
        operation.reload()
        self._manager.ready()

    def _write_state(self, operation: Operation) -> None:
        if self._dump is None or self._dump.done():
            self._dump = asyncio.get_running_loop().create_task(operation.dump_to_file(), name="zkside-dump")
