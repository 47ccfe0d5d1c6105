"""What can be set about the hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HubSettings:
    """How much the hub keeps, and for how long."""

    idle_eviction_s: float = 60.0
    """After this long without a subscriber or a cached read a root and its watch go. Also the time for which a
    stream can be resumed after its last subscriber left."""
    max_cached_nodes: int = 1_000_000
    max_cached_bytes: int = 192 << 20
    """Data and Stats of the nodes in all caches."""
    max_reads_bytes: int = 32 << 20
    """Answers of ZooKeeper to reads of clients, under way at once; half of it to those of one owner."""
    max_answer_bytes: int = 16 << 20
    """Nodes in one answer."""
    max_roots: int = 100_000
    """Beyond it a cached read of yet another path is answered by the server instead."""
    window_size: int = 10_000
    """Paths in the log of one target: how far a subscriber can fall behind before it gets a new snapshot."""
    event_queue_size: int = 10_000
    """Events that one EVENTS subscriber may leave unread."""
    state_dir: Path | None = None
    """Where caches are kept over restarts; None: nowhere."""
    identity: str = field(default="", repr=False)
    """Whose they are: of which ensemble, and as whom it is read. Caches of anybody else are not believed."""
    snapshot_interval_s: float = 30.0
    revalidate_interval_s: float = 15.0
    """In what time all that is cached is looked at again, for what no event tells; see hub/revalidation.py."""
