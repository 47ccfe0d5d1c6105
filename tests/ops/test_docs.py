"""The guarantees and the tests name each other."""

from __future__ import annotations

import pytest

from docs import proofs

TRUNK = [
    *(f"S{number}" for number in range(1, 8)),
    *(f"W{number}" for number in range(1, 11)),
    *(f"R{number}" for number in range(1, 7)),
    *(f"N{number}" for number in range(1, 4)),
]


@pytest.mark.parametrize("number", TRUNK)
def test_each_guarantee_is_promised_and_proved(number: str) -> None:
    assert number in proofs.promised()
    assert proofs.proofs()[number], f"no test's docstring cites {number}"


def test_a_range_of_numbers_cites_each_of_them() -> None:
    assert proofs.cited("S1, W2-W4 and R1–R3; not X9 or SHA1") == {"S1", "W2", "W3", "W4", "R1", "R2", "R3"}  # noqa: RUF001


def test_no_test_cites_what_is_not_promised() -> None:
    assert {number for number in proofs.proofs() if number not in proofs.promised()} <= {"H1", "H7", "H8"}
