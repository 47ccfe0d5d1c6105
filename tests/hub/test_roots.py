"""Roots are found by the paths that they cover: pure."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from zkside.hub.roots import Root, Roots
from zkside.model.watch import Scope

PATHS = ("/", "/a", "/a/b", "/a/b/c", "/ab", "/ab/c", "/d")


@given(st.sets(st.tuples(st.sampled_from(PATHS), st.sampled_from(Scope), st.booleans())))
def test_the_nearest_live_root_that_covers_a_path_is_found(kept: set[tuple[str, Scope, bool]]) -> None:
    loop = asyncio.new_event_loop()
    try:
        roots = Roots()
        for path, scope, live in kept:
            roots.add(Root(path, scope, loop.create_future(), live=live))
        for path in PATHS:
            covering = roots.covering(path)
            assert {root for root in roots if root.covers(path)} == set(covering)
            assert roots.live_at(path) is next((root for root in covering if root.live), None)
    finally:
        loop.close()
