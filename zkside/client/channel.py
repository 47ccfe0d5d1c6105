"""A channel that shows credentials: a token with every call, and certificates that may be renewed under it."""

from __future__ import annotations

from typing import Any, Self

import grpc
import grpc.aio

from zkside.client.credentials import Bearer, Certified, Credentials

Options = list[tuple[str, Any]]


def open_channel(address: str, credentials: Credentials, options: Options) -> grpc.aio.Channel:
    """gRPC's own channel where nothing is to be shown."""
    if not credentials:
        return grpc.aio.insecure_channel(address, options=options)
    return _Channel(address, credentials, options)


class _Channel(grpc.aio.Channel):
    """Stubs that were made of it stay good: each call goes by the channel of the present certificates.

    The channels of certificates before stay until the end, for the streams on them go on.
    """

    def __init__(self, address: str, credentials: Credentials, options: Options) -> None:
        """Raises: InvalidArgument for files that cannot be used."""
        self._address = address
        self._options = options
        self._certified = Certified(credentials.tls) if credentials.tls is not None else None
        self._bearer = Bearer(credentials.token_file) if credentials.token_file is not None else None
        if credentials.tls is not None and credentials.tls.server_name:
            self._options = [*options, ("grpc.ssl_target_name_override", credentials.tls.server_name)]
        self._of: grpc.ChannelCredentials | None = None
        self._retired: list[grpc.aio.Channel] = []
        self._current: grpc.aio.Channel | None = None

    def current(self) -> grpc.aio.Channel:
        """Raises: InvalidArgument."""
        if self._certified is None:
            if self._current is None:
                self._current = grpc.aio.insecure_channel(self._address, options=self._options)
            return self._current
        credentials = self._certified.credentials()
        if self._current is None or credentials is not self._of:
            if self._current is not None:
                self._retired.append(self._current)
            self._of = credentials
            self._current = grpc.aio.secure_channel(self._address, credentials, options=self._options)
        return self._current

    def shown(self, metadata: Any) -> Any:
        """The metadata of a call, and the token. Raises: InvalidArgument."""
        return metadata if self._bearer is None else (*(metadata or ()), self._bearer.metadata())

    def unary_unary(self, *of: Any, **named: Any) -> Any:
        return _Method(self, "unary_unary", of, named)

    def unary_stream(self, *of: Any, **named: Any) -> Any:
        return _Method(self, "unary_stream", of, named)

    def stream_unary(self, *of: Any, **named: Any) -> Any:
        return _Method(self, "stream_unary", of, named)

    def stream_stream(self, *of: Any, **named: Any) -> Any:
        return _Method(self, "stream_stream", of, named)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.current().channel_ready()

    async def close(self, grace: float | None = None) -> None:
        channels = [*self._retired, *([self._current] if self._current is not None else [])]
        self._retired, self._current = [], None
        for channel in channels:
            await channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Method:
    """A method to be called on whichever channel is the present one."""

    def __init__(self, owner: _Channel, kind: str, of: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._owner = owner
        self._kind = kind
        self._of = of
        self._named = named
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    def __call__(self, *request: Any, metadata: Any = None, **options: Any) -> Any:
        channel = self._owner.current()
        if channel is not self._channel:
            self._channel = channel
            self._call = getattr(channel, self._kind)(*self._of, **self._named)
        return self._call(*request, metadata=self._owner.shown(metadata), **options)
