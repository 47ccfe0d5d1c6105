"""What the gRPC server is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from zkside.model.identity import Auth
from zkside.model.operation import OPEN_ACL, Acl
from zkside.rpc.listeners import Listener, TcpListener, TlsFiles
from zkside.rpc.streams import QuotaSettings


@dataclass(frozen=True, slots=True)
class RpcSettings:
    listeners: tuple[Listener, ...]
    health_listener: TcpListener | None = None
    """Where a second server answers grpc.health.v1 and nothing else; may be beyond loopback, for the probes of
    an orchestrator."""
    quotas: QuotaSettings = field(default_factory=QuotaSettings)
    default_acl: tuple[Acl, ...] = OPEN_ACL
    backend: str = "kazoo"
    """For GetStatus."""
    tls: TlsFiles | None = None
    """Of all listeners that have `tls`."""
    token_files: tuple[Path, ...] = ()
    """Files, or directories of them, with bearer tokens; none: what callers send is not looked at."""
    policy_file: Path | None = None
    """Who may do what (core/policy.py); None: everybody who can connect may do everything."""
    audit_file: Path | None = None
    """The audit log (rpc/audit.py); None: none."""
    max_audit_waiting: int = 10_000
    """Lines that wait to be written to it; more are dropped, and counted."""

    @property
    def is_guarded(self) -> bool:
        """Whether what callers do is decided on, or recorded."""
        return self.policy_file is not None or self.audit_file is not None

    @property
    def tells_callers_apart(self) -> bool:
        """Whether it matters who calls, and by which listener."""
        return (
            self.is_guarded
            or bool(self.token_files)
            or any(
                listener.identity
                or listener.auth is not Auth.NONE
                or (isinstance(listener, TcpListener) and listener.tls)
                for listener in self.listeners
            )
        )
