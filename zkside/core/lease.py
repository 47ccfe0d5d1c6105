"""The lease: until when this host may believe that its session, and with it what it owns, still exists.

    lease = send time of the latest answered proof + negotiated timeout - margin

**Why not from any answer.** A follower that is cut off from its leader goes on answering reads and pings for
seconds, while the leader counts the session's timeout and gives its ephemerals away (docs/session.md has
the measurement). Only an answer that the leader had a part in shows that the leader has heard of the session:

* PING: any answer counts. Right for a standalone server only.
* SYNC: the answer to `sync` counts; it comes through the leader. What is left is a leader that has been
  deposed and has not noticed yet.
* WRITE: only an answered write counts, a refused one too: ZooKeeper puts the refusal through the quorum as
  an error transaction. An answered write counts under SYNC and PING as well.

**Why the send time.** The leader cannot have heard of the session later than that for this proof; counting
from the answer would add the time that the answer was under way.

**Why a margin.** The leader does not see the proof itself as a sign of life. A follower notes that the
session was active and passes its notes on with its answer to the leader's ping, every half tick, in the same
ordered stream as the proofs. So when a proof sent at T is answered, the leader surely knows of whatever the
session did up to half a tick before T, and perhaps of nothing later. With a proof in every interval, that
is at most `tick / 2 + proof_interval` before T: the margin. Half a tick is taken as a quarter of the timeout
at most, because servers grant no timeout below two ticks unless their tick is shorter than we think.

**After a pause** the last activity known to the leader may be older. Then the proof counts only from that
activity plus the margin, until the proofs have come steadily for half a tick. A (re)connection needs no
such patience: the leader itself confirmed the session for it.

**What it rests on.** That CLOCK_BOOTTIME and the leader's clock run at the same rate to within what is left
of the margin, and that nobody but the leader ends the session. Work that must be safe even when this does
not hold needs the fencing token; the lease is what makes asking cheap.

All times are nanoseconds of CLOCK_BOOTTIME; this module reads no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

from zkside.errors import StartError
from zkside.model.operation import Check, Create, Delete, Exists, Operation, SetAcl, SetData, Sync, Transaction


class Proof(Enum):
    """What has to be answered to count; the values grow with what an answer proves."""

    PING = 0
    SYNC = 1
    WRITE = 2


STRENGTHS: Mapping[type, int] = MappingProxyType(
    {
        Sync: Proof.SYNC.value,
        Create: Proof.WRITE.value,
        SetData: Proof.WRITE.value,
        Delete: Proof.WRITE.value,
        SetAcl: Proof.WRITE.value,
        Transaction: Proof.WRITE.value,
    }
)
"""What the answer to an operation proves; for all others, and for a ping, that is Proof.PING.value."""

PING_STRENGTH = Proof.PING.value

# A check is a write to ZooKeeper: the transaction goes through the quorum like every other, though it
# changes nothing and needs no node of its own.
PROOFS: Mapping[Proof, Operation[Any]] = MappingProxyType(
    {Proof.PING: Exists("/"), Proof.SYNC: Sync("/"), Proof.WRITE: Transaction((Check("/"),))}
)
"""What to ask so that the answer proves as much."""


@dataclass(frozen=True, slots=True)
class LeaseRules:
    """How proofs are made and counted."""

    proof: Proof = Proof.SYNC
    proof_interval_s: float = 0.5
    tick_s: float = 2.0
    """The server's tickTime; it is not told to clients."""
    margin_s: float | None = None
    """Replaces the margin that is worked out from the tick and the proof interval."""

    def __post_init__(self) -> None:
        if self.proof_interval_s <= 0 or self.tick_s <= 0:
            raise StartError("the lease's proof interval and the server's tick must be more than 0 s")
        if self.margin_s is not None and self.margin_s < 0:
            raise StartError("the lease's margin must not be negative")

    def half_tick_s(self, timeout_s: float) -> float:
        """How long a follower may keep to itself that the session was active."""
        return min(self.tick_s / 2, timeout_s / 4)

    def lease_margin_s(self, timeout_s: float) -> float:
        """At most half of the timeout: a lease that ends before it begins would lose every session."""
        margin_s = self.margin_s
        if margin_s is None:
            margin_s = self.half_tick_s(timeout_s) + self.proof_interval_s
        return min(margin_s, timeout_s / 2)


