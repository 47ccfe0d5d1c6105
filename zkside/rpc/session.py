"""SessionService: the state of the one session, once or as it changes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from zkside.errors import Quota
from zkside.model.session import SessionStatus
from zkside.pb import session_pb2
from zkside.rpc import convert
from zkside.rpc.interceptors import Call, StreamCall
from zkside.zk.session import Session

MAX_UNREAD = 1024


class SessionServicer:
    """`session.proto`, which documents the promises."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get_session(self, request: session_pb2.GetSessionRequest, call: Call) -> session_pb2.GetSessionResponse:
        session = self._session
        return session_pb2.GetSessionResponse(
            header=convert.header(session, session.last_zxid), session=convert.session(session.status, session)
        )

    async def watch_session(
        self, request: session_pb2.WatchSessionRequest, call: StreamCall
    ) -> AsyncGenerator[session_pb2.WatchSessionResponse, None]:
        """The unread changes are kept, not merged: S2 says that none is skipped."""
        session = self._session
        unread = deque([session.status])
        woken = asyncio.Event()
        woken.set()

        def heard(status: SessionStatus) -> None:
            if len(unread) <= MAX_UNREAD:
                unread.append(status)
            woken.set()

        call.stream.pending = lambda: len(unread)
        unlisten = session.listen(status=heard)
        try:
            while True:
                await woken.wait()
                woken.clear()
                while unread:
                    if len(unread) > MAX_UNREAD:
                        raise Quota(
                            f"more than {MAX_UNREAD} changes of the session were left unread", limit="max_unread"
                        )
                    status = unread.popleft()
                    yield session_pb2.WatchSessionResponse(
                        header=convert.header(session, session.last_zxid), session=convert.session(status, session)
                    )
        finally:
            unlisten()
