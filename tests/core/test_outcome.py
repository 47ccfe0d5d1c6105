"""The verdicts on lost answers: pure."""

from __future__ import annotations

import pytest

from zkside.core import outcome
from zkside.core.outcome import Outcome
from zkside.model.operation import Check, Create, CreateMode, Delete, SetData
from zkside.model.stat import Stat

BEFORE = 100
US = 7


def stat(czxid: int = 10, mzxid: int = 0, pzxid: int = 0, version: int = 0, owner: int = 0, aversion: int = 0) -> Stat:
    return Stat(czxid, mzxid or czxid, 0, 0, version, 0, aversion, owner, 0, 0, pzxid or czxid)


QUIET, BUSY = stat(pzxid=BEFORE), stat(pzxid=BEFORE + 5)


@pytest.mark.parametrize(
    ("node", "parent", "expected"),
    [
        (stat(czxid=BEFORE), QUIET, Outcome.NOT_APPLIED),
        (stat(czxid=BEFORE + 1), BUSY, Outcome.UNKNOWN),
        (None, QUIET, Outcome.NOT_APPLIED),
        (None, BUSY, Outcome.UNKNOWN),
        (None, None, Outcome.UNKNOWN),
    ],
)
def test_a_plain_create_is_sent_again_only_if_nothing_can_have_come_of_it(
    node: Stat | None, parent: Stat | None, expected: Outcome
) -> None:
    """N2."""
    assert outcome.of_create(node, parent, BEFORE, ephemeral=False, session_id=US) is expected


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (stat(czxid=BEFORE + 1, owner=US), Outcome.APPLIED),
        (stat(czxid=BEFORE, owner=US), Outcome.NOT_APPLIED),
        (stat(czxid=BEFORE + 1, owner=US + 1), Outcome.NOT_APPLIED),
        (None, Outcome.NOT_APPLIED),
    ],
)
def test_an_ephemeral_create_is_known_by_its_owner(node: Stat | None, expected: Outcome) -> None:
    """N2."""
    assert outcome.of_create(node, BUSY, BEFORE, ephemeral=True, session_id=US) is expected


@pytest.mark.parametrize(
    ("node", "version", "expected"),
    [
        (stat(mzxid=BEFORE), -1, Outcome.NOT_APPLIED),
        (stat(mzxid=BEFORE + 1), -1, Outcome.UNKNOWN),
        (stat(mzxid=BEFORE + 1, version=4), 4, Outcome.NOT_APPLIED),
        (stat(mzxid=BEFORE + 1, version=5), 4, Outcome.UNKNOWN),
        (stat(czxid=BEFORE + 1, version=0), 4, Outcome.UNKNOWN),
        (None, -1, Outcome.UNKNOWN),
    ],
)
def test_a_set_was_not_applied_if_the_node_is_older_or_cannot_have_its_version(
    node: Stat | None, version: int, expected: Outcome
) -> None:
    assert outcome.of_set(node, BEFORE, version) is expected


def test_a_delete_was_not_applied_if_the_same_node_is_still_there() -> None:
    assert outcome.of_delete(stat(czxid=BEFORE), BEFORE) is Outcome.NOT_APPLIED
    assert outcome.of_delete(stat(czxid=BEFORE + 1), BEFORE) is Outcome.UNKNOWN
    assert outcome.of_delete(None, BEFORE) is Outcome.UNKNOWN


def test_an_acl_leaves_no_zxid_so_only_its_version_tells() -> None:
    assert outcome.of_set_acl(stat(aversion=2), BEFORE, 2) is Outcome.NOT_APPLIED
    assert outcome.of_set_acl(stat(aversion=3), BEFORE, 2) is Outcome.UNKNOWN
    assert outcome.of_set_acl(stat(), BEFORE, -1) is Outcome.UNKNOWN


def test_one_untouched_step_shows_that_a_transaction_was_not_applied() -> None:
    """N1."""
    old, new = stat(), stat(czxid=BEFORE + 1)
    assert outcome.of_step(SetData("/a", b""), old, QUIET, BEFORE) is Outcome.NOT_APPLIED
    assert outcome.of_step(Delete("/a"), old, QUIET, BEFORE) is Outcome.NOT_APPLIED
    assert outcome.of_step(Create("/a"), old, BUSY, BEFORE) is Outcome.NOT_APPLIED
    assert outcome.of_step(Create("/a"), None, QUIET, BEFORE) is Outcome.NOT_APPLIED
    assert outcome.of_step(Create("/a"), new, BUSY, BEFORE) is Outcome.UNKNOWN
    sequential = Create("/a-", mode=CreateMode.PERSISTENT_SEQUENTIAL)
    assert outcome.of_step(sequential, old, BUSY, BEFORE) is Outcome.UNKNOWN
    assert outcome.of_step(sequential, None, QUIET, BEFORE) is Outcome.NOT_APPLIED
    assert outcome.of_step(Check("/a"), old, QUIET, BEFORE) is Outcome.UNKNOWN
