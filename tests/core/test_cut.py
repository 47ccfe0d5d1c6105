"""How far a batch may be published."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zkside.core.cut import publishable_up_to


def test_a_batch_with_nothing_outside_is_published_whole() -> None:
    """R6"""
    assert publishable_up_to(100, [(90, 95), (91, 99)], None) == 100


def test_what_is_newer_than_a_path_outside_waits() -> None:
    """W1, W6: the path outside may have changed at 96 and belong to the same transaction as what was read."""
    assert publishable_up_to(100, [(90, 95), (96, 96)], 96) == 95


def test_an_older_change_of_a_path_whose_newer_value_waits_holds_back_its_transaction_too() -> None:
    """W6: a transaction at 92 wrote x and y; x was written again at 99, which waits for what is outside."""
    x, y = (92, 99), (92, 92)
    assert publishable_up_to(100, [x, y], 98) == 91


changes = st.lists(st.tuples(st.integers(1, 40), st.sets(st.integers(0, 6), min_size=1)), max_size=12).map(
    lambda raw: [(zxid, paths) for zxid, paths in {z: (z, p) for z, p in sorted(raw)}.values()]
)


@given(changes, st.sets(st.integers(0, 6)), st.integers(1, 45))
def test_no_published_cut_tears_a_transaction(
    history: list[tuple[int, set[int]]], batch: set[int], read_at: int
) -> None:
    """W6, against every history of transactions over seven paths, of which some are read at read_at."""
    seen = [(zxid, paths) for zxid, paths in history if zxid <= read_at]
    first = {p: min(z for z, paths in seen if p in paths) for p in range(7) if any(p in paths for _, paths in seen)}
    last = {p: max(z for z, paths in seen if p in paths) for p in first}
    entries = [(first[p], last[p]) for p in batch if p in first]
    outside = min((first[p] for p in first if p not in batch), default=None)
    bound = publishable_up_to(read_at, entries, outside)
    assert bound <= read_at
    published = {p for p in batch if p in last and last[p] <= bound}
    for zxid, paths in seen:
        if zxid <= bound:  # said to be complete: every path shows it, or something newer that is published too
            assert paths <= published
        else:  # not yet: no path shows it
            assert all(last[p] < zxid for p in paths & published)
