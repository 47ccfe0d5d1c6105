"""policy check, policy explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zkside.cli import exits, output
from zkside.cli.invocation import Invocation, pass_invocation
from zkside.errors import InvalidArgument

if TYPE_CHECKING:
    from zkside.core.policy import Identity, Policy

VERBS = ("read", "write", "hold", "admin")
FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def policy() -> None:
    """Check a policy's file, or try what it allows. No daemon is needed."""


@policy.command()
@FILE
@pass_invocation
def check(invocation: Invocation, file: Path) -> None:
    """Exit with 0 if a daemon could use it; otherwise tell all that is wrong, and exit with 14."""

    def body() -> None:
        from zkside.rpc.policy_file import read_policy

        identities = read_policy(file).identities.values()
        if invocation.is_json:
            output.json_line({"valid": True, "identities": [each.name for each in identities]})
        else:
            rules = sum(len(each.rules) for each in identities)
            output.line(f"valid; identities: {len(identities)}, rules: {rules}")

    invocation.end(body)


@policy.command()
@FILE
@click.option("--identity", "name", metavar="NAME", help="Who asks, by the name in the policy.")
@click.option(
    "--caller",
    "callers",
    multiple=True,
    metavar="CALLER",
    help='Or what the caller is known by, such as "listener:app" or "token:ci"; may be given several times.',
)
@click.argument("verb", type=click.Choice(VERBS))
@click.argument("path")
@pass_invocation
def explain(
    invocation: Invocation, file: Path, name: str | None, callers: tuple[str, ...], verb: str, path: str
) -> None:
    """Tell whether an identity may do something with the node at PATH, and by which rule.

    PATH is as the identity writes it, below its chroot. Exit with 0 if it is allowed, with 7 if not.
    """

    def body() -> int:
        from zkside.core.policy import Verb, decide
        from zkside.rpc.policy_file import read_policy

        identity = _asking(read_policy(file), name, callers)
        if identity is None:
            output_decision(invocation, False, "", path, "the policy has no identity for this caller")
            return exits.DENIED
        node = path
        if identity.chroot and path.startswith("/"):
            node = identity.chroot if path == "/" else identity.chroot + path
        decision = decide(identity, Verb(verb), node)
        rule = decision.rule.name if decision.rule is not None else None
        output_decision(invocation, decision.allowed, identity.name, node, decision.why, rule)
        return exits.OK if decision.allowed else exits.DENIED

    invocation.end(body)


def output_decision(
    invocation: Invocation, allowed: bool, identity: str, node: str, why: str, rule: str | None = None
) -> None:
    """One line, or one JSON object. `node`: the path in the daemon's tree."""
    if invocation.is_json:
        output.json_line({"allowed": allowed, "identity": identity, "node": node, "why": why, "rule": rule})
    else:
        output.line(f"{'allowed' if allowed else 'denied'}: {why}")


def _asking(policy: Policy, name: str | None, callers: tuple[str, ...]) -> Identity | None:
    """Raises: InvalidArgument."""
    from zkside.core.policy import LISTENER
    from zkside.model.identity import Peer

    if (name is None) == (not callers):
        raise InvalidArgument("give --identity or --caller")
    if name is not None:
        if name not in policy.identities:
            raise InvalidArgument(f"the policy has no identity {name!r}: it has {', '.join(policy.identities)}")
        return policy.identities[name]
    listener = next((each.removeprefix(LISTENER) for each in callers if each.startswith(LISTENER)), "")
    names = tuple(each for each in callers if not each.startswith(LISTENER))
    return policy.identify(Peer("", listener, names))
