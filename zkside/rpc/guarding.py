"""The guard of a daemon with what it lives on: the policy's file, and the audit log."""

from __future__ import annotations

from zkside.core.policy import Policy
from zkside.hub.hub import Hub
from zkside.recipes.holds import Holds
from zkside.rpc.audit import AuditLog
from zkside.rpc.files import FileWatch, Kept
from zkside.rpc.guard import Guard
from zkside.rpc.policy_file import read_policy
from zkside.rpc.settings import RpcSettings
from zkside.rpc.tokens import Tokens


class Guarding:
    """Opened before the listeners are, and closed when no handler runs any more."""

    def __init__(self, settings: RpcSettings, files: FileWatch, holds: Holds, hub: Hub) -> None:
        self._settings = settings
        self._files = files
        self._policy: Kept[Policy] | None = None
        audit_file = settings.audit_file
        self._audit = None if audit_file is None else AuditLog(audit_file, settings.max_audit_waiting)
        self.guard = Guard(holds, hub, self._audit)

    def open(self) -> None:
        """Raises: StartError; `close` undoes what was done."""
        path = self._settings.policy_file
        if path is not None:
            self._policy = self._files.keep("policy", (path,), lambda: read_policy(path))
            self._policy.on_change(self.guard.apply)
            self.guard.apply(self._policy.value)
        if self._audit is not None:
            self._audit.open()

    def tokens_changed(self, tokens: Tokens) -> None:
        """Streams that came in by a token which is not known any more end."""
        self.guard.recheck()

    def close(self) -> None:
        """Waits a moment for the audit log to be written. Idempotent."""
        if self._policy is not None:
            self._files.forget(self._policy)
            self._policy = None
        if self._audit is not None:
            self._audit.close()
