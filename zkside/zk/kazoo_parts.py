"""All that zkside takes from kazoo, pinned to 2.11.0. Nothing else in the daemon imports kazoo.

kazoo has no types: here they begin. tests/zk/test_kazoo_parts.py holds kazoo to the shapes relied on, so that
a new release is refused by a test and not by a user. What is not taken, and why: docs/adr/0001.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import kazoo.exceptions
import kazoo.protocol.serialization
import kazoo.security

exceptions: Any = kazoo.exceptions
_serialization: Any = kazoo.protocol.serialization
_security: Any = kazoo.security

KAZOO_VERSION = "2.11.0"

PING_OPCODE: int = _serialization.PingInstance.type
CLOSE_OPCODE: int = _serialization.CloseInstance.type
AUTH_OPCODE: int = _serialization.Auth.type
SASL_OPCODE: int = _serialization.SASL.type


class Greeting(NamedTuple):
    """A server's answer to the request for a session."""

    timeout_ms: int
    """0 or less: the session asked for is gone."""
    session_id: int
    password: bytes
    read_only: bool


def connect_request(*, last_zxid: int, timeout_ms: int, session_id: int, password: bytes, read_only: bool) -> bytes:
    """The body of the first packet of a connection."""
    request = _serialization.Connect(0, last_zxid, timeout_ms, session_id, password, read_only)
    return bytes(request.serialize())


def connect_response(frame: bytes) -> Greeting:
    """Raises struct.error when it is none."""
    answer, _ = _serialization.Connect.deserialize(frame, 0)
    return Greeting(answer.time_out, answer.session_id, answer.passwd or b"", answer.read_only)


def auth_body(scheme: str, credential: str) -> bytes:
    """The body of an auth packet."""
    return bytes(_serialization.Auth(0, scheme, credential).serialize())


def sasl_body(token: bytes) -> bytes:
    """The body of one step of a SASL negotiation."""
    return bytes(_serialization.SASL(token).serialize())


def sasl_token(frame: bytes, offset: int) -> bytes:
    """The server's side of one step."""
    token, _ = _serialization.SASL.deserialize(frame, offset)
    return token or b""


def digest_id(username: str, password: str) -> str:
    """The id of an Acl entry of the scheme 'digest'."""
    return str(_security.make_digest_acl_credential(username, password))


def error_text(code: int) -> str:
    """ZooKeeper's words for an error code."""
    kind = exceptions.EXCEPTIONS.get(code)
    if kind is None:
        return f"ZooKeeper answered with the unknown error code {code}"
    return " ".join((kind.__doc__ or kind.__name__).split())
