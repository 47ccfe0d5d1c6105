"""Errors on their way from the daemon to the SDK."""

from __future__ import annotations

import grpc
import pytest

from zkside import errors
from zkside.client import fault
from zkside.errors import ZksideError
from zkside.rpc import status

NEVER_SENT = (errors.ConnectionLoss, errors.StartError, errors.BadConfiguration)
"""Those of the daemon's own: a caller hears the outcome of what was lost, or of an incident."""


def classes() -> list[type[ZksideError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ZksideError)]
    return [kind for kind in kinds if kind not in NEVER_SENT]


def received(error: ZksideError) -> ZksideError:
    """What a client makes of an error that a daemon sends."""
    sent = status.of(error)
    return fault.of_rpc(
        grpc.aio.AioRpcError(sent.code, grpc.aio.Metadata(), grpc.aio.Metadata(*sent.trailers), details=sent.message),
        "unix:/x",
    )


def test_the_tables_of_daemon_and_client_know_the_same_reasons() -> None:
    assert set(fault.BY_REASON) == {kind.reason for kind in status.TABLE}


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_every_error_arrives_as_the_class_of_its_reason(kind: type[ZksideError]) -> None:
    arrived = received(kind("what happened", path="/a"))
    assert arrived.reason == kind.reason
    assert isinstance(arrived, fault.BY_REASON[kind.reason])
    assert str(arrived) == "what happened"
    assert arrived.metadata == {"path": "/a"}


def test_a_field_that_is_at_fault_is_named() -> None:
    arrived = received(errors.InvalidPath("empty name", field="paths[3]"))
    assert isinstance(arrived, errors.InvalidPath)
    assert arrived.field == "paths[3]"


def test_a_reason_of_a_newer_daemon_is_kept() -> None:
    class Newer(ZksideError):
        reason = "NOT_INVENTED_YET"

    arrived = received(Newer("from the future"))
    assert type(arrived) is ZksideError
    assert (arrived.reason, str(arrived)) == ("NOT_INVENTED_YET", "from the future")
