"""Exit codes, one table; docs/cli.md shows it."""

from __future__ import annotations

from zkside import errors
from zkside.errors import ZksideError

OK = 0
ERROR = 1
USAGE = 2
NOT_FOUND = 3
EXISTS = 4
VERSION_CONFLICT = 5
REFUSED = 6
DENIED = 7
UNAVAILABLE = 8
TIMEOUT = 9
OUTCOME_UNKNOWN = 10
LOST = 11
TOO_LARGE = 12
NOT_SUPPORTED = 13
CANNOT_START = 14
NOT_GRANTED = 15
CANNOT_RUN = 126
NO_COMMAND = 127
HUNG_UP = 129
INTERRUPTED = 130
QUIT = 131
TERMINATED = 143

MEANINGS = {
    OK: "done",
    ERROR: "anything else; the message says what",
    USAGE: "the command line is wrong, or a path or an argument is not valid; nothing was sent",
    NOT_FOUND: "the node does not exist",
    EXISTS: "the node exists already",
    VERSION_CONFLICT: "the node has another version than expected",
    REFUSED: "refused for another reason: not empty, below an ephemeral, the access control list is not valid",
    DENIED: "not allowed, by ZooKeeper's access control list or by zkside's own policy",
    UNAVAILABLE: "no daemon, no session, not fresh enough, or over a limit; nothing was changed, try later",
    TIMEOUT: "no answer in time; a write may still be applied",
    OUTCOME_UNKNOWN: "a write was sent and its answer lost; read to find out",
    LOST: "the session or the hold was lost: what was owned is gone",
    TOO_LARGE: "larger than ZooKeeper or the daemon takes; nothing was sent",
    NOT_SUPPORTED: "the ZooKeeper server, or the daemon, cannot do this",
    CANNOT_START: "the daemon, or the private ZooKeeper, cannot start; or the configuration cannot be used",
    NOT_GRANTED: "not to be had in time (`--timeout`, `-n`): another has it, or a node of that name; nothing is left",
    CANNOT_RUN: "`lock`, `elect`, `join`: the command cannot be run",
    NO_COMMAND: "`lock`, `elect`, `join`: there is no such command",
    HUNG_UP: "ended by SIGHUP while it waited to hold something",
    INTERRUPTED: "interrupted by Ctrl-C (SIGINT)",
    QUIT: "ended by SIGQUIT while it waited to hold something",
    TERMINATED: "ended by SIGTERM while it waited to hold something",
}

CODES: tuple[tuple[type[ZksideError], int], ...] = (
    (errors.NoNode, NOT_FOUND),
    (errors.NodeExists, EXISTS),
    (errors.BadVersion, VERSION_CONFLICT),
    (errors.NoAuth, DENIED),
    (errors.Denied, DENIED),
    (errors.Refused, REFUSED),
    (errors.TooLarge, TOO_LARGE),
    (errors.NotSupported, NOT_SUPPORTED),
    (errors.BadRequest, USAGE),
    (errors.WaitTimeout, NOT_GRANTED),
    (errors.Unavailable, UNAVAILABLE),
    (errors.DeadlineExceeded, TIMEOUT),
    (errors.OutcomeUnknown, OUTCOME_UNKNOWN),
    (errors.ConnectionLoss, OUTCOME_UNKNOWN),
    (errors.SessionLost, LOST),
    (errors.HoldLost, LOST),
    (errors.StartError, CANNOT_START),
    (ZksideError, ERROR),
)
"""The first class that fits decides."""


def code_of(error: ZksideError) -> int:
    return next(code for kind, code in CODES if isinstance(error, kind))
