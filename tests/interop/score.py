"""What a contest came to, as a line of the table that `make interop` prints (docs/interop.md)."""

from __future__ import annotations

from dataclasses import dataclass

from tests.interop.ledger import Ledger

HEADINGS = ("contenders", "grants", "between libraries", "overlaps", "out of order", "smallest share", "a second")


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


def table(scores: list[Score]) -> list[str]:
    """In Markdown."""
    rows = [HEADINGS, tuple("---" for _ in HEADINGS), *(score.cells() for score in scores)]
    return ["| " + " | ".join(row) + " |" for row in rows]
