"""A hold as the journal remembers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class HoldRow:
    """What a restarted daemon must know to give a hold back to its owner.

    The journal keeps it as it is; only the recipe named by `recipe` understands `data`.
    """

    hold_id: str
    recipe: str
    """Which recipe made it, such as "ephemeral"."""
    path: str
    """The znode, with its suffix; '' while it waits for one."""
    czxid: int
    """The fencing token; 0 while there is no znode."""
    resume_token: str
    """A secret of the owner's; never logged."""
    reconnect_grace_s: float
    data: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", MappingProxyType(dict(self.data)))

    def __repr__(self) -> str:
        return f"HoldRow({self.recipe} {self.hold_id} {self.path} czxid={self.czxid:#x})"
