"""Sessions on ZooKeeper in process, under a virtual clock."""

from tests.session.conftest import clock, memory, sessions

__all__ = ["clock", "memory", "sessions"]
