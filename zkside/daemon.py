"""The daemon as a whole: what is made of what, started and stopped in which order.

    journal → session → hub → holds → gRPC servers → HTTP pages

Everything is made from left to right. The listeners are opened before the session is, so that a daemon that may
not start has touched nothing in ZooKeeper; nothing waits for ZooKeeper. Stopping goes from right to left. All
but the threads of the pages is on one event loop (uvloop's: adr/0010).
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import uvloop

import zkside
from zkside import log
from zkside.config import AtShutdown, Config, LogFormat
from zkside.config_kinds import Address
from zkside.daemon_operation import Operation
from zkside.daemon_page import status_page
from zkside.daemon_parts import (
    Backend,
    connector,
    hold_settings,
    hub_settings,
    quota_settings,
    rpc_settings,
    session_settings,
    tracing,
    versions,
)
from zkside.daemon_signals import Signals
from zkside.hub.hub import Hub
from zkside.ops.http import HttpServer
from zkside.ops.lag import LagProbe
from zkside.ops.levels import Levels
from zkside.ops.log_lines import Log
from zkside.ops.pages import pages
from zkside.ops.systemd import ServiceManager
from zkside.ops.turns import asker
from zkside.ops.view import View
from zkside.recipes.holds import Holds
from zkside.rpc.files import FileWatch
from zkside.rpc.server import RpcServer
from zkside.supervisor import Supervisor
from zkside.zk.journal import Journal
from zkside.zk.session import Session

RELEASE_SHARE = 0.6
"""Of the grace: for telling the streams and releasing the holds. The rest is for closing the session."""

GAVE_UP = 70
"""The exit status of a daemon that ends because one of its tasks dies again and again: EX_SOFTWARE."""


class Daemon:
    """One daemon, from `start` to `stop`, each called once."""

    def __init__(
        self,
        config: Config,
        *,
        backend: Backend = Backend.KAZOO,
        read: Callable[[], Config] | None = None,
        output: Log | None = None,
    ) -> None:
        """`read` reads the configuration again from where it came from; `output` is where the log goes.

        Raises: StartError when the configuration names what cannot be used, such as a state_dir in use.
        """
        self.config = config
        """What is in force; `configure` replaces it."""
        self.backend = backend
        self.http: HttpServer | None = None
        self.lag = LagProbe()
        self._started_s = time.monotonic()
        self.supervisor = Supervisor()
        self.files = FileWatch()
        connect = connector(config, backend, self.files, self.supervisor)
        hosts = config.zookeeper.hosts
        journal = Journal(hosts) if config.state_dir is None else Journal.open(config.state_dir, hosts)
        self._tracing = tracing(config)
        session = Session if self._tracing is None else self._tracing.session()
        self.session = session(connect, session_settings(config), journal, supervisor=self.supervisor)
        self.hub = Hub(self.session, hub_settings(config))
        self.holds = Holds(self.session, self.hub, hold_settings(config))
        self.operation = Operation(self, read=read, output=output or Log(), levels=Levels(config.log.level.value))
        settings = rpc_settings(config, backend)
        self.rpc = RpcServer(self.session, self.hub, self.holds, settings, self.files, self.operation)
        self.rpc.interceptors.tracing = self._tracing

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where clients are served, as they write it; known after `start`."""
        return self.rpc.addresses

    @property
    def http_address(self) -> str:
        """Of the pages, as host:port; "" if there are none."""
        listen = self.config.http.listen
        return str(replace(listen, port=self.http.port)) if listen is not None and self.http is not None else ""

    async def start(self) -> None:
        """Serve. Returns when every listener is open, whatever ZooKeeper does.

        Raises: StartError (an address in use, no permission); everything is stopped again then.
        """
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.session.close, keep_session=True, within_s=0.0)
            self.hub.start()
            undo.push_async_callback(self.hub.close)
            self.holds.start()
            await self.rpc.start()
            self.files.start(self.supervisor)
            undo.callback(self.files.stop)
            undo.push_async_callback(self.rpc.stop, 0.0, keep_holds=True)
            if self.config.http.listen is not None:
                self.http = self._http(self.config.http.listen)
                self.http.start()
                self.files.also(self.http.look)
            self.session.start()
            self.lag.start(self.supervisor)
            undo.pop_all()

    async def stop(self, *, keep_session: bool = False) -> None:
        """Stop in order: streams are told and holds released (or kept), caches written, the session closed.

        Takes the configured grace at most; what has not ended by then is cut. `keep_session` leaves the session and
        its holds to the next daemon, whatever is configured.
        """
        grace_s = self.config.shutdown.grace_s
        until_s = time.monotonic() + grace_s
        keep = keep_session or self.config.shutdown.session is AtShutdown.KEEP_SESSION
        self.files.stop()
        try:
            async with asyncio.timeout(grace_s):
                await self.rpc.stop(grace_s * RELEASE_SHARE, keep_holds=keep)
        except TimeoutError:
            log.daemon_stop_late(grace_s=grace_s)
        await self.hub.close()
        if not keep and self.holds.are_believed():
            log.daemon_session_left()
            keep = True
        await self.session.close(keep_session=keep, within_s=max(0.0, until_s - time.monotonic()))
        self.lag.stop()
        self.operation.levels.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        if self.http is not None:
            await asyncio.to_thread(self.http.stop)

    def configure(self, config: Config) -> None:
        """From now on the live keys are as they are here; the others are to be as they were."""
        self.config = config
        self.hub.configure(hub_settings(config))
        self.holds.settings = hold_settings(config)
        self.rpc.configure(quota_settings(config))
        self.operation.output.set_format(as_json=config.log.format is LogFormat.JSON)
        self.operation.levels.configure(config.log.level.value)

    def view(self) -> View:
        """The whole daemon at this moment. Only on the event loop."""
        session, hub, holds = self.session.statistics(), self.hub.statistics(), self.holds.statistics()
        return View(
            versions=versions(),
            backend=self.backend.value,
            uptime_s=time.monotonic() - self._started_s,
            draining=self.rpc.is_draining,
            session=session,
            hub=hub,
            holds=holds,
            lag=self.lag.statistics(),
            refused={
                **self.rpc.refused(),
                "max_holds": holds.refused,
                "max_cached_nodes": hub.refused,
                "max_queued": session.connection.refused if session.connection is not None else 0,
            },
            incidents=self.rpc.interceptors.incidents,
            reloads=self.operation.statistics(),
            task_deaths=dict(self.supervisor.deaths),
            rpc=tuple(self.rpc.collect()),
            shut=self.rpc.shut,
        )

    def _http(self, address: Address) -> HttpServer:
        ask = asker(asyncio.get_running_loop(), self.view)
        page = None
        if self.config.http.details:
            parts = (self.session, self.hub, self.holds, self.rpc, self.lag)
            page = status_page(self.config, self.backend.value, *parts)
        return HttpServer(address.host, address.port, pages(ask, page, loopback=address.is_local))


