"""What the SDK hands out about queues: who holds, who leads, who waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from zkside.client.answer import Answer
from zkside.client.value import WireEnum
from zkside.pb import hold_pb2


class LockLayout(WireEnum):
    """Under which names contenders queue, and so with whom they can; docs/locks.md."""

    CURATOR = 1
    CURATOR_READ_WRITE = 2
    KAZOO = 3


class ElectionLayout(WireEnum):
    """Under which names candidates queue, and so with whom they can stand; docs/locks.md."""

    LATCH = 1
    LOCK = 2
    KAZOO = 3


@dataclass(frozen=True, slots=True)
class Contender:
    """One who holds, leads or waits for it."""

    path: str
    value: bytes
    fencing_token: int
    session_id: str
    is_holder: bool
    is_shared: bool


@dataclass(frozen=True, slots=True)
class Contenders(Answer, Sequence[Contender]):
    """Contenders in the order of the queue; a sequence of them."""

    contenders: tuple[Contender, ...]

    @property
    def holders(self) -> tuple[Contender, ...]:
        return tuple(each for each in self.contenders if each.is_holder)

    @overload
    def __getitem__(self, index: int) -> Contender: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Contender, ...]: ...
    def __getitem__(self, index: int | slice) -> Contender | tuple[Contender, ...]:
        return self.contenders[index]

    def __len__(self) -> int:
        return len(self.contenders)

    def __iter__(self) -> Iterator[Contender]:
        return iter(self.contenders)


@dataclass(frozen=True, slots=True)
class Leader(Answer):
    """Who leads, and who would be next."""

    contender: Contender
    candidates: tuple[Contender, ...]
    """All, in the order of succession, the leader first."""

    @property
    def path(self) -> str:
        return self.contender.path

    @property
    def value(self) -> bytes:
        return self.contender.value

    @property
    def fencing_token(self) -> int:
        return self.contender.fencing_token

    @property
    def session_id(self) -> str:
        return self.contender.session_id


@dataclass(frozen=True, slots=True)
class LeaderChange(Answer):
    """Who leads from here on; None: nobody."""

    leader: Contender | None


def contender_of(message: hold_pb2.Contender) -> Contender:
    return Contender(
        message.path,
        message.value,
        message.fencing_token,
        message.session_id,
        message.is_holder,
        message.is_shared,
    )
