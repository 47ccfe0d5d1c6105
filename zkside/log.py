"""Every line that the daemon can log. `from zkside import log`, then `log.session_lost(reason=…, epoch=…)`.

Names are stable, and so are fields; the words of a message are not. No field ever has a secret, a resume token or a
node's data as its value. docs/logging.md is generated from this file; zkside/log_event.py says how it works.
"""

from __future__ import annotations

from logging import DEBUG, ERROR, INFO, WARNING
from pathlib import Path

from zkside.log_event import event

FOREIGN = "library.line"
"""The event of a line that a library wrote."""

FIELDS = {
    "address": "where the daemon listens, or where a server is, as `host:port` or `unix:/path`",
    "addresses": "where clients are served",
    "age_s": "how long it was there, in seconds",
    "applied": "keys of the configuration that have a new value now",
    "aside": "what a damaged file is called from now on",
    "back_s": "after so many seconds the level is again what the configuration says; 0: it stays",
    "bound": "the file that a journal was written to: the kernel's boot id, device and inode",
    "epoch": "the number of the session's epoch; 0 before the first",
    "error": "what went wrong, in words",
    "file": "a file's path",
    "grace_s": "how long the orderly stop may take, in seconds",
    "history": "the number of ZooKeeper's history, as this daemon counts",
    "hold_id": "the hold's id",
    "holds": "holds, counted",
    "http_port": "the port of /metrics and the pages; 0: none",
    "identities": "identities of the policy, counted",
    "incident": "the id that the client was told",
    "kind": "the hold's recipe: `lock`, `election`, …",
    "left": "how many are left",
    "line": "what a library wrote, cut after 1,000 bytes",
    "lines": "lines, counted",
    "level": "a level: `debug`, `info`, `warning`, `error`",
    "margin_s": "what is taken off the lease, in seconds",
    "method": "the call, as `zkside.v1.NodeService/Set`",
    "needs_restart": "changed keys of the configuration that have no effect before the next start",
    "path": "a node's path",
    "pid": "the daemon's process",
    "problems": "what is wrong with the configuration, one text each",
    "reason": "why, in words; of a hold one of the Reasons of hold.proto",
    "seen_zxid": "the newest zxid that was seen before, in hexadecimal",
    "server": "the ZooKeeper server, as `host:port`",
    "session_id": "the ZooKeeper session, in hexadecimal",
    "signal": "the signal's name",
    "size_bytes": "bytes",
    "source": "which certificates, tokens or policy",
    "streams": "streams, counted",
    "task": "a task's name",
    "timeout_s": "the session's timeout, in seconds",
    "token": "the fencing token",
    "version": "of zkside",
    "waiting": "lines that wait to be written",
    "whose": "the logger whose level it is: `zkside.session`, `kazoo`, …, or `all loggers`",
    "what": "at which occasion",
    "zxid": "a zxid, in hexadecimal",
}
"""Every field, with one meaning for all events."""


# The daemon


@event("daemon.serving", INFO, "serving at {addresses}")
def daemon_serving(*, addresses: tuple[str, ...], http_port: int, version: str, pid: int) -> None:
    """Every listener is open. Whether ZooKeeper is there is another question."""


@event("daemon.stopping", INFO, "{signal}: stopping")
def daemon_stopping(*, signal: str) -> None:
    """The orderly stop begins."""


@event("daemon.stopped", INFO, "stopped")
def daemon_stopped() -> None:
    """The last line of an orderly stop."""


@event("daemon.cut", WARNING, "{signal} again: cut")
def daemon_cut(*, signal: str) -> None:
    """The orderly stop was not waited for; the process ends with 1."""


@event("daemon.stop_late", ERROR, "the gRPC server did not stop within the grace of {grace_s:g} s: cut")
def daemon_stop_late(*, grace_s: float) -> None:
    """Streams or calls were cut off."""


@event(
    "daemon.session_left",
    WARNING,
    "the session is left to end by itself: owners without a stream may still believe in their holds",
)
def daemon_session_left() -> None:
    """The daemon ends without closing its session, for the sake of mutual exclusion."""


@event("daemon.draining", INFO, "draining: {holds} holds are asked back, {streams} streams end")
def daemon_draining(*, holds: int, streams: int) -> None:
    """New streams and holds are refused from now on. The daemon stays up."""


@event("daemon.drained", INFO, "drained: {holds} holds released, {streams} streams ended")
def daemon_drained(*, holds: int, streams: int) -> None:
    """No stream and no hold is left."""


@event("daemon.dumped", INFO, "the state is written to {file} ({size_bytes} bytes)")
def daemon_dumped(*, file: Path, size_bytes: int) -> None:
    """The answer to SIGUSR1."""


