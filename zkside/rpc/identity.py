"""Who calls: from what gRPC knows of a connection and of a call to a Peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from zkside.errors import Unauthenticated
from zkside.model.identity import Auth, Peer
from zkside.rpc.listeners import Listener, UnixListener
from zkside.rpc.tokens import Tokens

TOKEN_KEY = "authorization"

Context = grpc.aio.ServicerContext[Any, Any]

_NAMES = (("peer_uri", "uri:"), ("peer_dns", "dns:"), ("x509_common_name", "cn:"))
"""gRPC's properties of a verified client certificate, and the prefix of the names in each."""


class Door:
    """One listener with its way to tell callers apart, and what it demands of them."""

    def __init__(self, listener: Listener, tokens: Callable[[], Tokens] | None = None) -> None:
        """`tokens`: the ones known now; None where there are none, and then what callers send is not looked at."""
        self.listener = listener
        self._tokens = tokens
        is_constant = tokens is None and isinstance(listener, UnixListener)
        # Whoever can connect is the same to us: gRPC tells no more of a Unix socket.
        self._peer = Peer(listener.address, listener.identity, address="unix:") if is_constant else None

    def peer(self, context: Context) -> Peer:
        """The caller, its token checked, and the token's name among its names.

        Raises: Unauthenticated; the message names neither the token nor a name that would have been right.
        """
        if self._peer is not None:
            return self._peer
        names = () if isinstance(self.listener, UnixListener) or not self.listener.tls else _names(context)
        token = ""
        if self._tokens is not None:
            token = _token(context)
            if token:
                names = (*names, f"token:{self._tokens().name_of(token)}")
        if self.listener.auth is Auth.TOKEN and not token:
            raise Unauthenticated(
                "this listener wants a bearer token: send the metadata `authorization: Bearer …` "
                "(in the SDK token_file, in the command line --token-file or ZKSIDE_TOKEN_FILE)"
            )
        if self.listener.auth is Auth.CERTIFICATE and not names:
            raise Unauthenticated("this listener wants a client certificate that names its owner: uri, dns or cn")
        return Peer(self.listener.address, self.listener.identity, names, token, context.peer())


def _names(context: Context) -> tuple[str, ...]:
    known = context.auth_context()
    return tuple(
        prefix + name.decode("utf-8", "backslashreplace")
        for key, prefix in _NAMES
        for name in known.get(key, ())
        if name
    )


def _token(context: Context) -> str:
    """'' if the call has none."""
    for key, value in context.invocation_metadata() or ():
        if key == TOKEN_KEY:
            scheme, _, token = str(value).partition(" ")
            token = token.strip()
            if scheme.lower() != "bearer" or not token:
                raise Unauthenticated("the metadata `authorization` is not `Bearer` and a token")
            return token
    return ""
