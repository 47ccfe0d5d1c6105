"""All that was started from this process and still runs, wherever it has gone: another process group, another session,
another parent. Linux only; elsewhere a process group is all that can be reached.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import suppress

_PR_SET_CHILD_SUBREAPER = 36

prctl = getattr(ctypes.CDLL(None), "prctl", None)
"""Linux only. Elsewhere a command outlives a guard that is killed with -9."""


class Descendants:
    """Of this process. From here on those whose parent ends become its children, and are to be waited for."""

    def __init__(self) -> None:
        self.are_kept = prctl is not None and prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        """Whether none can get away."""

    def signal(self, number: signal.Signals) -> tuple[int, int]:
        """Send it to each; how many it reached, and how many this user may not signal."""
        reached = refused = 0
        for pid in self._running():
            try:
                os.kill(pid, number)
                reached += 1
            except PermissionError:
                refused += 1
            except ProcessLookupError:
                pass
        return reached, refused

    def kill(self) -> int:
        """Kill all and wait for their end; how many this user may not kill."""
        while True:
            # Again after each end: one that was just being forked is a child of ours by then.
            reached, refused = self.signal(signal.SIGKILL)
            if refused and not reached:
                return refused
            try:
                os.waitid(os.P_ALL, 0, os.WEXITED)
            except ChildProcessError:
                return 0

    def _running(self) -> list[int]:
        parents = dict(_processes()) if self.are_kept else {}
        of: dict[int, list[int]] = {}
        for pid, parent in parents.items():
            of.setdefault(parent, []).append(pid)
        found = of.pop(os.getpid(), [])
        for pid in found:  # grows meanwhile
            found += of.pop(pid, [])
        return found


def _processes() -> Iterator[tuple[int, int]]:
    """Each one that has not ended, and its parent."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
                state, parent = stat.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    yield int(name), int(parent)
