"""Exit codes."""

from __future__ import annotations

import pytest

from zkside import errors
from zkside.cli import exits
from zkside.client.fault import BY_REASON
from zkside.errors import ZksideError


@pytest.mark.parametrize("kind", list(BY_REASON.values()))
def test_every_error_has_a_code_that_the_table_explains(kind: type[ZksideError]) -> None:
    code = exits.code_of(kind())
    assert code in exits.MEANINGS
    assert code not in (exits.OK, exits.INTERRUPTED)


def test_what_a_script_tells_apart_has_codes_of_its_own() -> None:
    apart = [
        errors.NoNode,
        errors.NodeExists,
        errors.BadVersion,
        errors.NoAuth,
        errors.SessionSuspended,
        errors.DeadlineExceeded,
        errors.OutcomeUnknown,
        errors.HoldLost,
        errors.InvalidPath,
    ]
    assert len({exits.code_of(kind()) for kind in apart}) == len(apart)
