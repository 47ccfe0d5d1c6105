"""When a client believed that it held something: the rule of ADR 7, written down once more, and its record."""

from __future__ import annotations

from collections.abc import Callable

BOUND_S = 1.5
"""How long a client believes without having been answered."""


class Belief:
    """One client's belief in one grant.

    It is as strong as the contract allows: every pulse is answered at once while both sides run, and a belief that
    ran out comes back with the next lease that the daemon tells.
    """

    def __init__(
        self,
        now_ns: Callable[[], int],
        proof_ns: Callable[[], int],
        grace_s: float,
        *,
        bound_s: float = BOUND_S,
        more_s: float = 0.0,
    ) -> None:
        """`proof_ns`: when the latest answered call was sent. `more_s`: so much longer than the rule allows."""
        self._now_ns = now_ns
        self._proof_ns = proof_ns
        self._grace_ns = round(grace_s * 1e9)
        self._bound_ns = round(bound_s * 1e9)
        self._more_ns = round(more_s * 1e9)
        self._told_ns = self._alone_until_ns = 0
        self._is_attached = self._is_over = False
        self._since_ns = now_ns()
        self.segments: list[tuple[int, int]] = []
        """Believed from … until before …, in order."""

    def attach(self) -> None:
        """A stream tells what becomes of the hold."""
        self.note()
        self._is_attached = True

    def tell(self, lease_ns: int) -> None:
        """Until when the daemon says that it may be believed; 0: let go."""
        self.note()
        self._told_ns = lease_ns

    def detach(self) -> None:
        """The stream broke: the daemon keeps the hold for its grace, which begins then or later."""
        self.note()
        if self._is_attached:
            self._is_attached = False
            believed = self._proof_ns() + self._bound_ns > self._now_ns()
            self._alone_until_ns = self._proof_ns() + self._grace_ns if believed and self._grace_ns else 0

    def end(self) -> None:
        """Never again."""
        self.note()
        self._is_over = True

    def is_held(self) -> bool:
        return self._now_ns() < self._until_ns()

    def note(self) -> None:
        """Record what was believed since the last time. To be called before anything that it rests on changes."""
        now_ns, since_ns = self._now_ns(), self._since_ns
        self._since_ns = now_ns
        until_ns = min(now_ns, self._until_ns())
        if until_ns <= since_ns:
            return
        if self.segments and self.segments[-1][1] == since_ns:
            self.segments[-1] = (self.segments[-1][0], until_ns)
        else:
            self.segments.append((since_ns, until_ns))

    def _until_ns(self) -> int:
        if self._is_over or not self._told_ns:
            return 0
        own_ns = self._proof_ns() + self._bound_ns if self._is_attached else self._alone_until_ns
        return min(self._told_ns, own_ns) + self._more_ns
