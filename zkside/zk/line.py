"""The present connection object, which can be exchanged for another and is not heard after that.

The line outlives connections and sessions, and so it knows what zxid was seen last, and in which history.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from zkside.model.event import WatchedEvent
from zkside.model.operation import Operation
from zkside.zk.history import History
from zkside.zk.port import Connected, Connecting, Connection, ConnectionStatistics, Connector, Ending, Ticket


class Reports(Protocol):
    """What the present connection reports, each with its link: what is done about one report may cut it."""

    def on_connected(self, link: Link, connected: Connected) -> None: ...

    def on_suspended(self, link: Link, reason: str) -> None: ...

    def on_ended(self, link: Link, ending: Ending, reason: str) -> None: ...

    def on_event(self, link: Link, event: WatchedEvent) -> None: ...

    def on_acknowledged(self, link: Link, operation: Operation[object] | None, sent_ns: int) -> None: ...


class Link:
    """One connection's listener, until it is cut: from then on it is deaf."""

    __slots__ = ("_reports", "is_live")

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self.is_live = True

    def connected(self, connected: Connected) -> None:
        if self.is_live:
            self._reports.on_connected(self, connected)

    def suspended(self, reason: str) -> None:
        if self.is_live:
            self._reports.on_suspended(self, reason)

    def ended(self, ending: Ending, reason: str) -> None:
        if self.is_live:
            self._reports.on_ended(self, ending, reason)

    def event(self, event: WatchedEvent) -> None:
        if self.is_live:
            self._reports.on_event(self, event)

    def acknowledged(self, operation: Operation[object] | None, sent_boottime_ns: int) -> None:
        if self.is_live:
            self._reports.on_acknowledged(self, operation, sent_boottime_ns)


class Line:
    """At most one live link at a time."""

    def __init__(self, connector: Connector, reports: Reports, history: History) -> None:
        self._history = history
        self._connector = connector
        self._reports = reports
        self._link: Link | None = None
        self.connection: Connection | None = None
        self._connecting = Connecting()

    @property
    def last_zxid(self) -> int:
        """The newest zxid in any reply on any connection of the present history."""
        connection = self.connection
        return max(self._history.seen_zxid, connection.last_zxid) if connection is not None else self._history.seen_zxid

    def judge(self, error: BaseException | None) -> None:
        """The leader has answered a `sync` in a new session: go on in the same history, or begin another.

        Raises: the error of the `sync` if no server has told its zxid. (One that refuses has applied the session's
        creation all the same, and its refusal says as of when.)
        """
        assert self.connection is not None
        if error is not None and not self.connection.last_zxid:
            raise error
        self._history.judge(self.connection.last_zxid)

    def statistics(self) -> ConnectionStatistics | None:
        """Of the present connection."""
        return self.connection.statistics() if self.connection is not None else None

    def connecting(self) -> Connecting:
        """As of now, or of the last connection that there was."""
        present = self.statistics()
        return self._connecting if present is None else present.connecting

    def open(self, ticket: Ticket | None) -> None:
        """With the session of the ticket, or a new one. Raises: what the connector raises."""
        self.cut()
        link = self._link = Link(self._reports)
        if ticket is not None:
            self._history.seen_zxid = max(self._history.seen_zxid, ticket.last_zxid)
            # The server must not be behind what this session has seen already.
            ticket = replace(ticket, last_zxid=self._history.seen_zxid)
        self.connection = self._connector(link, ticket)
        self.connection.start()

    def deafen(self) -> Connection | None:
        """The connection, which from now on is not heard whatever it does."""
        self._history.seen_zxid = self.last_zxid
        self._connecting = self.connecting()
        connection, self.connection = self.connection, None
        if self._link is not None:
            self._link.is_live = False
        self._link = None
        return connection

    def cut(self) -> None:
        connection = self.deafen()
        if connection is not None:
            connection.abandon()


def tell(connection: Connection, operation: Operation[object]) -> None:
    """Ask for something whose outcome is heard elsewhere. An error is taken note of here, so that asyncio does not
    report it."""
    connection.call(operation).add_done_callback(lambda done: done.cancelled() or done.exception())
