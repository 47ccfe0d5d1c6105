"""Callers as the policy knows them: their identity, their chroot, and what they have of their quota."""

from __future__ import annotations

from collections.abc import Iterable

from zkside.core.policy import Identity, Limits, Policy, Rule, Verb, allowing, decide
from zkside.errors import Denied, Quota, Unauthenticated
from zkside.model import path as paths
from zkside.model.identity import Peer
from zkside.rpc.chroot import Chroot
from zkside.rpc.needs import Ask

SHOWN_CHARACTERS = 200
"""Of a path in an error."""


class Usage:
    """What an identity has at the moment, over all of its connections."""

    __slots__ = ("calls", "streams", "watches")

    def __init__(self) -> None:
        self.calls = self.streams = self.watches = 0


class Caller:
    """One identity of the policy in force; or, where there is no policy, somebody who may do everything."""

    __slots__ = ("chroot", "identity", "limits", "name", "usage")

    def __init__(self, name: str, identity: Identity | None, usage: Usage) -> None:
        self.name = name
        self.identity = identity
        self.chroot = Chroot(identity.chroot) if identity is not None and identity.chroot else None
        self.limits = Limits() if identity is None else identity.limits
        self.usage = usage

    def node(self, ask: Ask) -> str:
        """The node of the tree that is asked for. Raises: InvalidPath, in the caller's own words."""
        if self.identity is None:
            return ask.path
        node = ask.node()
        return node if self.chroot is None or ask.of_tree else self.chroot.enter_path(node)

    def allowing(self, ask: Ask, node: str) -> Rule | None:
        """The rule that allows it; None where there is no policy. Raises: Denied."""
        if self.identity is None:
            return None
        rule = allowing(self.identity, ask.verb, node)
        if rule is None:
            raise self.denied(ask, decide(self.identity, ask.verb, node).why)
        return rule

    def may(self, verb: Verb, path: str) -> bool:
        """Whether this is allowed on a node of the tree."""
        return self.identity is None or allowing(self.identity, verb, path) is not None

    @property
    def root(self) -> str:
        """Its chroot; '' if it has none."""
        return "" if self.identity is None else self.identity.chroot

    @property
    def identity_name(self) -> str:
        """By the policy; '' where there is none."""
        return "" if self.identity is None else self.identity.name

    def denied(self, ask: Ask, why: str) -> Denied:
        """The error, in the caller's own words: with a chroot it is not told which rules there are."""
        path = paths.shown(ask.path, SHOWN_CHARACTERS)
        message = f"the policy does not allow {self.name!r} to {ask.verb.value} {path}"
        told = message if self.chroot is not None else f"{message}: {why}"
        return Denied(told, identity=self.name, verb=ask.verb.value, path=path)

    def over(self, limit: str, most: int | None, present: int, wanted: int = 1) -> Quota | None:
        """The error if this is more than the identity may have."""
        if most is None or present + wanted <= most:
            return None
        return Quota(
            f"{self.name!r} has {present} {limit} of the {most} that the policy allows", limit=limit, identity=self.name
        )


class Callers:
    """All callers of one policy, or of none. What they have outlives a change of the policy."""

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._by_name: dict[str, Caller] = {}
        self._usage: dict[str, Usage] = {}

    def apply(self, policy: Policy) -> None:
        """From now on this policy counts."""
        self._policy = policy
        self._usage = {
            name: usage
            for name, usage in self._usage.items()
            if name in policy.identities or usage.calls or usage.streams or usage.watches
        }
        self._by_name = {
            name: Caller(name, identity, self._usage.setdefault(name, Usage()))
            for name, identity in policy.identities.items()
        }

    def of(self, peer: Peer) -> Caller:
        """Raises: Unauthenticated."""
        if self._policy is None:
            return Caller(known_as(peer), None, Usage())
        identity = self._policy.identify(peer)
        if identity is None:
            raise Unauthenticated("the policy has no identity for who calls so, by this listener")
        return self._by_name[identity.name]

    def named(self, name: str) -> Caller | None:
        """None where the policy has nobody of this name (any more)."""
        return self._by_name.get(name)

    def __len__(self) -> int:
        return len(self._by_name)


def known_as(peer: Peer) -> str:
    """What to call somebody without a policy: the best that was proven."""
    best: Iterable[str] = sorted(peer.names, key=lambda name: not name.startswith("token:"))
    return next(iter(best), "") or peer.listener_identity
