"""How long a process may believe that it owns something: arithmetic over the host's clock (ADR 7)."""

from __future__ import annotations

from zkside.client.clock import now_ns
from zkside.client.pulse import BOUND_NS, Pulse


class Belief:
    """The client's own lease on one hold: the smaller of what the daemon told and what this process has proved.

    Invariant: a belief that has run out comes back by an answer of the daemon only, never by the clock.
    """

    def __init__(self, pulse: Pulse, grace_s: float) -> None:
        self._pulse = pulse
        self._grace_ns = round(grace_s * 1e9)
        self._told_ns = 0
        self._sent_ns = 0
        self._alone_until_ns = 0
        self._ended = False
        self.is_attached = False
        """Whether a stream is there that says what becomes of the hold."""

    def attach(self, sent_ns: int) -> None:
        """A stream has answered for the first time; its request was sent then."""
        self._sent_ns = sent_ns
        self.is_attached = True

    def tell(self, lease_ns: int) -> None:
        """The daemon's lease, as newly told; 0: none."""
        if not self._ended:
            self._told_ns = lease_ns

    def detach(self) -> None:
        """The stream has broken. The daemon keeps the hold for the grace time, counted from the break or later."""
        if self.is_attached:
            proof_ns = self._proof_ns()
            believed = proof_ns + BOUND_NS > now_ns()
            self._alone_until_ns = proof_ns + self._grace_ns if believed and self._grace_ns else 0
            self.is_attached = False

    def end(self) -> None:
        """Never again."""
        self._ended = True
        self._told_ns = 0

    @property
    def is_proved(self) -> bool:
        """Whether the daemon has heard this process just now."""
        return self._own_until_ns() > now_ns()

    @property
    def until_ns(self) -> int:
        """Believed up to this moment of the host's clock."""
        return min(self._told_ns, self._own_until_ns())

    def _proof_ns(self) -> int:
        return max(self._sent_ns, self._pulse.proof_ns)

    def _own_until_ns(self) -> int:
        return self._proof_ns() + BOUND_NS if self.is_attached else self._alone_until_ns
