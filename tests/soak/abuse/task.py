"""What all kinds of abuse are given and give back."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from dataclasses import dataclass, field

BIG_BYTES = 1_000_000
BIG_NODES = 60
TREE_NODES = 100
TREE_NODE_BYTES = 100_000
ROOT = "/soak"


def big(number: int) -> str:
    """A node of BIG_BYTES."""
    return f"{ROOT}/big/{number}"


def leaf(number: int) -> str:
    """A node of the tree that changes all the time, of TREE_NODE_BYTES."""
    return f"{ROOT}/tree/{number}"


@dataclass
class Task:
    """One kind's part of a run."""

    address: str
    until_s: float
    """By the monotonic clock."""
    random: random.Random
    zookeeper_pid: int
    done: Counter[str] = field(default_factory=Counter)
    """What was done, and how it ended."""

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until_s

    def pause(self, seconds: float) -> None:
        """Wait so long, or to the end."""
        time.sleep(max(0.0, min(seconds, self.until_s - time.monotonic())))

    def connect(self) -> socket.socket:
        """A connection to the daemon's Unix socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5.0)
        connection.connect(self.address.removeprefix("unix:"))
        return connection
