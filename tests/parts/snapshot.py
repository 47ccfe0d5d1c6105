"""A snapshot of ZooKeeper's, made by hand: to begin with what takes a server years to come to."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

OPEN_ACL_ID = -1
ZXID = 0x10


def write_snapshot(data: Path, creates: Mapping[str, int]) -> None:
    """Into a server's empty data directory: these nodes, each with so many children ever created and none left.

    Source: FileSnap.serialize, DataTree.serialize, SnapStream.sealStream.
    """
    nodes = {"": 0, "/zookeeper": 0, "/zookeeper/quota": 0, "/zookeeper/config": 0, **creates}
    body = b"ZKSN" + struct.pack("!iq", 2, -1)
    body += struct.pack("!ii", 0, 0)  # sessions, access control lists
    for path, count in nodes.items():
        stat = struct.pack("!qqqqiiiqq", ZXID, ZXID, 0, 0, 0, count, 0, 0, ZXID)
        body += _string(path) + struct.pack("!iq", 0, OPEN_ACL_ID) + stat
    body += _string("/")
    sealed = body + struct.pack("!q", zlib.adler32(body)) + _string("/")
    directory = data / "version-2"
    directory.mkdir(parents=True)
    (directory / f"snapshot.{ZXID:x}").write_bytes(sealed)


def _string(text: str) -> bytes:
    return struct.pack("!i", len(text)) + text.encode()
