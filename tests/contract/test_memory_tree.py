"""The tree keeps its invariants whatever is done to it, and a refused write leaves no trace."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.contract.strategies import writes
from zkside.errors import ZksideError
from zkside.model import path as paths
from zkside.model.operation import CreateMode, Operation, TransactionResult
from zkside.zk.memory_acl import Identities, Identity
from zkside.zk.memory_tree import Transition, Tree

ANN: Identities = frozenset({Identity("ip", "127.0.0.1"), Identity("digest", "ann:x")})


def dump(tree: Tree) -> dict[str, Any]:
    return {path: (node.data, node.acl, node.stat, set(node.children)) for path, node in tree.nodes.items()}


def check(tree: Tree) -> None:
    for path, node in tree.nodes.items():
        below = {paths.name(other) for other in tree.nodes if other != "/" and paths.parent(other) == path}
        assert set(node.children) == below
        assert path == "/" or paths.parent(path) in tree.nodes
        assert not (node.mode.is_ephemeral and node.children)
    owned = {path for path, node in tree.nodes.items() if node.mode.is_ephemeral}
    assert {path for session in tree.ephemerals.values() for path in session} == owned
    mortal = {path for path, node in tree.nodes.items() if node.ttl_ms or node.mode is CreateMode.CONTAINER}
    assert set(tree.perishable) == mortal


@given(script=st.lists(st.tuples(st.integers(1, 2), writes), max_size=40))
def test_every_write_is_whole_or_nothing(script: list[tuple[int, Operation[Any]]]) -> None:
    """N1"""
    tree = Tree()
    for zxid, (session_id, write) in enumerate(script, 1):
        before = dump(tree)
        transition = Transition(zxid, 1000 + zxid, session_id, ANN)
        try:
            result = tree.write(write, transition)
            refused = isinstance(result, TransactionResult) and not result.committed
        except ZksideError:
            refused = True
        check(tree)
        if refused:
            assert dump(tree) == before
            assert transition.changes == []