def run(
    config: Config,
    *,
    backend: Backend = Backend.KAZOO,
    read: Callable[[], Config] | None = None,
    announce: Callable[[Daemon], None] = lambda daemon: None,
) -> int:
    """Run a daemon until SIGTERM or SIGINT; returns the exit status. `announce` is called when it serves.

    SIGHUP reads the configuration again, with `read`; SIGUSR1 writes the state to a file.
    Raises: StartError.
    """
    output = Log()
    output.start(as_json=config.log.format is LogFormat.JSON)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(lambda: Daemon(config, backend=backend, read=read, output=output), announce))


async def _run(make: Callable[[], Daemon], announce: Callable[[Daemon], None]) -> int:
    manager = ServiceManager(os.environ)
    signals = Signals(manager)
    signals.install()
    daemon = make()
    await daemon.start()
    settle_memory()
    signals.serve(daemon.operation)
    http_port = daemon.http.port if daemon.http is not None else 0
    log.daemon_serving(addresses=daemon.addresses, http_port=http_port, version=zkside.__version__, pid=os.getpid())
    manager.ready()
    manager.start(lambda: _in_a_line(daemon), daemon.supervisor)
    announce(daemon)
    gave_up = await _until_stopped(signals.stop, daemon.supervisor)
    if gave_up:
        manager.stopping()
    await signals.close()
    # Without a state_dir no successor could take the session up: then its holds are better released.
    await daemon.stop(keep_session=gave_up and daemon.config.state_dir is not None)
    manager.stop()
    log.daemon_stopped()
    return GAVE_UP if gave_up else 0


async def _until_stopped(stop: asyncio.Event, supervisor: Supervisor) -> bool:
    """Until somebody asks for the stop, or a task cannot be kept alive: then True."""
    asked, failed = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(supervisor.gave_up())
    try:
        await asyncio.wait([asked, failed], return_when=asyncio.FIRST_COMPLETED)
        return not asked.done()
    finally:
        asked.cancel()
        failed.cancel()


def _in_a_line(daemon: Daemon) -> str:
    """For `systemctl status`."""
    session = daemon.session.status
    draining = "draining; " if daemon.rpc.is_draining else ""
    server = f" to {session.server}" if session.server else ""
    return (
        f"{draining}session {session.state.value}{server}, {len(daemon.holds)} holds, {len(daemon.rpc.streams)} streams"
    )


def settle_memory() -> None:
    """Keep the pauses of the garbage collector short.

    What was made while starting stays until the end: it need not be looked at again. 1,000 open streams are
    72,000 objects, and a look at all of them stalls the loop for some 30 ms; nearly all garbage is freed by
    its reference count (tests/rpc/test_garbage.py), so looking at all is rare: under the load of `make soak`, each
    seven minutes. The young generation is looked at in about a millisecond, the middle one in a few.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 4, 100)
