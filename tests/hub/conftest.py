"""A hub on a session of its own, in front of either backend, and somebody else who writes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.conftest import join, other, world  # noqa: F401  the contract's two worlds serve here too
from tests.contract.world import World
from zkside.hub.hub import Hub, HubSettings
from zkside.zk.session import Session, SessionSettings

TIMEOUT_S = 4.0


@pytest.fixture
async def session(world: World) -> AsyncIterator[Session]:  # noqa: F811
    """Through the faulty network."""
    session = Session(world.connector(faulty=True, timeout_s=TIMEOUT_S), SessionSettings(timeout_s=TIMEOUT_S))
    session.start()
    await session.wait_connected()
    yield session
    await session.close(keep_session=False, within_s=2.0)


@pytest.fixture
def hub_settings() -> HubSettings:
    return HubSettings(idle_eviction_s=0.4)


@pytest.fixture
async def hub(session: Session, hub_settings: HubSettings) -> AsyncIterator[Hub]:
    hub = Hub(session, hub_settings)
    hub.start()
    yield hub
    await hub.close()
