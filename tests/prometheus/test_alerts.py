"""Every alert fires when its real condition is caused, and clears after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

import pytest
import pytest_asyncio

from tests.prometheus.monitor import Notice, Notices, rules
from tests.prometheus.scenes import SCENES, Scene
from tests.prometheus.stand import Place, Stand

pytestmark = pytest.mark.prometheus

ALERTS = sorted(rule["alert"] for group in rules()["groups"] for rule in group["rules"])
ACT_S = 120.0
FIRES_S = 180.0
CLEARS_S = 900.0
"""The longest window of an expression is ten minutes; expressions are as they are shipped."""

Play = asyncio.Task[tuple[Notice, Notice]]


async def play(alert: str, scene: Scene, stand: Stand, notices: Notices) -> tuple[Notice, Notice]:
    """What was told when it fired, and when it cleared."""
    async with aclosing(scene(stand)) as acts:
        await _next(acts)
        assert not notices.of(alert, alert), "it fired before anything happened"
        await _next(acts)
        fired = await notices.wait(alert, alert, is_firing=True, within_s=FIRES_S)
        await _next(acts)
        cleared = await notices.wait(alert, alert, is_firing=False, within_s=CLEARS_S)
        with suppress(StopAsyncIteration):
            await _next(acts)
    return fired, cleared


async def _next(acts: AsyncGenerator[None, None]) -> None:
    async with asyncio.timeout(ACT_S):
        await anext(acts)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def plays(request: pytest.FixtureRequest, stand: Stand, notices: Notices) -> AsyncIterator[dict[str, Play]]:
    """All scenes that are asked for, at the same time: most of it is waiting."""
    asked = [item.callspec.params.get("alert") for item in request.session.items if hasattr(item, "callspec")]
    tasks = {alert: asyncio.create_task(play(alert, SCENES[alert], stand, notices)) for alert in asked if alert}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


def test_each_alert_has_a_scene() -> None:
    assert sorted(SCENES) == ALERTS


@pytest.mark.timeout(FIRES_S + CLEARS_S + 4 * ACT_S)
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("alert", ALERTS)
async def test_the_alert_fires_on_its_condition_and_clears_after_it(
    alert: str, plays: dict[str, Play], well: Place
) -> None:
    fired, cleared = await plays[alert]
    assert fired.labels["severity"] in ("critical", "warning")
    for words in (fired.annotations["summary"], fired.annotations["description"]):
        assert "<" not in words, words  # Prometheus writes <error …> or <no value>
    assert alert in fired.annotations["summary"], "the instance, which is called as the alert here"
    assert fired.annotations["runbook"] == f"docs/runbook.md#{alert.lower()}"
    assert cleared.labels == fired.labels


@pytest.mark.timeout(FIRES_S + CLEARS_S + 4 * ACT_S)
@pytest.mark.asyncio(loop_scope="session")
async def test_a_daemon_that_is_well_raises_no_alert(
    plays: dict[str, Play], notices: Notices, well: Place, stand: Stand
) -> None:
    """All the time, beside those that are not, and with the same rules."""
    await asyncio.gather(*plays.values(), return_exceptions=True)
    assert notices.fired_at("well") == set()
    assert await stand.prometheus.query('up{instance="well"} == 1')
