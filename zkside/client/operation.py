"""Writes as messages, and their results as values: for single calls, transactions and pipelines alike."""

from __future__ import annotations

from collections.abc import Sequence

from zkside.client import fault
from zkside.client.answer import CheckAnswer, CreateAnswer, DeleteAnswer, SetAnswer, WriteAnswer
from zkside.client.value import Acl, CreateMode, Header, acl_messages, duration, stat_of
from zkside.errors import ZksideError
from zkside.pb import node_pb2


def create_request(
    path: str,
    data: bytes = b"",
    *,
    mode: CreateMode = CreateMode.PERSISTENT,
    ttl_s: float | None = None,
    acl: Sequence[Acl] | None = None,
    make_parents: bool = False,
    daemon_lifetime: bool = False,
    protected: bool = False,
) -> node_pb2.CreateRequest:
    return node_pb2.CreateRequest(
        path=path,
        data=data,
        mode=mode.number,
        ttl=None if ttl_s is None else duration(ttl_s),
        acl=acl_messages(list(acl) if acl else None),
        make_parents=make_parents,
        daemon_lifetime=daemon_lifetime,
        protected=protected,
    )


def set_request(path: str, data: bytes, *, version: int | None = None) -> node_pb2.SetRequest:
    return node_pb2.SetRequest(path=path, data=data, expected_version=version)


def delete_request(path: str, *, version: int | None = None, recursive: bool = False) -> node_pb2.DeleteRequest:
    return node_pb2.DeleteRequest(path=path, expected_version=version, recursive=recursive)


def check_request(path: str, *, version: int | None = None) -> node_pb2.CheckRequest:
    return node_pb2.CheckRequest(path=path, expected_version=version)


def create_answer(message: node_pb2.CreateResponse, header: Header) -> CreateAnswer:
    return CreateAnswer(header, message.path, stat_of(message.stat) if message.HasField("stat") else None)


def result_of(message: node_pb2.OperationResult, header: Header) -> WriteAnswer | ZksideError:
    """One operation's result; a failure is an error that was not raised."""
    kind = message.WhichOneof("result")
    if kind == "create":
        return create_answer(message.create, header)
    if kind == "set":
        return SetAnswer(header, stat_of(message.set.stat))
    if kind == "delete":
        return DeleteAnswer(header, message.delete.deleted)
    if kind == "check":
        return CheckAnswer(header)
    return fault.of_failure(message.failure)