@event("daemon.dump_failed", ERROR, "the state cannot be written to {file}: {error}", with_trace=True)
def daemon_dump_failed(*, file: Path, error: BaseException) -> None:
    """The answer to SIGUSR1 that could not be given."""


@event("daemon.no_stacks_file", WARNING, "stacks will be written to standard error, {file} cannot be made: {error}")
def daemon_no_stacks_file(*, file: Path, error: BaseException) -> None:
    """SIGUSR2 would have written the stacks of all threads there."""


@event("task.died", ERROR, "the permanent task {task} died and is started again: {error}", with_trace=True)
def task_died(*, task: str, error: BaseException) -> None:
    """An error of zkside's own. What the task kept current is stale until it has been compared again."""


@event("task.work_died", ERROR, "the task {task} died: {error}", with_trace=True)
def task_work_died(*, task: str, error: BaseException) -> None:
    """An error of zkside's own, in a task for one purpose. It is begun again once; then its owner hears the error."""


@event("task.gave_up", ERROR, "the task {task} died again and again: the daemon ends for its successor: {error}")
def task_gave_up(*, task: str, error: BaseException) -> None:
    """It ends with status 70. With a state_dir the session and its holds are left to the next daemon."""


@event("listener.opened", INFO, "listening at {address}")
def listener_opened(*, address: str) -> None:
    """Clients, or the probes of `health.listen`, are served there."""


@event("listener.lost", WARNING, "the socket's file at {address} is gone or is another one: it is made again")
def listener_lost(*, address: str) -> None:
    """Whoever wanted to connect in between could not. Streams that were open go on. Find out what removes it."""


@event("listener.shut", ERROR, "nobody can connect to {address} any more; trying to make it again: {error}")
def listener_shut(*, address: str, error: str) -> None:
    """The socket's file is gone and cannot be made again as it is. The daemon is not ready."""


@event(
    "listener.permissions_restored", WARNING, "the permissions of {address} were changed: they are as configured again"
)
def listener_permissions_restored(*, address: str) -> None:
    """`socket_mode` and `socket_group` say what they are to be, or the options of the listener."""


@event("http.restarted", ERROR, "the thread that serves the HTTP pages has ended: another one goes on")
def http_restarted() -> None:
    """An error of zkside's own. The pages are served again."""


@event("http.failed", WARNING, "a request for an HTTP page could not be served: {error}")
def http_failed(*, error: BaseException) -> None:
    """It may be that no more thread can be had, or no memory."""


@event("config.reloaded", INFO, "configuration read again: in force now: {applied}; after a restart: {needs_restart}")
def config_reloaded(*, applied: tuple[str, ...], needs_restart: tuple[str, ...]) -> None:
    """The file was read again, and is valid."""


@event("config.refused", ERROR, "configuration read again, and left as it was: {problems}")
def config_refused(*, problems: tuple[str, ...]) -> None:
    """The file was read again, and cannot be used. Nothing has changed."""


@event("files.loaded", INFO, "{source}: read again")
def files_loaded(*, source: str) -> None:
    """Certificates, tokens or the policy have changed, and what is new is in force."""


@event("files.refused", ERROR, "{source}: not read again, what was read before stays in use: {error}")
def files_refused(*, source: str, error: BaseException) -> None:
    """Certificates, tokens or the policy have changed, and cannot be used as they are."""


@event("log.level_set", INFO, "log level of {whose} is {level}, for {back_s:g} s (0: until told otherwise)")
def log_level_set(*, whose: str, level: str, back_s: float) -> None:
    """Somebody asked for it with `zkside log-level`."""


@event("log.level_restored", INFO, "log level of {whose} is {level} again")
def log_level_restored(*, whose: str, level: str) -> None:
    """The time of a level that was set for a while is over."""


@event("stderr.line", INFO, "a library wrote to standard error: {line}")
def stderr_line(*, line: str) -> None:
    """Only if gRPC was asked for it with GRPC_VERBOSITY. What a peer sent may be in it, and is not to be believed."""


@event("stderr.left_out", WARNING, "{lines} more lines of libraries to standard error are left out")
def stderr_left_out(*, lines: int) -> None:
    """They came faster than 100 a second."""


# The session


@event("session.connecting", INFO, "session connecting: {reason} (epoch {epoch})")
def session_connecting(*, reason: str, epoch: int, session_id: str) -> None:
    """There is no session; the next one is looked for."""


@event("session.connected", INFO, "session connected: {reason} (epoch {epoch})")
def session_connected(*, reason: str, epoch: int, session_id: str) -> None:
    """There is a session, and ZooKeeper answers."""


@event("session.read_only", WARNING, "session connected_read_only: {reason} (epoch {epoch})")
def session_read_only(*, reason: str, epoch: int, session_id: str) -> None:
    """Connected to a server that is cut off from its quorum: reads only."""


