"""Where the servers' names lead: all looked up at the same time, none waited for longer than its answer is worth.

A lookup blocks, and nothing ends one that hangs. So each name has at most one thread, which nobody waits for, neither
another name nor the end of the process. What a name led to last is kept, and used while its lookup fails or is slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from zkside.zk.hosts import Address, written

SLOW_S = 0.25
"""After so long the answer of before is used, if there is one."""
HANGS_S = 1.0
"""After so long nobody waits for a first answer any more; it is used when it comes."""

Lookup = Callable[[str, int], Iterable[str]]
"""Called on a thread. Raises: OSError, UnicodeError."""


def ask_the_system(name: str, port: int) -> list[str]:
    """The addresses that this host has for a name. Raises: OSError, UnicodeError."""
    found: list[Any] = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


@dataclass(slots=True)
class _Name:
    name: str
    port: int
    addresses: tuple[Address, ...] = ()
    """As of the last lookup that had any."""
    error: str = ""
    """Of the last lookup that has ended."""
    began_s: float | None = None
    """Of the lookup under way."""
    is_literal: bool = field(default=False)


class Names:
    """The names of the servers, on one event loop."""

    def __init__(self, names: Iterable[tuple[str, int]], lookup: Lookup = ask_the_system) -> None:
        self._names = [_Name(name, port) for name, port in names]
        self._lookup = lookup
        self._news: asyncio.Future[None] | None = None
        for one in self._names:
            with contextlib.suppress(ValueError):
                one.addresses = (Address(one.name, str(ip_address(one.name)), one.port),)
                one.is_literal = True

    def look_up(self) -> None:
        """Begin a lookup of each name that has none under way."""
        loop = asyncio.get_running_loop()
        for one in self._names:
            if not one.is_literal and one.began_s is None:
                one.began_s = loop.time()
                thread = threading.Thread(target=self._look_up, args=(one, loop), name=f"dns {one.name}", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    # There can be no more threads: what is known has to do.
                    self._ended(one, (), str(error))

    def news(self) -> asyncio.Future[None]:
        """Done when the next lookup has ended."""
        if self._news is None or self._news.done():
            self._news = asyncio.get_running_loop().create_future()
        return self._news

    def known(self) -> list[Address]:
        """Where the names lead now: what was found out, or before it if that takes too long or has failed."""
        now_s = asyncio.get_running_loop().time()
        return [
            address
            for one in self._names
            if one.began_s is None or now_s - one.began_s >= SLOW_S
            for address in one.addresses
        ]

    def is_fresh_or_slow(self, name: str) -> bool:
        """Whether there is nothing better to wait for than what is known."""
        now_s = asyncio.get_running_loop().time()
        return all(one.began_s is None or now_s - one.began_s >= SLOW_S for one in self._names if one.name == name)

    def wait_s(self) -> float | None:
        """How long it is until the next lookup under way is slow, or hangs; None if there is none to wait for."""
        now_s = asyncio.get_running_loop().time()
        ages = [now_s - one.began_s for one in self._names if one.began_s is not None]
        waits = [limit - age for age in ages for limit in (SLOW_S, HANGS_S) if age < limit]
        return min(waits, default=None)

    def errors(self) -> dict[str, str]:
        """What is wrong with which name, as 'host:port'."""
        now_s = asyncio.get_running_loop().time()
        found = {}
        for one in self._names:
            if one.began_s is not None and now_s - one.began_s >= HANGS_S:
                found[written(one.name, one.port)] = f"no answer from the DNS for {now_s - one.began_s:.0f} s"
            elif one.error:
                found[written(one.name, one.port)] = one.error
        return found

    def _look_up(self, one: _Name, loop: asyncio.AbstractEventLoop) -> None:
        addresses: tuple[Address, ...] = ()
        error = ""
        try:
            ips = dict.fromkeys(self._lookup(one.name, one.port))
            addresses = tuple(Address(one.name, ip, one.port) for ip in ips)
        except (OSError, UnicodeError) as failed:
            error = f"does not resolve: {getattr(failed, 'strerror', None) or failed}"
        finally:
            # The loop may be closed by now: then nobody wants to know.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._ended, one, addresses, error or "does not resolve: no address")

    def _ended(self, one: _Name, addresses: tuple[Address, ...], error: str) -> None:
        one.began_s = None
        one.error = "" if addresses else error
        if addresses:
            one.addresses = addresses
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
