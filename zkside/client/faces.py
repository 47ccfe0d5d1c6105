"""The blocking faces of all classes of the SDK that wait for something; `zkside.client.sync` hands them out."""

from __future__ import annotations

import weakref
from typing import Any

from zkside.client import client
from zkside.client.admin import AdminCalls
from zkside.client.blocking import Face, LoopThread, faces_of
from zkside.client.election import Leadership
from zkside.client.ephemeral import Ephemeral
from zkside.client.hold import Held
from zkside.client.loss import Loss, Revocation
from zkside.client.mirror import Mirror, MirrorChanges
from zkside.client.pipeline import Pipeline
from zkside.client.reading import Reading
from zkside.client.transaction import Transaction
from zkside.client.watch import Watch

SOURCES: tuple[type, ...] = (
    client.Client,
    AdminCalls,
    Transaction,
    Pipeline,
    Watch,
    Mirror,
    MirrorChanges,
    Reading,
    Held,
    Leadership,
    Ephemeral,
    Loss,
    Revocation,
)
"""All classes of the SDK that wait for something."""

FACES: dict[type, type[Face]] = faces_of(SOURCES, direct=(Held, Loss, Revocation))


class Client(FACES[client.Client]):  # type: ignore[misc, valid-type]
    __doc__ = client.Client.__doc__

    def __init__(self, *arguments: Any, **options: Any) -> None:
        thread = LoopThread()
        try:
            source = thread.call(client.Client, *arguments, **options)
        except BaseException:
            thread.stop()
            raise
        super().__init__(source, thread)
        # Also at the end of the program, before the thread is torn from it.
        self._end = weakref.finalize(self, _close, source, thread)

    def close(self) -> None:
        """End all that is open, and the thread. Idempotent."""
        self._end()

    def __exit__(self, *error: object) -> None:
        self.close()


def _close(source: client.Client, thread: LoopThread) -> None:
    if thread.is_inherited:
        return  # a child's copy: all of it is the parent's
    thread.run(source.close())
    thread.stop()