class Lease:
    """The machine that counts; fed by the session with what was answered and when that had been sent.

    Invariants: `lease_ns` never goes back within a session; while proofs are needed and the lease is in the
    future, `deadline_ns == lease_ns`, so that nobody is told HELD after LOST was due.
    """

    __slots__ = (
        "_active_ns",
        "_attempt_ns",
        "_contact_ns",
        "_half_tick_ns",
        "_heard_until_ns",
        "_interval_ns",
        "_needed",
        "_proof_ns",
        "_proven_until_ns",
        "_slack_ns",
        "_span_ns",
        "_strength",
        "_timeout_ns",
        "_unproven_since_ns",
        "deadline_ns",
        "lease_ns",
        "rules",
    )

    def __init__(self, rules: LeaseRules) -> None:
        self.rules = rules
        self._strength = rules.proof.value
        self._interval_ns = round(rules.proof_interval_s * 1e9)
        self._needed = False
        # When the session was active, oldest first; the first entry is one that the leader knows of.
        self._active_ns: deque[int] = deque()
        self.end()

    def end(self) -> None:
        """There is no session (any more)."""
        self._active_ns.clear()
        self._contact_ns = self._proof_ns = self._attempt_ns = self._unproven_since_ns = 0
        self._timeout_ns = self._span_ns = self._half_tick_ns = self._slack_ns = 0
        self._heard_until_ns = self._proven_until_ns = 0
        self.lease_ns = 0
        """Until when what the session owns may be believed in; 0 while nothing is proven."""
        self.deadline_ns = FAR
        """When LOST must be declared; FAR while there is no session to lose."""

    def begin(self, now_ns: int, timeout_s: float) -> None:
        """There is another session: a new one, or one to be taken up. Nothing of it is proven yet."""
        self.end()
        self._unproven_since_ns = now_ns
        self.connected(now_ns, timeout_s)

    def connected(self, now_ns: int, timeout_s: float) -> None:
        """A connection to the present session is up, with this timeout.

        Counts as contact and as activity that the leader knows of, since the leader confirmed the session
        during the handshake, but not as a proof: when that was asked is not known here. A proof is due at
        once.
        """
        self._timeout_ns = round(timeout_s * 1e9)
        self._span_ns = self._timeout_ns - round(self.rules.lease_margin_s(timeout_s) * 1e9)
        self._half_tick_ns = round(self.rules.half_tick_s(timeout_s) * 1e9)
        self._slack_ns = self._half_tick_ns + self._interval_ns
        self._contact_ns = max(self._contact_ns, now_ns)
        self._active_ns.clear()
        self._active_ns.append(now_ns)
        self._attempt_ns = self._heard_until_ns = self._proven_until_ns = 0
        if self._proof_ns:
            self.lease_ns = max(self.lease_ns, self._proof_ns + self._span_ns)
        elif self._unproven_since_ns:
            self._unproven_since_ns = now_ns
        self._set_deadline()

    def acknowledged(self, strength: int, sent_ns: int) -> None:
        """The server answered what was sent then. Answers come in the order of sending."""
        # Thousands of answers in a second move the lease no further than a few: the next ones are skipped.
        is_proof = strength >= self._strength
        if sent_ns < (self._proven_until_ns if is_proof else self._heard_until_ns):
            return
        self._heard_until_ns = sent_ns + (self._interval_ns >> 4)
        self._contact_ns = max(self._contact_ns, sent_ns)
        active_ns = self._active_ns
        if active_ns and sent_ns - active_ns[-1] > self._interval_ns >> 2:
            active_ns.append(sent_ns)
        known_ns = sent_ns - self._half_tick_ns
        while len(active_ns) > 1 and active_ns[1] <= known_ns:
            active_ns.popleft()
        if is_proof and active_ns:
            self._proven_until_ns = self._heard_until_ns
            self._attempt_ns = max(self._attempt_ns, sent_ns)
            from_ns = min(sent_ns, active_ns[0] + self._slack_ns)
            if from_ns > self._proof_ns:
                self._proof_ns = from_ns
                self._unproven_since_ns = 0
                self.lease_ns = max(self.lease_ns, from_ns + self._span_ns)
        self._set_deadline()

    def need(self, now_ns: int) -> None:
        """From now on something is owned, or about to be: LOST falls due with the lease.

        If the lease has run out unneeded, nothing can have been owned under it; then the first proof has as
        long as a lease to arrive.
        """
        if not self._needed:
            self._needed = True
            if self.lease_ns <= now_ns:
                self._unproven_since_ns = now_ns
            self._set_deadline()

    def need_no_more(self) -> None:
        """Nothing is owned: the session may be believed in until its timeout has passed without an answer."""
        self._needed = False
        self._set_deadline()

    def proof_due_ns(self) -> int:
        """When the next proof should be sent; FAR while none is needed."""
        if not self._needed or not self._timeout_ns:
            return FAR
        return self._attempt_ns + self._interval_ns if self._attempt_ns else 0

    def proof_sent(self, now_ns: int) -> None:
        """A proof is under way; the next is due an interval later, whether it is answered or not."""
        self._attempt_ns = now_ns

    def _set_deadline(self) -> None:
        if not self._timeout_ns:
            self.deadline_ns = FAR
            return
        deadline_ns = self._contact_ns + self._timeout_ns
        if self._needed:
            first_proof_ns = self._unproven_since_ns + self._span_ns if self._unproven_since_ns else 0
            deadline_ns = max(self.lease_ns, min(first_proof_ns, deadline_ns))
        self.deadline_ns = deadline_ns


FAR = (1 << 63) - 1
"""Later than any instant."""
