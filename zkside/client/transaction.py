"""A transaction, collected step by step and committed at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zkside.client import operation
from zkside.client.answer import TransactAnswer
from zkside.client.link import Link
from zkside.client.value import Acl, CreateMode, header_of
from zkside.errors import NotAttempted, RolledBack, ZksideError
from zkside.pb import node_pb2

if TYPE_CHECKING:
    from zkside.pb.node_pb2_grpc import NodeServiceAsyncStub


class Transaction:
    """Ordered operations that are applied all or none, at one zxid (N1).

        await client.transaction().check("/a", version=3).set("/b", b"x").delete("/c").commit()

    Each step returns the transaction itself. Nothing is sent before `commit`.
    """

    def __init__(self, link: Link, stub: NodeServiceAsyncStub, guard_hold_id: str) -> None:
        self._link = link
        self._stub = stub
        self._request = node_pb2.TransactRequest(guard_hold_id=guard_hold_id)

    def __len__(self) -> int:
        return len(self._request.operations)

    def create(
        self,
        path: str,
        data: bytes = b"",
        *,
        mode: CreateMode = CreateMode.PERSISTENT,
        acl: Sequence[Acl] | None = None,
    ) -> Transaction:
        request = operation.create_request(path, data, mode=mode, acl=acl)
        self._request.operations.append(node_pb2.Operation(create=request))
        return self

    def set(self, path: str, data: bytes, *, version: int | None = None) -> Transaction:
        request = operation.set_request(path, data, version=version)
        self._request.operations.append(node_pb2.Operation(set=request))
        return self

    def delete(self, path: str, *, version: int | None = None) -> Transaction:
        request = operation.delete_request(path, version=version)
        self._request.operations.append(node_pb2.Operation(delete=request))
        return self

    def check(self, path: str, *, version: int | None = None) -> Transaction:
        """The node must exist, with this version if one is given."""
        request = operation.check_request(path, version=version)
        self._request.operations.append(node_pb2.Operation(check=request))
        return self

    async def commit(
        self, *, timeout_s: float | None = None, wait_for_ready: bool = False, raise_refused: bool = True
    ) -> TransactAnswer:
        """Apply all operations, or none.

        Raises: the error of the operation that was refused, with its index in `metadata["operation"]`
        (nothing was changed; `raise_refused=False` returns the answer instead, with a result for each
        operation); HoldLost if the guarding hold is not held; OutcomeUnknown.
        """
        message = await self._link.call(
            self._stub.Transact,
            self._request,
            timeout_s=timeout_s,
            wait_for_ready=wait_for_ready,
            writes=True,
        )
        header = header_of(message.header)
        results = tuple(operation.result_of(result, header) for result in message.results)
        answer = TransactAnswer(header, message.committed, results)
        if raise_refused and not answer.committed:
            raise culprit(answer)
        return answer


def culprit(answer: TransactAnswer) -> ZksideError:
    """The error for which a transaction was refused."""
    for index, result in enumerate(answer.results):
        if isinstance(result, ZksideError) and not isinstance(result, RolledBack | NotAttempted):
            result.metadata["operation"] = str(index)
            return result
    return ZksideError("the transaction was refused, and the daemon did not say why; nothing was changed")