@event("session.suspended", WARNING, "session suspended: {reason} (epoch {epoch})")
def session_suspended(*, reason: str, epoch: int, session_id: str) -> None:
    """No connection. Holds are in jeopardy, and held until the lease ends."""


@event("session.lost", ERROR, "session lost: {reason} (epoch {epoch})")
def session_lost(*, reason: str, epoch: int, session_id: str) -> None:
    """What the session owned is gone: every lock, leadership and membership."""


@event("session.auth_failed", ERROR, "session auth_failed: {reason} (epoch {epoch})")
def session_auth_failed(*, reason: str, epoch: int, session_id: str) -> None:
    """ZooKeeper refuses the daemon's credentials. It is asked again, ever more rarely."""


@event("session.closed", INFO, "session closed: {reason} (epoch {epoch})")
def session_closed(*, reason: str, epoch: int, session_id: str) -> None:
    """The daemon stops."""


@event(
    "session.history_changed",
    ERROR,
    "ZooKeeper's history went back: {reason}. History {history} begins; zxids and fencing tokens of before cannot be "
    "compared with those from now on",
)
def session_history_changed(*, history: int, reason: str, seen_zxid: str, zxid: str) -> None:
    """ZooKeeper was wiped, or restored from an older snapshot. `history` counts, from 1."""


@event("session.orphan_deleted", INFO, "deleting the orphan {path} of the daemon before")
def session_orphan_deleted(*, path: str) -> None:
    """An ephemeral node of the session that was taken up, and that no hold of the journal owns."""


@event(
    "session.orphans_unknown",
    WARNING,
    "what the session owns cannot be listed, so no orphans are deleted: {error}",
)
def session_orphans_unknown(*, error: BaseException) -> None:
    """Nodes of a daemon before may stay until the session ends."""


@event("session.no_connection", ERROR, "no connection to ZooKeeper can be made; trying again", with_trace=True)
def session_no_connection(*, error: BaseException) -> None:
    """An error of zkside's own, not of the network."""


@event(
    "session.rebuilt", ERROR, "the session met an error of its own; making a new connection: {error}", with_trace=True
)
def session_rebuilt(*, error: BaseException) -> None:
    """An error of zkside's own. The session goes on."""


@event(
    "session.listener_failed",
    ERROR,
    "a listener of the session failed at {what}; the others are told all the same",
    with_trace=True,
)
def session_listener_failed(*, what: str, error: BaseException) -> None:
    """An error of zkside's own."""


@event(
    "session.margin_cut",
    WARNING,
    "the lease's margin of {margin_s:g} s is cut to half of the session timeout of {timeout_s} s",
)
def session_margin_cut(*, margin_s: float, timeout_s: float) -> None:
    """ZooKeeper granted a shorter timeout than the lease's margin was meant for."""


# The connection to ZooKeeper


@event("connection.failed", WARNING, "ZooKeeper at {server}: {error}")
def connection_failed(*, server: str, error: str) -> None:
    """This server could not be reached, or refused; the next one is tried. The same again is logged once a minute."""


@event("connection.dropped", WARNING, "dropping the connection to ZooKeeper: {error}", with_trace=True)
def connection_dropped(*, error: BaseException) -> None:
    """What came cannot be understood; a new connection is made."""


@event("connection.rebuilt", ERROR, "the connection to ZooKeeper is made anew: {error}", with_trace=True)
def connection_rebuilt(*, error: BaseException) -> None:
    """An error of zkside's own."""


@event(
    "connection.watches_emulated",
    WARNING,
    "this ZooKeeper has no persistent watches; they are emulated with one-shot watches",
)
def connection_watches_emulated() -> None:
    """ZooKeeper before 3.6, or one with `WatchManagerOptimized`."""


# What is kept on disk


@event("journal.set_aside", WARNING, "journal set aside as {aside}, starting with a new session: {reason}")
def journal_set_aside(*, aside: Path, reason: str) -> None:
    """The journal is damaged, or another ensemble's."""


@event(
    "journal.copied",
    ERROR,
    "the journal is a copy, or was moved: it was written as [{bound}]. Its session may be another daemon's and is left "
    "alone; the file is set aside as {aside}, starting with a new session",
)
def journal_copied(*, aside: Path, bound: str) -> None:
    """Each daemon needs a `state_dir` of its own. A directory that was moved on purpose is all right from now on."""


@event("journal.made_anew", ERROR, "{file} was removed while the daemon ran: made anew, with all that was in it")
def journal_made_anew(*, file: Path) -> None:
    """Somebody removed or replaced `state_dir` or a file in it. Nothing is lost, unless the daemon had ended before."""


@event("journal.given_up", ERROR, "the state directory was removed, and now {error}; going on without a journal")
def journal_given_up(*, error: BaseException) -> None:
    """Another daemon took the directory first: this one's session will not survive a restart."""


