"""The tree that benchmarks load: /bench/<directory>/<leaf>, small nodes."""

from __future__ import annotations

from bench.stand import Kazoo

ROOT = "/bench"
LEAVES_PER_DIRECTORY = 1000
DATA_SIZE_BYTES = 32


def plant(client: Kazoo, nodes: int) -> int:
    """Create the tree, about so many nodes; returns how many there are, with root and directories."""
    directories = max(1, round(nodes / (LEAVES_PER_DIRECTORY + 1)))
    leaves = min(LEAVES_PER_DIRECTORY, nodes)
    client.create(ROOT)
    pending = []
    for directory in range(directories):
        transaction = client.transaction()
        transaction.create(path := f"{ROOT}/{directory:04}")
        for leaf in range(leaves):
            transaction.create(f"{path}/{leaf:06}", b"%032d" % leaf)
        pending.append(transaction.commit_async())
        if len(pending) == 4:
            _check(pending.pop(0).get())
    for commit in pending:
        _check(commit.get())
    return 1 + directories * (leaves + 1)


def _check(results: list[object]) -> None:
    for result in results:
        if isinstance(result, Exception):
            raise result


def leaves(count: int) -> list[str]:
    """The first so many leaves of a tree that has them."""
    return [f"{ROOT}/{number // LEAVES_PER_DIRECTORY:04}/{number % LEAVES_PER_DIRECTORY:06}" for number in range(count)]
