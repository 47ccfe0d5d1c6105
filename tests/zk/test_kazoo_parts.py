"""What zkside takes from kazoo has the shapes that it relies on."""

from __future__ import annotations

import struct
from importlib.metadata import version

import pytest

from zkside.model.operation import Create
from zkside.zk import kazoo_parts, refusals


def test_kazoo_is_the_pinned_release() -> None:
    assert version("kazoo") == kazoo_parts.KAZOO_VERSION == "2.11.0"


def test_the_opcodes_are_zookeepers() -> None:
    opcodes = kazoo_parts.PING_OPCODE, kazoo_parts.CLOSE_OPCODE, kazoo_parts.AUTH_OPCODE, kazoo_parts.SASL_OPCODE
    assert opcodes == (11, -11, 100, 102)


def test_a_connect_request_has_zookeepers_layout() -> None:
    request = kazoo_parts.connect_request(
        last_zxid=7, timeout_ms=3000, session_id=-9, password=b"p" * 16, read_only=True
    )
    assert request == struct.pack("!iqiqi16sB", 0, 7, 3000, -9, 16, b"p" * 16, 1)


@pytest.mark.parametrize("tail", [b"\1", b"\0", b""], ids=["read-only", "writable", "before 3.4"])
def test_a_connect_response_is_read_with_and_without_the_read_only_byte(tail: bytes) -> None:
    frame = struct.pack("!iiqi16s", 0, 3000, -9, 16, b"p" * 16) + tail
    assert kazoo_parts.connect_response(frame) == (3000, -9, b"p" * 16, tail == b"\1")


def test_a_short_connect_response_is_a_struct_error() -> None:
    with pytest.raises(struct.error):
        kazoo_parts.connect_response(b"HTTP")


def test_authentication_packets_have_zookeepers_layout() -> None:
    assert kazoo_parts.auth_body("digest", "ann:x") == struct.pack("!ii6si5s", 0, 6, b"digest", 5, b"ann:x")
    assert kazoo_parts.sasl_body(b"token") == struct.pack("!i5s", 5, b"token")
    assert kazoo_parts.sasl_token(b"header" + struct.pack("!i5s", 5, b"token"), 6) == b"token"
    assert kazoo_parts.sasl_token(struct.pack("!i", -1), 0) == b""


def test_a_digest_id_is_the_one_that_servers_compute() -> None:
    """The example of ZooKeeper's administrator's guide: DigestAuthenticationProvider super:test."""
    assert kazoo_parts.digest_id("super", "test") == "super:D/InIHSb7yEEbrWz8b9l71RjZJU="


def test_every_error_code_has_a_class_and_a_text_with_the_path() -> None:
    codes = dict(kazoo_parts.exceptions.EXCEPTIONS)
    assert set(codes) == set(refusals.BY_CODE)
    for code in codes:
        error = refusals.refusal(code, Create("/some/path"))
        assert type(error) is refusals.BY_CODE[code]
        assert "/some/path" in str(error)
        assert error.metadata["path"] == "/some/path"


def test_an_error_code_of_the_future_leaves_the_outcome_unknown() -> None:
    assert "-4711" in str(refusals.refusal(-4711, Create("/a")))
    assert refusals.refusal(-4711, Create("/a")).reason == "OUTCOME_UNKNOWN"
