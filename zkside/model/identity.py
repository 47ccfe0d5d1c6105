"""Floor 1: who calls, as far as the transport knows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")


class Auth(Enum):
    """What a listener demands of its callers beyond being able to connect."""

    NONE = "none"
    TOKEN = "token"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True)
class Peer:
    """What the transport knows of the caller of one RPC.

    Which identity that makes is the policy's decision. Nothing here is taken on the caller's word, but for a
    `token` that no name in `names` stands for.
    """

    listener: str
    """The address of the listener that it came by, as configured: "unix:/run/zkside/app.sock", "0.0.0.0:7443"."""
    listener_identity: str = ""
    """The identity that the listener itself gives to whoever can connect to it; '' if it gives none."""
    names: tuple[str, ...] = ()
    """What the caller has proven to be called: of its verified client certificate "uri:spiffe://…", "dns:…" and
    "cn:…" (in this order, those of one kind as the certificate has them), of its known token "token:NAME"."""
    token: str = field(default="", repr=False)
    """The bearer token that it sent; '' if none. A secret: never printed, logged or put into an error."""
    address: str = ""
    """Its own address, as gRPC has it: "ipv4:127.0.0.1:40112"; of a Unix socket only "unix:"."""


def is_name(text: str) -> bool:
    """Whether an identity, or a token, may be called this: letters, digits, and . _ @ - but not in front."""
    return _NAME.fullmatch(text) is not None
