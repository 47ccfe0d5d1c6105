"""From the connect string to one server that takes us: which address is tried when, and what went wrong.

One `Dialer` serves all connections of a daemon, one after the other, and remembers what outlives each: where the names
led, which server worked last, and the last error. A `Round` tries every address once. Attempts begin STAGGER_S apart,
or as soon as the one before has failed, and go on side by side, so that a dead address costs STAGGER_S and not its
timeout; the first that is through with TCP and TLS wins, and the others are closed. Only then the session is asked for:
a server must never see one session on two connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zkside import log
from zkside.zk.hosts import Address, Hosts
from zkside.zk.names import Names
from zkside.zk.port import Connecting
from zkside.zk.socket import Socket
from zkside.zk.tls import hint, server_name

STAGGER_S = 0.25
MAX_ATTEMPT_S = 5.0
AGAIN_S = 60.0
"""The same error of the same server is logged once in this time."""
_MAX_REMEMBERED = 256

Context = Callable[[], ssl.SSLContext]


class Unreachable(OSError):
    """No server could be reached in a round; the text says of each why."""


class NoTls(OSError):
    """The server hung up in the TLS handshake."""


class Dialer:
    """Where the servers are, and how it went."""

    def __init__(self, hosts: Hosts, context: Context | None = None, names: Names | None = None) -> None:
        """`context` gives what TLS is to be spoken with, anew for each attempt."""
        self.hosts = hosts
        self.names = names or Names(hosts.names)
        self.context = context
        self.preferred: Address | None = None
        """The server that worked last."""
        self.avoided: dict[Address, None] = {}
        """Those that took the connection and then said nothing: they come last."""
        self._failures: Counter[str] = Counter()
        self._last_error, self._last_error_unix_s, self._stands = "", 0.0, False
        self._logged: dict[str, tuple[str, float]] = {}

    def begin(self) -> Round:
        """A new round; the names are looked up anew."""
        self.names.look_up()
        return Round(self)

    def worked(self, address: Address) -> None:
        """A session runs there."""
        self.preferred = address
        self._stands = False
        self.avoided.pop(address, None)

    def avoid(self, address: Address | None) -> None:
        """It was silent: others first."""
        if address is not None:
            self.avoided = dict.fromkeys([*self.avoided, address][-_MAX_REMEMBERED:])

    def statistics(self) -> Connecting:
        return Connecting(self._last_error, self._last_error_unix_s, self._stands, dict(self._failures))

    def note(self, error: str) -> None:
        """This is what stands in the way now."""
        self._last_error, self._last_error_unix_s, self._stands = error, time.time(), True

    def failed(self, server: str, reason: str, error: str) -> None:
        """One server could not be reached, or did not take us; `reason` is what a metric calls it. Logged, but not
        each time."""
        self._failures[reason] += 1
        text, at_s = self._logged.get(server, ("", 0.0))
        now_s = time.monotonic()
        if error != text or now_s - at_s >= AGAIN_S:
            if len(self._logged) >= _MAX_REMEMBERED:
                self._logged.clear()
            self._logged[server] = error, now_s
            log.connection_failed(server=server, error=error)

    async def addresses(self) -> list[Address]:
        """All of them as far as they are known within a moment, in an order left to chance; the preferred last."""
        self.names.look_up()
        while (wait_s := self.names.wait_s()) is not None:
            await asyncio.wait({self.names.news()}, timeout=wait_s)
        return sorted(self.names.known(), key=lambda address: (address == self.preferred, random.random()))


class Round:
    """Tries every address once."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._tried: dict[Address, str] = {}

    def failed(self, address: Address, reason: str, error: BaseException) -> None:
        """Its turn in this round is over."""
        self._tried[address] = text = described(error)
        where = str(address) if address.name == address.ip else f"{address} ({address.ip})"
        self._dialer.failed(where, reason, text)

    @property
    def left(self) -> int:
        """How many are still to be tried, as far as they are known."""
        return len(set(self._dialer.names.known()) - set(self._tried))

    async def next_socket(
        self, make: Callable[[], Socket], attempt_s: float | None, within_s: float
    ) -> tuple[Socket, Address]:
        """The first of the remaining servers that is through with TCP and TLS. Raises: Unreachable."""
        loop = asyncio.get_running_loop()
        names, ends_s, next_s = self._dialer.names, loop.time() + within_s, loop.time()
        under_way: dict[asyncio.Task[Socket], Address] = {}
        try:
            while True:
                now_s = loop.time()
                address = self._choose(under_way.values())
                if address is not None and (now_s >= next_s or not under_way):
                    attempt = open_socket(make, address, self._dialer.context, attempt_s or MAX_ATTEMPT_S)
                    under_way[loop.create_task(attempt, name=f"connecting to {address}")] = address
                    next_s = now_s + STAGGER_S
                    continue
                news: set[asyncio.Future[Any]] = {*under_way, names.news()}
                waits = [names.wait_s(), next_s - now_s if address is not None else None, ends_s - now_s]
                if (not under_way and waits[0] is None) or now_s >= ends_s:
                    raise Unreachable(self._told(under_way.values()))
                timeout_s = max(0.0, min(wait_s for wait_s in waits if wait_s is not None))
                done, _ = await asyncio.wait(news, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                for attempt_done in [task for task in under_way if task in done]:
                    error = attempt_done.exception()
                    if error is None:
                        return attempt_done.result(), under_way.pop(attempt_done)
                    self.failed(under_way.pop(attempt_done), reason_of(error), error)
                    next_s = loop.time()
        finally:
            await _end(under_way)

    def _choose(self, under_way: Iterable[Address]) -> Address | None:
        """Whose turn it is; None: nobody's for now. Those that were silent come last, the one that worked last
        first, and the names in turns: one with many dead addresses does not keep the others waiting."""
        dialer, busy = self._dialer, [*under_way, *self._tried]
        preferred = dialer.preferred
        if preferred is not None and not busy and not dialer.names.is_fresh_or_slow(preferred.name):
            return None
        begun = Counter((address.name, address.port) for address in busy)
        rest = set(dialer.names.known()) - set(busy)
        return min(
            rest,
            key=lambda one: (one in dialer.avoided, one != preferred, begun[one.name, one.port], random.random()),
            default=None,
        )

    def _told(self, under_way: Iterable[Address]) -> str:
        unresolved = self._dialer.names.errors()
        for server, error in unresolved.items():
            self._dialer.failed(server, "resolve", error)
        tried = self._tried | dict.fromkeys(under_way, "no answer")
        each = [f"{server}: {error}" for server, error in unresolved.items()]
        each += [f"{one} ({one.ip}): {error}" for one, error in tried.items() if one.name != one.ip]
        each += [f"{one}: {error}" for one, error in tried.items() if one.name == one.ip]
        return "; ".join(each) or "there is no server"


async def open_socket(make: Callable[[], Socket], address: Address, context: Context | None, within_s: float) -> Socket:
    """TCP and TLS. Raises: OSError (which TLS errors are), TimeoutError."""
    try:
        async with asyncio.timeout(within_s):
            _, socket = await asyncio.get_running_loop().create_connection(
                make,
                address.ip,
                address.port,
                ssl=context() if context is not None else None,
                server_hostname=server_name(address.name) if context is not None else None,
            )
    except ConnectionError as error:
        # Without a number it is not the kernel's: the connection was there, and ended before TLS was.
        if context is not None and error.errno is None:
            raise NoTls(
                "TLS: the server hung up: is this its port for TLS, and does it know our certificate?"
            ) from None
        raise
    return socket


async def is_writable(address: Address, context: Context | None, within_s: float) -> bool:
    """Whether the server says that it takes writes ('isro')."""
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(
                address.ip,
                address.port,
                ssl=context() if context is not None else None,
                server_hostname=server_name(address.name) if context is not None else None,
            )
            try:
                writer.write(b"isro")
                return await reader.read(16) == b"rw"
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False


def reason_of(error: BaseException) -> str:
    """What a metric calls it."""
    if isinstance(error, ssl.SSLError | NoTls):
        return "tls"
    if isinstance(error, TimeoutError):
        return "timeout"
    return "refused" if isinstance(error, ConnectionRefusedError) else "network"


REASONS = ("auth", "chroot", "network", "refused", "resolve", "session", "timeout", "tls")
"""All that `reason` can be."""


def described(error: BaseException) -> str:
    """For people, in a line."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer"
    if isinstance(error, ssl.SSLError):
        return hint(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower() if error.errno else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


async def _end(under_way: Mapping[asyncio.Task[Socket], Address]) -> None:
    """Those that were slower: none of their connections stays."""
    for task in under_way:
        task.cancel()
    if under_way:
        await asyncio.wait(under_way)
    for task in under_way:
        if not task.cancelled() and task.exception() is None:
            task.result().drop("another server was faster")
