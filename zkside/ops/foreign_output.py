"""What libraries write to standard error past Python: lines of the log, escaped, cut and counted.

gRPC's core does, if it is asked to by GRPC_VERBOSITY (it is silent otherwise: zkside/rpc/__init__.py), and what a peer
sent is in it. The last words of a process that ends in the middle of one may be lost, so this is not done for nothing.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import TextIO

from zkside import log

MOST_LINES_PER_S = 100
LONGEST_LINE_BYTES = 1_000
_READ_BYTES = 1 << 16


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether somebody has asked gRPC to write."""
    return environment.get("GRPC_VERBOSITY", "NONE").upper() != "NONE"


class ForeignOutput:
    """Reads what is written to the file descriptor of standard error, from `start` on, for ever."""

    def __init__(self) -> None:
        self._second = 0
        self._told = 0
        self._left_out = 0
        self._begun = b""
        """A line without its end, cut."""

    def start(self) -> TextIO:
        """Put a pipe in the place of standard error; returns where it went to before. sys.stderr is that, too."""
        reading, writing = os.pipe()
        real = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
        os.dup2(writing, 2)
        os.close(writing)
        sys.stderr = real
        threading.Thread(target=self._read, args=(reading,), name="zkside-stderr", daemon=True).start()
        return real

    def _read(self, reading: int) -> None:
        while chunk := os.read(reading, _READ_BYTES):
            self.take(chunk)

    def take(self, chunk: bytes) -> None:
        """Tell the lines that end in this."""
        *lines, rest = chunk.split(b"\n")
        if lines:
            lines[0] = self._begun + lines[0]
            self._begun = b""
        self._begun = (self._begun + rest)[:LONGEST_LINE_BYTES]
        for line in lines:
            if line:
                self._tell(line)

    def _tell(self, line: bytes) -> None:
        second = int(time.monotonic())
        if second != self._second:
            if self._left_out:
                log.stderr_left_out(lines=self._left_out)
            self._second, self._told, self._left_out = second, 0, 0
        if self._told >= MOST_LINES_PER_S:
            self._left_out += 1
            return
        self._told += 1
        log.stderr_line(line=line[:LONGEST_LINE_BYTES].decode(errors="backslashreplace"))
