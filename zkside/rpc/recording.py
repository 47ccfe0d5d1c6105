"""What the audit log is told of one request, from its beginning to its end."""

from __future__ import annotations

import asyncio
from typing import Any

from zkside.errors import Denied, ZksideError
from zkside.model.identity import Peer
from zkside.pb import node_pb2
from zkside.rpc import status
from zkside.rpc.audit import AuditLog, Entry

_CODES = {kind.reason: row.code.name for kind, row in status.TABLE.items()}


class Record:
    """One request. What only reads is told of where it is denied."""

    __slots__ = ("_audit", "_is_audited", "_method", "_peer", "identity", "paths")

    def __init__(self, audit: AuditLog | None, method: str, peer: Peer | None, *, is_audited: bool) -> None:
        self._audit = audit
        self._method = method
        self._peer = peer
        self._is_audited = is_audited
        self.identity = ""
        self.paths: tuple[str, ...] = ()
        """Of the tree, as far as they are known."""

    def answered(self, answer: Any) -> None:
        """A unary call has its answer."""
        if self._audit is not None and self._is_audited:
            committed = answer.committed if isinstance(answer, node_pb2.TransactResponse) else None
            self._put("call", "OK", zxid=answer.header.zxid, committed=committed)

    def one_answered(self, answer: node_pb2.PipelineResponse, paths: tuple[str, ...]) -> None:
        """A message of a Pipeline has its answer."""
        if self._audit is not None and self._is_audited:
            self.paths = paths
            reason = answer.result.failure.reason
            self._put("call", _CODES.get(reason, "UNKNOWN") if reason else "OK", reason, zxid=answer.header.zxid)

    def granted(self, path: str, fencing_token: int) -> None:
        """A hold is held; `path` is that of its node."""
        if self._audit is not None:
            self.paths = (path,)
            self._put("granted", "OK", fencing_token=fencing_token)

    def ended(self, reason: str, fencing_token: int) -> None:
        """The stream of a hold has had its last message."""
        if self._audit is not None:
            self._put("ended", "OK", reason, fencing_token=fencing_token)

    def failed(self, error: BaseException, *, event: str = "call", fencing_token: int = 0) -> None:
        """It ends so."""
        if self._audit is None or not (self._is_audited or isinstance(error, Denied)):
            return
        if isinstance(error, ZksideError):
            self._put(event, status.row(type(error)).code.name, error.reason, fencing_token=fencing_token)
        elif isinstance(error, TimeoutError):
            self._put(event, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", fencing_token=fencing_token)
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._put(event, "CANCELLED", fencing_token=fencing_token)
        else:
            self._put(event, "INTERNAL", fencing_token=fencing_token)

    def _put(
        self,
        event: str,
        code: str,
        reason: str = "",
        *,
        zxid: int = 0,
        fencing_token: int = 0,
        committed: bool | None = None,
    ) -> None:
        assert self._audit is not None
        self._audit.put(
            Entry(
                event,
                self.identity,
                self._peer,
                self._method,
                self.paths,
                code,
                reason,
                zxid=zxid,
                fencing_token=fencing_token,
                committed=committed,
            )
        )
