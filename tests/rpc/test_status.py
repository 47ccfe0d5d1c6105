"""The error table: complete, honest, and small enough to travel."""

from __future__ import annotations

import ast
import inspect
import logging
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import zkside
from zkside import errors
from zkside.errors import InvalidArgument, NoNode, SessionSuspended, ZksideError
from zkside.rpc import convert, status

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, ZksideError)]


def unpacked(made: status.Status) -> tuple[status_pb2.Status, error_details_pb2.ErrorInfo]:
    parsed = status_pb2.Status.FromString(dict(made.trailers)[status.DETAILS_KEY])
    info = error_details_pb2.ErrorInfo()
    assert parsed.details[0].Unpack(info)
    return parsed, info


@pytest.mark.parametrize("error_type", CLASSES, ids=lambda each: each.__name__)
def test_every_error_has_a_row_of_its_own(error_type: type[ZksideError]) -> None:
    assert error_type in status.TABLE


INSIDE = (errors.ConnectionLoss, errors.StartError, errors.BadConfiguration)
"""Never told to a caller: a lost answer has an outcome, and the others would be a defect."""
CLIENTS_OWN = (errors.WaitTimeout,)
DOCUMENTED = {each.reason: row.code for each, row in status.TABLE.items() if row.when}


@pytest.mark.parametrize("error_type", CLASSES, ids=lambda each: each.__name__)
def test_every_error_travels_as_its_reason_and_code(error_type: type[ZksideError]) -> None:
    made = status.of(error_type("what happened", path="/a"))
    parsed, info = unpacked(made)
    assert made.code is not grpc.StatusCode.OK
    assert parsed.code == made.code.value[0]
    if error_type not in INSIDE:
        assert made.code is status.TABLE[error_type].code
        assert (info.reason, info.domain, dict(info.metadata)) == (error_type.reason, "zkside", {"path": "/a"})


@pytest.mark.parametrize("error_type", [*CLASSES, KeyError, OSError], ids=lambda each: each.__name__)
def test_whatever_is_raised_a_caller_hears_a_reason_and_a_code_of_the_table(error_type: type[Exception]) -> None:
    """Also what no handler should let pass. UNKNOWN is OUTCOME_UNKNOWN's alone."""
    made = status.of(error_type("what happened"))
    _, info = unpacked(made)
    if error_type not in CLIENTS_OWN:
        assert DOCUMENTED[info.reason] is made.code
    assert (made.code is grpc.StatusCode.UNKNOWN) == (info.reason == "OUTCOME_UNKNOWN")
    in_a_message = convert.failure(status.known(error_type("what happened")))
    assert in_a_message.reason == info.reason


def test_reasons_that_users_meet_are_documented_once() -> None:
    documented = [each.reason for each, row in status.TABLE.items() if row.when]
    assert len(set(documented)) == len(documented)
    text = status.table()
    assert all(f"`{reason}`" in text for reason in documented)


def test_a_suspended_session_says_when_to_try_again() -> None:
    parsed, _ = unpacked(status.of(SessionSuspended()))
    retry = error_details_pb2.RetryInfo()
    assert parsed.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == status.RETRY_AFTER_MS


def test_a_bad_field_is_named() -> None:
    parsed, _ = unpacked(status.of(InvalidArgument("too many", field="operations[3].create.path")))
    bad = error_details_pb2.BadRequest()
    assert parsed.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "operations[3].create.path"


def test_a_defect_leaks_nothing_but_an_incident_that_the_log_explains(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "zkside.rpc"):
        made = status.of(KeyError("the secret"), method="zkside.v1.NodeService/Get")
    _, info = unpacked(made)
    assert made.code is grpc.StatusCode.INTERNAL
    assert "secret" not in made.message
    assert info.metadata["incident"] in caplog.text
    assert "KeyError: 'the secret'" in caplog.text


def test_every_quota_says_which_limit_it_is() -> None:
    package = Path(zkside.__file__).parent
    calls = [
        (source, node)
        for source in package.rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("Quota", "Busy")
    ]
    assert len(calls) > 10
    unnamed = [
        f"{source}:{node.lineno}" for source, node in calls if "limit" not in {each.arg for each in node.keywords}
    ]
    assert unnamed == []


def test_metadata_that_had_to_be_cut_is_named() -> None:
    """O1: no program takes the beginning of a path for a path."""
    path = "/" + "x" * 1000
    made = status.of(NoNode(f"{path}: no such node", path=path, short="1"))
    _, info = unpacked(made)
    assert (info.metadata["truncated"], info.metadata["short"]) == ("path", "1")
    assert info.metadata["path"] == path[:299] + "…"
    assert made.message.endswith("x: no such node"), "what is wrong stands behind the path"
    _, info = unpacked(status.of(NoNode("many", **{f"key{number}": "x" for number in range(10)})))
    assert info.metadata["truncated"] == "key8,key9"
    _, info = unpacked(status.of(NoNode("whole", path=path[:300])))
    assert "truncated" not in info.metadata


def test_a_status_stays_within_what_clients_take_as_headers() -> None:
    """O1: a path may have 64 KiB, and a server may have sent what is no UTF-8."""
    path = "/" + "x\udcff" * 30_000
    made = status.of(NoNode(f"{path}: no such node", path=path, **{f"key{n}": path for n in range(50)}))
    unpacked(made)
    assert len(made.message.encode()) + sum(len(value) for _, value in made.trailers) < 6_000
