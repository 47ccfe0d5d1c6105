"""The JSON of Curator's service discovery: byte for byte what its JsonInstanceSerializer 5.9 wrote."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkside.errors import InvalidArgument
from zkside.model import record as records
from zkside.model.member import ServiceInstance, decode, encode, is_member
from zkside.model.stat import Stat

PLAIN = ServiceInstance("web", "i1", "10.0.0.1", 80, registration_time_ms=1700000000123)
FULL = ServiceInstance(
    name="web",
    id="i1",
    address="10.0.0.1",
    port=80,
    ssl_port=443,
    payload='{"@class":"J$P","a":1,"b":"x"}',
    registration_time_ms=1,
    uri_spec="{scheme}://{address}:{port}/x{y}",
    enabled=False,
)
BY_CURATOR = [
    (
        PLAIN,
        '{"name":"web","id":"i1","address":"10.0.0.1","port":80,"sslPort":null,"payload":null,'
        '"registrationTimeUTC":1700000000123,"serviceType":"DYNAMIC","uriSpec":null}',
    ),
    (
        FULL,
        '{"name":"web","id":"i1","address":"10.0.0.1","port":80,"sslPort":443,'
        '"payload":{"@class":"J$P","a":1,"b":"x"},"registrationTimeUTC":1,"serviceType":"DYNAMIC","uriSpec":{"parts":['
        '{"value":"scheme","variable":true},{"value":"://","variable":false},{"value":"address","variable":true},'
        '{"value":":","variable":false},{"value":"port","variable":true},{"value":"/x","variable":false},'
        '{"value":"y","variable":true}]},"enabled":false}',
    ),
    (
        ServiceInstance('wéb\u2028"/<', "i1", "h", payload='"pä\\u0001\\t"', registration_time_ms=1, uri_spec="plain"),
        '{"name":"wéb\u2028\\"/<","id":"i1","address":"h","port":null,"sslPort":null,"payload":"pä\\u0001\\t",'
        '"registrationTimeUTC":1,"serviceType":"DYNAMIC","uriSpec":{"parts":[{"value":"plain","variable":false}]}}',
    ),
]


@pytest.mark.parametrize(("instance", "text"), BY_CURATOR)
def test_an_instance_is_written_and_read_as_curator_does(instance: ServiceInstance, text: str) -> None:
    """H8."""
    assert encode(instance).decode() == text
    assert decode(text.encode()) == instance


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
PORTS = st.none() | st.integers(0, 65_535)
JSON = st.recursive(
    st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
INSTANCES = st.builds(
    ServiceInstance,
    name=TEXT,
    id=TEXT,
    address=TEXT,
    port=PORTS,
    ssl_port=PORTS,
    payload=st.just("") | JSON.map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))),
    registration_time_ms=st.integers(0, 253_402_300_799_999),
    uri_spec=st.lists(st.sampled_from(("{port}", "{a b}", "://", "x")), max_size=4).map("".join),
    enabled=st.none() | st.booleans(),
)


@given(INSTANCES)
def test_what_is_written_is_read(instance: ServiceInstance) -> None:
    data = encode(instance)
    assert data
    assert decode(data) == instance


@pytest.mark.parametrize(
    ("senseless", "field"),
    [
        (replace(PLAIN, port=65_536), "service.port"),
        (replace(PLAIN, ssl_port=1 << 31), "service.ssl_port"),
        (replace(PLAIN, payload="{"), "service.payload"),
        (replace(PLAIN, payload="NaN"), "service.payload"),
        (replace(PLAIN, payload="1,2"), "service.payload"),
        (replace(PLAIN, payload="[" * 100_000), "service.payload"),
        (replace(PLAIN, uri_spec="{a"), "service.uri_spec"),
        (replace(PLAIN, uri_spec="a}"), "service.uri_spec"),
        (replace(PLAIN, uri_spec="{a{b}}"), "service.uri_spec"),
    ],
)
def test_what_would_break_curators_clients_is_refused(senseless: ServiceInstance, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        encode(senseless)
    assert caught.value.field == field


REQUIRED = b'"name":"web","id":"i1","registrationTimeUTC":5'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"{",
        b"{}",
        b"[1]",
        b"\xff{",
        b'{"name":"web","id":"i1"}',
        b'{"name":"web","id":1,"registrationTimeUTC":5}',
        b'{"name":"web","id":"i1","registrationTimeUTC":true}',
        b'{"name":"web","id":"i1","registrationTimeUTC":1e3}',
        b'{"name":"web","id":"i1","registrationTimeUTC":253402300800000}',
        b'{"name":"web","id":"\\ud800","registrationTimeUTC":5}',
        b"{" + REQUIRED + b',"payload":1e999}',
        b"{" + REQUIRED + b',"payload":' + b"[" * 100_000,
        b"{" + REQUIRED + b',"payload":' + b"9" * 10_000 + b"}",
    ],
)
def test_other_data_is_no_instance(data: bytes) -> None:
    assert decode(data) is None


@given(st.binary() | st.binary().map(lambda tail: b"{" + REQUIRED + b"," + tail))
def test_no_data_is_too_odd_to_be_looked_at(data: bytes) -> None:
    """O1."""
    decode(data)


@pytest.mark.parametrize(
    "more",
    [b"", b',"port":"x","sslPort":3000000000,"uriSpec":[],"address":null,"enabled":1', b',"uriSpec":{"parts":[1,{}]}'],
)
def test_an_instance_with_odd_fields_is_read_without_them(more: bytes) -> None:
    assert decode(b"{" + REQUIRED + more + b"}") == ServiceInstance("web", "i1", registration_time_ms=5)


@pytest.mark.parametrize(
    ("owner", "data", "expected"),
    [
        (7, b"", True),
        (-2, b"", True),
        (0, b"notes", False),
        (0, encode(PLAIN), True),
    ],
)
def test_members_are_ephemeral_or_service_instances(owner: int, data: bytes, expected: bool) -> None:
    assert is_member(records.pack(data, Stat(1, 1, 0, 0, 0, 0, 0, owner, len(data), 0, 1))) == expected
