"""What a contest came to, as a line of the table that `make interop` prints (docs/interop.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.interop.ledger import Ledger

CONTESTS = ("contenders", "grants", "between libraries", "overlaps", "out of order", "smallest share", "a second")
DEATHS = ("killed while it held", "until the next one did")


@dataclass(frozen=True, slots=True)
class Score:
    """One contest."""

    contenders: str
    ledger: Ledger
    duration_s: float

    def cells(self) -> tuple[str, ...]:
        ledger, grants = self.ledger, self.ledger.grants.total()
        return (
            self.contenders,
            str(grants),
            str(ledger.foreign_handovers),
            str(len(ledger.overlaps)),
            "not known" if ledger.unnumbered == grants else str(len(ledger.disorders)),
            f"{ledger.smallest_share():.0%}",
            f"{grants / self.duration_s:.0f}",
        )


@dataclass(frozen=True, slots=True)
class Death:
    """A holder that was killed."""

    contender: str
    until_next_s: float
    """Until another one was inside."""

    def cells(self) -> tuple[str, ...]:
        return (self.contender, f"{self.until_next_s:.3f} s")


def table(headings: tuple[str, ...], lines: Sequence[Score | Death]) -> list[str]:
    """In Markdown."""
    rows = [headings, tuple("---" for _ in headings), *(line.cells() for line in lines)]
    return ["| " + " | ".join(row) + " |" for row in rows]
