"""A daemon with a policy, in this process, with a socket for each of its listeners' identities."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from tests.rpc.host import Host, Stubs
from zkside.rpc.listeners import UnixListener


class Guarded(Host):
    """`async with Guarded(hosts, directory, POLICY, "app", "ops") as daemon`, then `daemon.stubs_of("app")`."""

    def __init__(
        self, hosts: str, directory: Path, policy: str | None, *listeners: str, at: tuple[Any, ...] = (), **more: Any
    ) -> None:
        """`at`: listeners as they are, instead of those sockets."""
        self.directory = directory
        self.policy_file = directory / "policy.toml"
        if policy is not None:
            self.policy_file.write_text(policy)
        self.audit_file = directory / "audit.log"
        super().__init__(
            hosts,
            directory,
            listeners=at or tuple(UnixListener(directory / f"{name}.sock", identity=name) for name in listeners),
            policy_file=self.policy_file if policy is not None else None,
            audit_file=self.audit_file,
            **more,
        )

    def stubs_of(self, listener: str) -> Stubs:
        """A client of that socket, with a connection of its own."""
        return Stubs(f"unix:{self.directory / listener}.sock")

    def replace_policy(self, policy: str) -> None:
        """Write another one, and have it read now instead of within seconds."""
        self.policy_file.write_text(policy)
        assert not self.files.read_now()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    def audited(self) -> list[dict[str, Any]]:
        """All lines of the audit log; the daemon has to have stopped."""
        return [json.loads(line) for line in self.audit_file.read_text().splitlines()]


def identity(name: str, rules: Iterable[tuple[str, str]] = (), *, callers: str = "", more: str = "") -> str:
    """The lines of a policy for one identity; rules are (path, "read write")."""
    lines = [f"[identities.{name}]", f"callers = [{callers or json.dumps(f'listener:{name}')}]", more]
    for path, verbs in rules:
        lines += [f"[[identities.{name}.rules]]", f"path = {json.dumps(path)}", f"verbs = {json.dumps(verbs.split())}"]
    return "\n".join(lines) + "\n"