@event("journal.not_written", ERROR, "{error}")
def journal_not_written(*, error: BaseException) -> None:
    """It weakens the next start, not this session. Look whether the disk is full."""


@event("journal.hold_stays", ERROR, "hold {hold_id} is over, but stays in the journal: {error}")
def journal_hold_stays(*, hold_id: str, error: BaseException) -> None:
    """A later daemon will find the row, and that its node is gone."""


@event("cache.set_aside", WARNING, "{file} cannot be read ({error}): set aside as {aside}, starting without it")
def cache_set_aside(*, file: Path, error: BaseException, aside: Path) -> None:
    """The caches of the daemon before are damaged, or another version's."""


@event("cache.not_saved", ERROR, "{error}")
def cache_not_saved(*, error: BaseException) -> None:
    """The caches on disk stay as they were. It weakens the next start, not this daemon. Is the disk full?"""


# Caches, holds, calls


@event("cache.compare_interrupted", INFO, "comparing the caches with ZooKeeper was interrupted: {error}")
def cache_compare_interrupted(*, error: BaseException) -> None:
    """The caches stay stale until the next connection."""


@event("cache.read_failed", WARNING, "reading {path} failed, what covers it is stale: {reason}")
def cache_read_failed(*, path: str, reason: str) -> None:
    """ZooKeeper answered with an error, or with more than `zookeeper.max_reply`. It is tried again and again."""


@event("cache.revalidation_failed", WARNING, "looking again at what is cached failed, and is repeated: {error}")
def cache_revalidation_failed(*, error: BaseException) -> None:
    """A change of an ACL may be noticed later than `hub.revalidate_interval` promises."""


@event("cache.read_again", INFO, "{path} can be read again")
def cache_read_again(*, path: str) -> None:
    """Subtrees that cover it are current again, unless something else keeps them stale."""


@event("hub.invariant", ERROR, "not kept current, and stale from now on ({what}): {reason}")
def hub_invariant(*, what: str, reason: str) -> None:
    """Something said that it was current and was watched by nobody. It is compared with ZooKeeper again."""


@event("janitor.gave_up", WARNING, "janitor: {path} is not deleted and stays until the session ends: {reason}")
def janitor_gave_up(*, path: str, reason: str) -> None:
    """ZooKeeper does not let the daemon delete what a hold left."""


@event("numbers.run_out", WARNING, "{left} sequence numbers are left for the children of {path}")
def numbers_run_out(*, path: str, left: int) -> None:
    """Told again at the half of that. At 0 sequential creates there are refused: delete the parent once it is empty."""


@event("hold.granted", DEBUG, "{kind} {path} is held, token {token}")
def hold_granted(*, kind: str, path: str, hold_id: str, token: int, epoch: int) -> None:
    """A process owns it now."""


@event("hold.ended", DEBUG, "{kind} {path} is {reason}")
def hold_ended(*, kind: str, path: str, hold_id: str, reason: str, age_s: float) -> None:
    """A hold is over, or its wait is."""


@event("hold.node_unreadable", WARNING, "{path} may not be read ({reason}): its parent's list of children is followed")
def hold_node_unreadable(*, path: str, reason: str) -> None:
    """Somebody waits for the end of this node, whose access control list keeps the daemon out."""


@event("hold.unwatched", WARNING, "{path} cannot be watched, its deletion would not be noticed: {reason}")
def hold_unwatched(*, path: str, reason: str) -> None:
    """A hold goes on, and neither its node nor the list of its parent's children may be read."""


@event("hold.work_failed", ERROR, "{kind} {path} ends: {error}", with_trace=True)
def hold_work_failed(*, kind: str, path: str, error: BaseException) -> None:
    """An error of zkside's own."""


@event("rpc.incident", ERROR, "incident {incident} in {method}", with_trace=True)
def rpc_incident(*, incident: str, method: str, error: BaseException) -> None:
    """An error of zkside's own; the client was told this id and nothing else."""


# Policy and audit


@event("policy.applied", INFO, "the policy of {identities} identities is in force, {streams} streams end by it")
def policy_applied(*, identities: int, streams: int) -> None:
    """The policy's file was read, at the start or because it has changed. Whose streams end has lost a right."""


@event("audit.dropping", ERROR, "{waiting} lines wait for the audit log: more are dropped, and counted")
def audit_dropping(*, waiting: int) -> None:
    """The disk does not keep up. The audit log itself says how many lines it lacks."""


@event("audit.not_written", ERROR, "the audit log {file} cannot be written, and lacks lines from now on: {error}")
def audit_not_written(*, file: Path, error: BaseException) -> None:
    """The disk is full, or the directory is gone. It is tried again with every line."""
