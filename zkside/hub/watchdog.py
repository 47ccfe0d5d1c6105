"""Looks whether what says that it is current is kept so: the invariant of GUARANTEES V1, as one function and one task.

It finds what nobody thought of. Whatever it finds is made stale at once, counted, logged, and compared with ZooKeeper.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from zkside import log
from zkside.hub.keeper import Keeper
from zkside.hub.reader import Reader
from zkside.hub.roots import Root, Roots
from zkside.supervisor import Permanent, nothing
from zkside.zk.session import Session

LOOK_S: Final = 0.5
STALLED_LOOKS: Final = 6
"""Looks without any progress of the reader after which it counts as stalled: some three seconds. Counted in looks and
not in seconds, so that a process which was stopped for a while finds nothing."""
AT_ONCE: Final = 500
"""Roots that are looked at in one turn of the event loop: a millisecond."""


class What(Enum):
    """What can be wrong."""

    TASK = "task"
    """A permanent task of the hub does not run."""
    READER = "reader"
    """Paths are announced, and no attempt at reading them has come to anything."""
    ROOT = "root"
    """A root is not stale, and nothing keeps it current."""


class Finding(NamedTuple):
    """Something that is not kept."""

    what: What
    root: Root | None
    reason: str


class Watchdog:
    """One permanent task of the hub."""

    def __init__(self, session: Session, roots: Roots, reader: Reader, keeper: Keeper) -> None:
        self.found: Counter[str] = Counter({what.value: 0 for what in What})
        """Counted since the start."""
        self._session = session
        self._roots = roots
        self._reader = reader
        self._keeper = keeper
        self._task: Permanent | None = None
        self._answered = 0
        self._idle_looks = 0
        self._last = ""

    def start(self) -> None:
        self._task = self._session.supervisor.start("watchdog", self._run, nothing)

    async def close(self) -> None:
        if self._task is not None:
            self._task.stop()
            await self._task.wait()

    @property
    def not_kept(self) -> str:
        """Why the caches are not kept current, though there is a connection; '' if they are, or there is none."""
        if not self._session.status.state.is_connected:
            return ""
        stalled = "what changes is not read" if self._keeper.is_lagging else ""
        return self._keeper.why_not_run() or stalled or self._last

    def check(self) -> Iterator[Finding | None]:
        """The invariant: what is not stale and not kept. None: here the event loop may have a turn."""
        reason = self._keeper.why_not_run()
        any_current = any(root.live and root.stale_since is None for root in self._roots)
        if reason and any_current:
            yield Finding(What.TASK, None, reason)
        if self._idle_looks >= STALLED_LOOKS and any_current:
            seconds = self._idle_looks * LOOK_S
            yield Finding(What.READER, None, f"{len(self._reader.unsettled)} paths wait to be read for {seconds:g} s")
        for count, root in enumerate(self._roots):
            if self._roots.get(root.path, root.scope) is root and root.stale_since is None:
                why = self._keeper.why_not_kept(root)
                if why and root.stale_since is None:  # asking for the session's status may have ended the session
                    yield Finding(What.ROOT, root, f"{root.path}: {why}")
            if count % AT_ONCE == AT_ONCE - 1:
                yield None

    async def look(self) -> None:
        """Look at everything once, and do something about what is wrong."""
        self._measure()
        found: list[Finding] = []
        for finding in self.check():
            if finding is None:
                await asyncio.sleep(0)
            else:
                found.append(finding)
        self._last = found[0].reason if found else ""
        for what in {finding.what for finding in found}:
            some = [finding for finding in found if finding.what is what]
            self.found[what.value] += len(some)
            log.hub_invariant(what=what.value, reason=some[0].reason)
            if what is What.READER:
                # It need not be compared: what is announced is known, and is current as soon as it has been read.
                self._keeper.lag(is_lagging=True)
            elif what is What.ROOT:
                self._keeper.repair([finding.root for finding in some if finding.root is not None])
            else:
                self._keeper.doubt()
        self._keeper.settle_ready()

    def _measure(self) -> None:
        """Take note of the reader's progress since the last look."""
        reader = self._reader
        has_work = bool(reader.unsettled) and not reader.is_paused
        if not has_work or reader.answered != self._answered:
            self._idle_looks = 0
            if self._keeper.is_lagging:
                self._keeper.lag(is_lagging=False)
        else:
            self._idle_looks += 1
        self._answered = reader.answered

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()
