"""The lease: until when a host may believe, and when it must declare LOST."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zkside.core.lease import FAR, PROOFS, STRENGTHS, Lease, LeaseRules, Proof
from zkside.errors import StartError
from zkside.model.operation import Create, Delete, GetData, Operation, SetData, Sync

TIMEOUT_S = 10.0
NOW_NS = 1_000 * 10**9


def ns(seconds: float) -> int:
    return round(seconds * 1e9)


def lease(rules: LeaseRules | None = None, *, needed: bool = True) -> Lease:
    """Of a session that was connected at NOW_NS."""
    made = Lease(rules or LeaseRules())
    if needed:
        made.need(NOW_NS)
    made.begin(NOW_NS, TIMEOUT_S)
    return made


def strength(operation: Operation[object] | type) -> int:
    return STRENGTHS.get(operation if isinstance(operation, type) else type(operation), 0)


def test_the_lease_ends_a_timeout_less_the_margin_after_the_latest_proof_was_sent() -> None:
    counted = lease()
    counted.acknowledged(strength(Sync), NOW_NS + ns(0.5))
    assert counted.lease_ns == NOW_NS + ns(0.5 + 10 - 1.5)
    counted.acknowledged(strength(Sync), NOW_NS + ns(1.0))
    assert counted.lease_ns == NOW_NS + ns(1.0 + 10 - 1.5)


def test_nothing_is_proven_before_the_first_proof() -> None:
    counted = lease()
    assert counted.lease_ns == 0
    counted.acknowledged(strength(GetData), NOW_NS + ns(0.1))
    assert counted.lease_ns == 0


@pytest.mark.parametrize(
    ("proof", "counting"),
    [
        (Proof.PING, {"ping", "sync", "write"}),
        (Proof.SYNC, {"sync", "write"}),
        (Proof.WRITE, {"write"}),
    ],
)
def test_an_answer_counts_if_it_proves_at_least_what_was_chosen(proof: Proof, counting: set[str]) -> None:
    """S3: a ping or a read, which a follower answers by itself, moves the lease only where that was chosen."""
    for name, kind in {"ping": type(None), "sync": Sync, "write": SetData}.items():
        counted = lease(LeaseRules(proof))
        counted.acknowledged(strength(kind), NOW_NS + ns(0.1))
        assert (counted.lease_ns > 0) == (name in counting), name


@pytest.mark.parametrize("proof", list(Proof))
def test_what_is_asked_as_a_proof_counts_as_one(proof: Proof) -> None:
    assert strength(PROOFS[proof]) == proof.value


@pytest.mark.parametrize("kind", [Create, SetData, Delete])
def test_every_write_is_a_proof(kind: type) -> None:
    assert strength(kind) == Proof.WRITE.value


def test_the_margin_is_half_a_tick_plus_the_proof_interval() -> None:
    assert LeaseRules(tick_s=2.0, proof_interval_s=0.5).lease_margin_s(10.0) == 1.5


def test_half_a_tick_counts_for_a_quarter_of_the_timeout_at_most() -> None:
    assert LeaseRules(tick_s=60.0, proof_interval_s=0.5).lease_margin_s(10.0) == 3.0


@given(
    tick_s=st.floats(0.01, 100), interval_s=st.floats(0.01, 100), margin_s=st.none() | st.floats(0, 100),
    timeout_s=st.floats(0.1, 100),
)  # fmt: skip
def test_whatever_is_configured_leaves_half_of_the_timeout(
    tick_s: float, interval_s: float, margin_s: float | None, timeout_s: float
) -> None:
    assert LeaseRules(Proof.SYNC, interval_s, tick_s, margin_s).lease_margin_s(timeout_s) <= timeout_s / 2


def test_a_margin_can_be_given() -> None:
    counted = lease(LeaseRules(margin_s=3.0))
    counted.acknowledged(strength(Sync), NOW_NS + ns(0.5))
    assert counted.lease_ns == NOW_NS + ns(0.5 + 10 - 3)


@pytest.mark.parametrize("wrong", [{"proof_interval_s": 0.0}, {"tick_s": -1.0}, {"margin_s": -0.1}])
def test_rules_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(StartError):
        LeaseRules(**wrong)  # type: ignore[arg-type]


def test_lost_is_due_with_the_lease_while_something_is_owned() -> None:
    """S3."""
    counted = lease()
    counted.acknowledged(strength(Sync), NOW_NS + ns(0.5))
    counted.acknowledged(strength(GetData), NOW_NS + ns(5))
    assert counted.deadline_ns == counted.lease_ns == NOW_NS + ns(9.0)


def test_lost_is_due_a_timeout_after_the_latest_answer_of_any_kind_while_nothing_is_owned() -> None:
    counted = lease(needed=False)
    counted.acknowledged(strength(Sync), NOW_NS + ns(0.5))
    counted.acknowledged(strength(GetData), NOW_NS + ns(5))
    assert counted.deadline_ns == NOW_NS + ns(15)


def test_what_is_owned_from_now_on_has_a_lease_of_time_to_be_proven() -> None:
    counted = lease(needed=False)
    counted.acknowledged(strength(Sync), NOW_NS + ns(0.5))
    for second in range(1, 60):
        counted.acknowledged(strength(GetData), NOW_NS + ns(second))
    counted.need(NOW_NS + ns(60))
    assert counted.deadline_ns == NOW_NS + ns(60 + 8.5)
    assert counted.proof_due_ns() <= NOW_NS + ns(60)


def test_needing_proofs_anew_does_not_stretch_a_lease_that_still_runs() -> None:
    counted = lease()
    counted.acknowledged(strength(Sync), NOW_NS + ns(0.5))
    counted.need_no_more()
    counted.need(NOW_NS + ns(5))
    assert counted.deadline_ns == counted.lease_ns == NOW_NS + ns(9.0)


def test_proofs_are_due_one_interval_apart_and_only_while_they_are_needed() -> None:
    counted = lease(needed=False)
    assert counted.proof_due_ns() == FAR
    counted.need(NOW_NS)
    assert counted.proof_due_ns() <= NOW_NS
    counted.proof_sent(NOW_NS)
    assert counted.proof_due_ns() == NOW_NS + ns(0.5)
    counted.acknowledged(strength(SetData), NOW_NS + ns(0.4))
    assert counted.proof_due_ns() == NOW_NS + ns(0.9), "a write is a proof that nobody had to send"
    counted.need_no_more()
    assert counted.proof_due_ns() == FAR


def test_a_proof_is_due_at_once_after_a_reconnection() -> None:
    counted = lease()
    counted.proof_sent(NOW_NS)
    counted.connected(NOW_NS + ns(0.1), TIMEOUT_S)
    assert counted.proof_due_ns() <= NOW_NS + ns(0.1)


def test_a_reconnection_alone_proves_nothing() -> None:
    counted = lease()
    counted.acknowledged(strength(Sync), NOW_NS + ns(0.5))
    before = counted.lease_ns
    counted.connected(NOW_NS + ns(8), TIMEOUT_S)
    assert counted.lease_ns == counted.deadline_ns == before


def test_a_shorter_timeout_after_a_reconnection_does_not_move_the_lease_back() -> None:
    counted = lease()
    counted.acknowledged(strength(Sync), NOW_NS + ns(0.5))
    before = counted.lease_ns
    counted.connected(NOW_NS + ns(1), 4.0)
    assert counted.lease_ns == before


def test_nothing_of_a_lease_is_left_after_the_session() -> None:
    """S4."""
    counted = lease()
    counted.acknowledged(strength(Sync), NOW_NS + ns(0.5))
    counted.end()
    assert (counted.lease_ns, counted.deadline_ns, counted.proof_due_ns()) == (0, FAR, FAR)
    counted.acknowledged(strength(Sync), NOW_NS + ns(0.6))
    assert (counted.lease_ns, counted.deadline_ns) == (0, FAR)
    counted.begin(NOW_NS + ns(20), TIMEOUT_S)
    assert counted.lease_ns == 0


def test_the_first_proof_after_a_pause_counts_only_from_what_the_leader_surely_knows() -> None:
    counted = lease()
    counted.acknowledged(strength(Sync), NOW_NS + ns(0.5))
    counted.acknowledged(strength(Sync), NOW_NS + ns(4.0))
    assert counted.lease_ns == NOW_NS + ns(0.5 + 1.5 + 10 - 1.5), "from the activity before the pause"
    for tenth in range(1, 11):
        counted.acknowledged(strength(Sync), NOW_NS + ns(4.0 + tenth / 10))
    assert counted.lease_ns == NOW_NS + ns(5.0 + 10 - 1.5), "steady for half a tick"


@st.composite
def traffic(draw: st.DrawFn) -> list[tuple[float, bool]]:
    """When something was sent and answered, in seconds since the connection, and whether it was a proof."""
    pauses = draw(st.lists(st.tuples(st.floats(0.001, 4.0), st.booleans()), min_size=1, max_size=60))
    at_s, sent = 0.0, []
    for pause_s, is_proof in pauses:
        at_s += pause_s
        sent.append((at_s, is_proof))
    return sent


@settings(max_examples=200, deadline=None)
@given(
    sent=traffic(),
    tick_s=st.floats(0.2, 5.0),
    phase=st.floats(0, 1, exclude_max=True),
    interval_s=st.floats(0.05, 2.0),
)
def test_no_lease_outlives_what_a_leader_that_was_just_cut_off_knows(
    sent: list[tuple[float, bool]], tick_s: float, phase: float, interval_s: float
) -> None:
    """S3, H1: against a model of the leader. It hears of a session's activity only with its follower's answers
    to its pings, every half tick, and ends the session a timeout after the last one that named it. The
    network breaks right after the latest answer, the worst of all instants."""
    counted = lease(LeaseRules(Proof.SYNC, interval_s, tick_s))
    half_tick_s = tick_s / 2
    known_s = 0.0
    ping_s = phase * half_tick_s
    unreported: float | None = None
    for at_s, is_proof in sent:
        while ping_s <= at_s:
            if unreported is not None:
                known_s, unreported = ping_s, None
            ping_s += half_tick_s
        unreported = at_s
        counted.acknowledged(strength(Sync) if is_proof else 0, NOW_NS + ns(at_s))
        assert counted.lease_ns <= NOW_NS + ns(known_s + TIMEOUT_S) + 1000
