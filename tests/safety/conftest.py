"""Network namespaces, or a clear word that there are none: these tests are never left out in silence."""

from __future__ import annotations

import os
import random

import pytest

from tests.parts.namespaces import why_not

SEED = int(os.environ.get("SAFETY_SEED") or random.randrange(1_000_000))
"""Of the random faults; a run is played again with SAFETY_SEED=…"""


def pytest_report_header(config: pytest.Config) -> str:
    return f"random faults: SAFETY_SEED={SEED}"


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Fails where none can be made."""
    reason = why_not()
    if reason:
        pytest.fail(
            f"no network namespaces, so nothing is known about partitions: {reason}."
            " To run the other tests alone: make faults ARGS='--ignore tests/safety'",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def seed() -> int:
    return SEED
