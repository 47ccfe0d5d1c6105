"""The connection of a client to its daemon: one gRPC channel, opened at the first call, kept up by gRPC."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc
import grpc.aio

from zkside.client import fault, forked
from zkside.client.carry import Carried, Carrier
from zkside.client.channel import open_channel
from zkside.client.credentials import TlsOptions, credentials_for
from zkside.client.pulse import DEADLINE_S, Pulse
from zkside.errors import InvalidArgument, ZksideError
from zkside.pb import carry_pb2, session_pb2
from zkside.pb.session_pb2_grpc import SessionServiceStub

Request = TypeVar("Request")
Response = TypeVar("Response")
Stream = TypeVar("Stream", bound=grpc.aio.Call)

ADDRESS_VARIABLE = "ZKSIDE_ADDRESS"
DEFAULT_TIMEOUT_S = 10.0
STREAMS_OF_A_CHANNEL = 64
"""Streams that one connection carries; for more another is opened. A daemon lets a connection have so many streams and
calls at once (`quotas.max_concurrent_streams`), and gRPC would wait with the others and say nothing."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.32
"""At most, before a call is sent again that the daemon had no room for."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A daemon that hangs is noticed in 15 s, also while nothing is under way. The daemon allows such pings.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # The daemon is on this host: to try often costs nothing, and a restart is over in a second.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 200),
    # Two clients of one process do not share a connection, so that neither waits for the other's traffic.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
WAIT_FOR_READY_METADATA = (("zkside-wait-for-ready", "true"),)


def default_address() -> str:
    """What ZKSIDE_ADDRESS names, or the daemon's default socket."""
    named = os.environ.get(ADDRESS_VARIABLE, "").strip()
    if named:
        return named
    runtime = os.environ.get("XDG_RUNTIME_DIR", "").strip()
    return f"unix:{runtime or '/run'}/zkside/zkside.sock"


def checked_address(address: str) -> str:
    """'unix:/path', or 'host:port'. A bare path is taken for a socket's. Raises InvalidArgument."""
    if address.startswith("/"):
        address = f"unix:{address}"
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if path.startswith("///"):
            path = path[2:]
        if not path:
            raise InvalidArgument("an address that begins with 'unix:' needs the path of a socket", field="address")
        if len(os.fsencode(path)) > 107:
            raise InvalidArgument(
                f"the path of a socket has at most 107 bytes, this one {len(os.fsencode(path))}: {path}",
                field="address",
            )
        return f"unix:{path}"
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidArgument(f"an address is 'unix:/path' or 'host:port', not {address!r}", field="address")
    return address


class Link:
    """A lazily opened channel, and more of them for many streams. Belongs to the event loop that first uses it."""

    def __init__(
        self,
        address: str | None,
        timeout_s: float,
        *,
        tls: TlsOptions | None = None,
        token_file: str | Path | None = None,
    ) -> None:
        forked.check_process()
        self.address = checked_address(address or default_address())
        self.credentials = credentials_for(self.address, tls, token_file)
        self.timeout_s = timeout_s
        self._channel: grpc.aio.Channel | None = None
        self._streams: dict[grpc.aio.Channel, int] = {}
        """Open streams of each channel, the one of the calls among them."""
        self._closed = False
        self.is_inherited = False
        """Whether this is the parent's, in a child that was forked: nothing of it is ours."""
        self.pulse = Pulse(self._ask)
        self._carrier = Carrier()
        forked.track(self)

    def forked(self) -> None:
        """The connection is the parent's. One that was not opened yet may be opened by the child."""
        if self._channel is None or self.is_inherited:
            return
        self.is_inherited = True
        forked.keep(self)
        forked.give_up_connections(self.address)

    @property
    def is_closed(self) -> bool:
        return self._closed

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which another process of this host reaches the same daemon, as the same caller."""
        return {ADDRESS_VARIABLE: self.address, **self.credentials.environment}

    @property
    def channel(self) -> grpc.aio.Channel:
        if self.is_inherited:
            raise forked.error()
        if self._closed:
            raise ZksideError("this client is closed; make a new one")
        if self._channel is None:
            forked.check_process()
            self._channel = self._open_channel()
        return self._channel

    def stream(self, open_stream: Callable[[grpc.aio.Channel], Stream]) -> Stream:
        """Open a stream that may go on for long, on a channel that has room for it."""
        channel = self.channel
        if self._streams[channel] >= STREAMS_OF_A_CHANNEL:
            channel = min(self._streams, key=self._streams.__getitem__)
            if self._streams[channel] >= STREAMS_OF_A_CHANNEL:
                channel = self._open_channel()
        call = open_stream(channel)
        self._streams[channel] += 1

        def ended(_: object) -> None:
            if channel in self._streams:
                self._streams[channel] -= 1

        call.add_done_callback(ended)
        return call

    def _open_channel(self) -> grpc.aio.Channel:
        channel = open_channel(self.address, self.credentials, list(CHANNEL_OPTIONS))
        self._streams[channel] = 0
        return channel

    async def wait_connected(self) -> None:
        """Until there is a connection to the daemon. Raises ZksideError if the client is closed meanwhile."""
        while (state := self.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await self.channel.wait_for_state_change(state)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        *,
        timeout_s: float | None = None,
        wait_for_ready: bool = False,
        writes: bool = False,
    ) -> Response:
        """One unary call. `timeout_s` None means the client's own.

        A connection can have so many calls at once, and those that the daemon has answered count for a moment longer
        than gRPC's client thinks: it sends the next ones too early, and only one time again. So what was refused
        unseen is sent again here, until the timeout.
        Raises the classes of zkside.errors; with `writes`, OutcomeUnknown when the daemon went away under it.
        Cancellation: the daemon drops the request if it was not sent on yet.
        """
        left_s = self.timeout_s if timeout_s is None else timeout_s
        end_s = time.monotonic() + left_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await method(
                    request,
                    timeout=left_s,
                    wait_for_ready=wait_for_ready,
                    metadata=WAIT_FOR_READY_METADATA if wait_for_ready else None,
                )
            except grpc.aio.AioRpcError as error:
                left_s = end_s - time.monotonic() - pause_s
                if left_s <= 0 or not fault.was_refused_unseen(error):
                    raise fault.of_rpc(error, self.address, writes=writes) from None
            await asyncio.sleep(pause_s * random.random())
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def hold(self, step: carry_pb2.CarryStep) -> Carried:
        """Ask for a hold, over the one stream of this client. Raises ZksideError if the client is closed."""
        return self._carrier.begin(self.channel, self.address, step)

    async def _ask(self) -> bool:
        """Whether the daemon answers."""
        try:
            await SessionServiceStub(self.channel).GetSession(session_pb2.GetSessionRequest(), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled. A child's copy is left as it is."""
        if self.is_inherited:
            return
        await self.pulse.close()
        self._closed = True
        await self._carrier.close()
        channels, self._streams, self._channel = list(self._streams), {}, None
        for channel in channels:
            await channel.close()
        if channels:
            forked.closed()
