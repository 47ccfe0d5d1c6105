"""Real entrances with a server behind them that tells each caller who it is taken for."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import grpc

from zkside.errors import Unauthenticated
from zkside.rpc.entrances import Entrances
from zkside.rpc.files import FileWatch
from zkside.rpc.identity import Door
from zkside.rpc.listeners import Listener, TlsFiles
from zkside.rpc.settings import RpcSettings

PATIENCE_S = 10.0
CI_TOKEN = "ci-0123456789-abcdefghij"
APP_TOKEN = "app-0123456789-abcdefghij"


class Reception:
    """`async with Reception(listeners) as reception`."""

    def __init__(self, *listeners: Listener, tls: TlsFiles | None = None, token_files: tuple[Path, ...] = ()) -> None:
        self.files = FileWatch()
        self.entrances = Entrances(RpcSettings(listeners, tls=tls, token_files=token_files), self.files)
        self.doors: list[Door | None] = []
        self.addresses: tuple[str, ...] = ()
        self._servers: list[grpc.aio.Server] = []

    def _server(self, door: Door | None) -> grpc.aio.Server:
        async def tell(_: bytes, context: Any) -> bytes:
            assert door is not None
            try:
                return json.dumps(asdict(door.peer(context))).encode()
            except Unauthenticated as error:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
                raise

        methods: dict[str, Any] = {"Who": grpc.unary_unary_rpc_method_handler(tell)}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("reception", methods),))
        self.doors.append(door)
        self._servers.append(server)
        return server

    async def __aenter__(self) -> Self:
        try:
            self.addresses = self.entrances.open(self._server)
        except BaseException:
            await self.__aexit__()
            raise
        for server in self._servers:
            await server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            await server.stop(0)
        self.entrances.close()

    def look(self) -> None:
        look(self.files)


def look(files: FileWatch) -> None:
    """Twice, as the clock does it: a change counts once it is at rest."""
    files.look()
    files.look()


async def who(channel: grpc.aio.Channel, **options: Any) -> dict[str, Any]:
    """Whom the reception takes the caller for."""
    call: Any = channel.unary_unary("/reception/Who")
    answer: dict[str, Any] = json.loads(await call(b"", timeout=PATIENCE_S, **options))
    return answer


def served(address: str, authority: Path) -> str:
    """The common name of the certificate that a new connection gets to see."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=str(authority))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port)), PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        shown: Any = secured.getpeercert()
    return str(dict(pair for part in shown["subject"] for pair in part)["commonName"])
