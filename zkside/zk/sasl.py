"""SASL: who we are, shown to the server in steps (the mechanisms come from the package pure-sasl)."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from zkside.errors import StartError

MECHANISMS = ("DIGEST-MD5", "PLAIN", "GSSAPI")

# ZooKeeper's servers do not use their host name for DIGEST-MD5 but this (its SecurityUtils.createSaslClient).
_DIGEST_REALM = "zk-sasl-md5"


@dataclass(frozen=True, slots=True)
class SaslSettings:
    """How to authenticate. GSSAPI takes its credentials from the Kerberos cache."""

    mechanism: str
    username: str = ""
    password: str = field(default="", repr=False)
    service: str = "zookeeper"


class SaslError(Exception):
    """The negotiation failed for a reason that trying again will not cure."""


def check(settings: SaslSettings) -> None:
    """Raises: StartError if the mechanism is unknown or what it needs is not installed."""
    if settings.mechanism not in MECHANISMS:
        raise StartError(f"unknown SASL mechanism {settings.mechanism!r}; there are {', '.join(MECHANISMS)}")
    _load("puresasl.client", f"SASL {settings.mechanism} needs the package pure-sasl")
    if settings.mechanism == "GSSAPI":
        _load("kerberos", "SASL GSSAPI needs the package kerberos and the system's Kerberos libraries")


def _load(module: str, needed: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise StartError(f"{needed}: {error}") from error


async def negotiate(settings: SaslSettings, host: str, step: Callable[[bytes], Awaitable[bytes]]) -> None:
    """Send tokens through `step`, each answered by the server's, until both sides are content.

    Raises: SaslError; what `step` raises.
    """
    client = _load("puresasl.client", "SASL needs the package pure-sasl").SASLClient(
        host=_DIGEST_REALM if settings.mechanism == "DIGEST-MD5" else host,
        service=settings.service,
        mechanism=settings.mechanism,
        username=settings.username,
        password=settings.password,
    )
    challenge: bytes | None = None
    try:
        while not client.complete:
            try:
                token = client.process(challenge=challenge)
            # pure-sasl lets errors of many kinds out; each says that this server and these credentials do
            # not go together.
            except Exception as error:
                raise SaslError(f"{type(error).__name__}: {error}") from error
            if client.complete and not token:
                return
            challenge = await step(token or b"")
    finally:
        client.dispose()
