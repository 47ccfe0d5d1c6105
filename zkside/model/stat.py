"""ZooKeeper's Stat, and its 68 bytes on the wire."""

from __future__ import annotations

import struct
from typing import NamedTuple

STAT_SIZE_BYTES = 68
LAST_NUMBER = 2**31 - 1
"""The last number that ZooKeeper gives a sequential node. Behind it the counter stands still, and the next children of
the same parent get the same number."""
_STAT = struct.Struct("!qqqqiiiqiiq")


class Stat(NamedTuple):
    """Eleven fields by ZooKeeper's names; times in milliseconds of the server's clock."""

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    ephemeral_owner: int
    data_length: int
    num_children: int
    pzxid: int

    def pack(self) -> bytes:
        """The Stat as ZooKeeper sends it."""
        return _STAT.pack(*self)

    @classmethod
    def unpack(cls, buffer: bytes | bytearray | memoryview, offset: int = 0) -> Stat:
        """Raises struct.error when fewer than 68 bytes are left."""
        return cls._make(_STAT.unpack_from(buffer, offset))

    @property
    def creates(self) -> int:
        """How many children were ever created: the number of the next sequential one.

        Source: DataNode.copyStat, which tells creates and deletes together, as an int that turns over.
        """
        return (self.cversion + self.num_children & 0xFFFFFFFF) >> 1
