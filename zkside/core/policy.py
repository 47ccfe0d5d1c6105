"""Who may do what: the policy as values, and the one decision over them.

    [identities.billing]
    callers = ["listener:billing", "uri:spiffe://example.org/billing", "token:billing"]
    chroot = "/apps/billing"

    [identities.billing.quotas]
    holds = 100

    [[identities.billing.rules]]
    path = "/apps/billing"
    verbs = ["read", "write", "hold"]

Rules only allow; what no rule allows is denied. A rule's path is of whole names, covers itself and all below it, and
counts from the daemon's root, whatever the chroot: a chroot says how an identity names its nodes, never what it may do.
Names are compared as they are: nothing is unescaped, normalised or folded, just as ZooKeeper does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from zkside.errors import InvalidPath
from zkside.model import path as paths
from zkside.model.identity import Peer

ANYONE = "anyone"
"""The caller that everybody is of whom nothing else is known."""
LISTENER = "listener:"

STRENGTH = ("token:", "uri:", "dns:", "cn:", LISTENER)
"""What a caller is known by; what it proved itself counts before what its way in gives to everybody."""

SHOWN_CHARACTERS = 120
"""Of a path in an explanation."""


class Verb(Enum):
    """What can be allowed below a path."""

    __hash__ = object.__hash__  # Enum's own is Python code, and this is on the way of every call

    READ = "read"
    """Data, Stats, lists of children, ACLs, watches; who holds, leads or is a member."""
    WRITE = "write"
    """Create, set, delete."""
    HOLD = "hold"
    """Own something: locks, candidacies, memberships, ephemeral nodes."""
    ADMIN = "admin"
    """Replace ACLs, act on the holds of others; on "/": look into the daemon, and drain it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows verbs on a path and all below it."""

    name: str
    path: str
    verbs: frozenset[Verb]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an identity may have at a time, over all of its connections; None: as much as the daemon gives."""

    streams: int | None = None
    calls: int | None = None
    """Unary calls under way."""
    holds: int | None = None
    """Also those that wait for their process to come back."""
    watches: int | None = None
    """Targets of Watch; an Observe and a WatchGroup count one."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who calls."""

    name: str
    callers: tuple[str, ...]
    rules: tuple[Rule, ...]
    chroot: str = ""
    """The node that it takes for the root; '' if it sees the tree as it is."""
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether, and why."""

    allowed: bool
    why: str
    rule: Rule | None = None
    """The one that allowed it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """All identities. Invariant: a caller stands for one of them at most."""

    identities: Mapping[str, Identity]
    _by_caller: Mapping[str, Identity] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_caller = {caller: identity for identity in self.identities.values() for caller in identity.callers}
        object.__setattr__(self, "_by_caller", MappingProxyType(by_caller))

    def identify(self, peer: Peer) -> Identity | None:
        """Who that is; None if the policy knows nobody who it could be.

        A caller that came with a token is who the token stands for, or nobody: it is not taken for whoever else
        it could be, so that a token that was withdrawn does not turn into another identity.
        """
        by_caller = self._by_caller
        is_token = False
        for prefix in STRENGTH[:-1]:
            for name in peer.names:
                if name.startswith(prefix):
                    if name in by_caller:
                        return by_caller[name]
                    is_token = is_token or prefix == "token:"
            if is_token:
                return None
        if peer.listener_identity:
            identity = by_caller.get(LISTENER + peer.listener_identity)
            if identity is not None:
                return identity
        return by_caller.get(ANYONE)


def allowing(identity: Identity, verb: Verb, path: str) -> Rule | None:
    """The rule that allows it, the one with the longest path; None if none does. The path is one that ZooKeeper takes.

    What `decide` decides, without the words: for every call.
    """
    if identity.chroot and not paths.is_within(path, identity.chroot):
        return None
    found: Rule | None = None
    for rule in identity.rules:
        if (
            verb in rule.verbs
            and paths.is_within(path, rule.path)
            and (found is None or len(rule.path) > len(found.path))
        ):
            found = rule
    return found


def decide(identity: Identity, verb: Verb, path: str) -> Decision:
    """Whether the identity may do this with the node at this path of the tree (not of its chroot), and all below it.

    Of several rules that allow it the one with the longest path is named. A path that ZooKeeper would not take, and
    one outside of the identity's chroot, is denied whatever the rules say.
    """
    shown = paths.shown(path, SHOWN_CHARACTERS)
    try:
        paths.validate(path)
    except InvalidPath as error:
        return Decision(False, f"it is no path that ZooKeeper takes: {error}")
    if identity.chroot and not paths.is_within(path, identity.chroot):
        return Decision(False, f"{shown} is outside of the chroot {identity.chroot}")
    found = allowing(identity, verb, path)
    if found is not None:
        return Decision(True, f"rule {found.name!r} allows {_listed(found.verbs)} on {found.path} and below it", found)
    covering = [rule for rule in identity.rules if paths.is_within(path, rule.path)]
    if covering:
        near = max(covering, key=lambda rule: len(rule.path))
        return Decision(
            False,
            f"no rule of {identity.name!r} allows {verb.value} on {shown}; rule {near.name!r} allows "
            f"{_listed(near.verbs)} there",
        )
    return Decision(False, f"no rule of {identity.name!r} allows anything on {shown}")


def _listed(verbs: Iterable[Verb]) -> str:
    names = [verb.value for verb in Verb if verb in verbs]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
