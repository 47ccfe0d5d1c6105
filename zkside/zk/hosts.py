"""Which servers there are, and in which order to try them."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from zkside.errors import InvalidPath, StartError
from zkside.model.path import validate
from zkside.zk.kazoo_parts import parse_hosts

_RESOLVE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """One server: the name that it was given by, and where that led this time."""

    name: str
    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Hosts:
    """'h1:2181,h2:2181/chroot', parsed."""

    names: tuple[tuple[str, int], ...]
    chroot: str
    """'' for none."""

    @classmethod
    def parse(cls, hosts: str) -> Hosts:
        """Raises: StartError."""
        try:
            names, chroot = parse_hosts(hosts)
            validate(chroot or "/", field="hosts")
        except (ValueError, InvalidPath) as error:
            raise StartError(f"hosts = {hosts!r}: {error}; expected 'h1:2181,h2:2181/chroot'") from error
        return cls(tuple(names), "" if chroot == "/" else chroot)

    async def one_round(self, last: Address | None) -> AsyncGenerator[Address, None]:
        """Every address once, in an order left to chance; the server tried last comes last.

        Names are resolved anew each time (S7: DNS changes), one after the other, when their turn comes.
        """
        names = list(self.names)
        random.shuffle(names)
        again: Address | None = None
        for name, port in names:
            for address in await resolve(name, port):
                if address == last:
                    again = address
                else:
                    yield address
        if again is not None:
            yield again


async def resolve(name: str, port: int) -> list[Address]:
    """The name's addresses, shuffled; none if it cannot be resolved now."""
    with contextlib.suppress(ValueError):
        return [Address(name, str(ipaddress.ip_address(name)), port)]
    try:
        async with asyncio.timeout(_RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return []
    addresses = [Address(name, str(info[4][0]), port) for info in found]
    random.shuffle(addresses)
    return addresses


async def is_writable(address: Address, ssl_context: ssl.SSLContext | None, within_s: float) -> bool:
    """Whether the server says that it takes writes ('isro')."""
    try:
        async with asyncio.timeout(within_s):
            name = address.name if ssl_context else None
            reader, writer = await asyncio.open_connection(
                address.ip, address.port, ssl=ssl_context, server_hostname=name
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
