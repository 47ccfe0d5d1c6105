"""The codec, without a server: completeness, chroots, and bytes that make no sense."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkside import errors
from zkside.model import operation as model
from zkside.model.operation import Operation
from zkside.model.stat import Stat
from zkside.zk import jute, wire

PATHS = ("/", "/a", "/a/b", "/ünïcödé", "/aa")

EXAMPLES: list[Operation[Any]] = [
    model.GetData("/a"),
    model.Exists("/a"),
    model.GetChildren("/a"),
    model.ReadMany((model.GetData("/a"), model.GetChildren("/b"))),
    model.Create("/a", b"data"),
    model.SetData("/a", b"data"),
    model.Delete("/a"),
    model.Transaction((model.Create("/a"), model.SetData("/b", b""), model.Delete("/c"), model.Check("/d"))),
    model.Sync("/a"),
    model.GetAcl("/a"),
    model.SetAcl("/a", model.OPEN_ACL),
    model.AddWatch("/a"),
    model.RemoveWatch("/a"),
    model.GetEphemerals(),
    wire.ArmData("/a"),
    wire.ArmChildren("/a"),
    wire.SaslStep(b"token"),
]


def test_every_operation_of_the_model_is_encoded() -> None:
    operations = {
        kind
        for kind in vars(model).values()
        if isinstance(kind, type) and issubclass(kind, Operation) and kind is not Operation
    }
    assert operations <= set(wire.CODECS)


def test_a_check_alone_is_refused_before_it_is_sent() -> None:
    with pytest.raises(errors.InvalidArgument):
        wire.CODECS[model.Check].encode(model.Check("/a"), "")


@pytest.mark.parametrize("root", ["", "/app", "/app/below"])
def test_a_path_goes_out_and_comes_back(root: str) -> None:
    for path in PATHS:
        assert jute.inside(jute.outside(path, root), root) == path


@pytest.mark.parametrize("path", ["/", "/ap", "/application", "/application/x", "/other"])
def test_names_are_compared_whole(path: str) -> None:
    assert jute.inside(path, "/app") is None


@pytest.mark.parametrize(("path", "sent"), [("/", "/app/"), ("/q/", "/app/q/"), ("/q/n-", "/app/q/n-")])
def test_a_sequential_name_may_be_the_number_alone(path: str, sent: str) -> None:
    create = model.Create(path, mode=model.CreateMode.PERSISTENT_SEQUENTIAL)
    body = wire.CODECS[model.Create].encode(create, "/app")
    assert body[8 : 8 + len(sent)] == sent.encode()
    assert struct.unpack_from("!i", body, 4) == (len(sent),)


def test_a_null_as_data_is_an_empty_record() -> None:
    """Java clients can create nodes with no data at all."""
    stat = Stat(*range(11)).pack()
    reply = bytes(wire.BODY) + struct.pack("!i", -1) + stat
    assert wire.CODECS[model.GetData].decode(reply, model.GetData("/a"), "") == stat
    many = bytes(wire.BODY) + struct.pack("!iBii", 4, 0, 0, -1) + stat + struct.pack("!iBi", -1, 1, -1)
    assert wire.CODECS[model.ReadMany].decode(many, model.ReadMany((model.GetData("/a"),)), "") == [stat]


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=300), example=st.sampled_from(EXAMPLES), root=st.sampled_from(["", "/app"]))
def test_bytes_that_are_no_reply_are_a_named_error(body: bytes, example: Operation[Any], root: str) -> None:
    """O1: towards the server, too."""
    with contextlib.suppress(ValueError, struct.error, IndexError):
        wire.CODECS[type(example)].decode(bytes(wire.BODY) + body, example, root)


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=100))
def test_bytes_that_are_no_event_are_a_named_error(body: bytes) -> None:
    with contextlib.suppress(ValueError, struct.error):
        wire.decode_event(bytes(wire.BODY) + body)
