"""The daemon's configuration: a frozen tree, read from a TOML file, then the environment, then flags.

Each later source wins over the ones before. The key `zookeeper.session_timeout` stands in the file as
`session_timeout` of the table `[zookeeper]`, in the environment as `ZKSIDE_ZOOKEEPER_SESSION_TIMEOUT`, and as
the flag `--zookeeper-session-timeout`. What no key is called is refused. docs/configuration.md is generated
from this file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from zkside.config_kinds import (
    AclEntry,
    Address,
    Choice,
    Duration,
    File,
    Flag,
    Kind,
    Listen,
    Mode,
    Number,
    Password,
    Secret,
    Several,
    Size,
    Text,
    collector_address,
)
from zkside.model.identity import Auth
from zkside.model.operation import OPEN_ACL, Acl


def _key(kind: Kind[Any], default: object, help_text: str, *, live: bool = False) -> Any:
    """`live`: a new value has its effect when the configuration is read again, without a restart."""
    return field(default=default, metadata={"kind": kind, "help": help_text, "live": live})


class SaslMechanism(Enum):
    NONE = ""
    DIGEST_MD5 = "DIGEST-MD5"
    PLAIN = "PLAIN"
    GSSAPI = "GSSAPI"


class LeaseProof(Enum):
    PING = "ping"
    SYNC = "sync"
    WRITE = "write"


class AtShutdown(Enum):
    RELEASE = "release"
    KEEP_SESSION = "keep_session"


class LogLevel(Enum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(Enum):
    TEXT = "text"
    JSON = "json"


def default_address(environment: dict[str, str] | os._Environ[str] = os.environ) -> Address:
    """The socket where a daemon listens and a client looks for it unless they are told otherwise."""
    return Address(path=f"{environment.get('XDG_RUNTIME_DIR') or '/run'}/zkside/zkside.sock")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to ZooKeeper. All files are read again when they change."""

    enabled: bool = _key(Flag(), False, "Whether to speak TLS to ZooKeeper.")
    ca: Path | None = _key(File(), None, "The authorities to trust, as a PEM file; the system's where none is given.")
    cert: Path | None = _key(File(), None, "The daemon's own certificate, as a PEM file.")
    key: Path | None = _key(File(), None, "Its private key, as a PEM file.")
    key_password: Secret | None = _key(Password(), None, "The password of that key.")
    verify_hostname: bool = _key(
        Flag(), True, "Whether the server's certificate must name the host that was connected to."
    )
    strict: bool = _key(
        Flag(),
        False,
        "Whether certificates must follow RFC 5280 to the letter, with an authority key identifier and a key usage for "
        "example. Many authorities make others; Python refuses those from 3.13 on unless it is told not to.",
    )


@dataclass(frozen=True, slots=True)
class Sasl:
    """SASL to ZooKeeper."""

    mechanism: SaslMechanism = _key(
        Choice(SaslMechanism), SaslMechanism.NONE, "How to authenticate; empty for not at all."
    )
    username: str = _key(Text(), "", "Of DIGEST-MD5 and PLAIN.")
    password: Secret | None = _key(Password(), None, "Of DIGEST-MD5 and PLAIN.")
    service: str = _key(Text(), "zookeeper", "The first part of the servers' Kerberos principal.")


@dataclass(frozen=True, slots=True)
class ZooKeeper:
    """The ensemble and the session."""

    hosts: str = _key(
        Text('"host:port,host:port/chroot"'),
        "127.0.0.1:2181",
        "The servers, and behind the last of them the chroot if there is one.",
    )
    create_chroot: bool = _key(
        Flag(),
        False,
        "Whether the daemon makes the chroot, with default_acl, if it is not there; otherwise it waits for it.",
    )
    session_timeout_s: float = _key(
        Duration(1, 600),
        10.0,
        "How long the session outlives its connection. ZooKeeper answers with what it grants.",
    )
    auth: tuple[Secret, ...] = _key(
        Several(Password('"scheme:credential" such as "digest:user:password", never printed')),
        (),
        "What `addauth` would be told, in order.",
    )
    read_only: bool = _key(Flag(), False, "Whether to go on reading from a server that is cut off from its quorum.")
    default_acl: tuple[Acl, ...] = _key(
        Several(AclEntry(), may_be_empty=False),
        OPEN_ACL,
        "The access control list of nodes that are created without one.",
    )
    max_in_flight: int = _key(Number(1, 100_000), 1000, "Requests sent and not answered; more wait inside the daemon.")
    max_queued: int = _key(Number(1, 1_000_000), 10_000, "Requests that wait so; one more is refused with QUOTA.")
    max_queued_size_bytes: int = _key(Size(1 << 20, 4 << 30), 64 << 20, "Bytes of requests that wait so.")
    connect_timeout_s: float | None = _key(
        Duration(0.01, 600, optional=True),
        None,
        "For one server: TCP and TLS, then once more the session. Where none is given: 5s, and less for the session "
        "when less is left of it.",
    )
    jute_maxbuffer_bytes: int = _key(
        Size(1 << 10, 1 << 30),
        (1 << 20) - 1,
        "As the servers have it; a larger request is refused with TOO_LARGE before it is sent.",
    )
    max_reply_bytes: int = _key(
        Size(1 << 20, 4 << 30), 64 << 20, "A larger answer of ZooKeeper fails its request with TOO_LARGE."
    )
    tls: Tls = field(default_factory=Tls)
    sasl: Sasl = field(default_factory=Sasl)


@dataclass(frozen=True, slots=True)
class Lease:
    """Until when this host may believe that it still owns its ephemerals; docs/session.md."""

    proof: LeaseProof = _key(
        Choice(LeaseProof),
        LeaseProof.WRITE,
        "What proves that the session lives: a write (a quorum), a sync (the leader, perhaps a deposed one), or a "
        "ping (a follower answers it alone).",
    )
    proof_interval_s: float = _key(Duration(0.05, 60), 0.5, "How often it is asked for while something is held.")
    tick_s: float = _key(Duration(0.01, 60), 2.0, "The servers' tickTime, which they do not tell; decides the margin.")
    margin_s: float | None = _key(
        Duration(0, 600, optional=True),
        None,
        "Taken off the lease; where none is given: half a tick plus the proof interval.",
    )


@dataclass(frozen=True, slots=True)
class Hub:
    """Watches and caches."""

    idle_eviction_s: float = _key(
        Duration(1, 86400),
        60.0,
        "How long a watch and its cache stay behind the last subscriber or cached read; also how long a "
        "stream can be resumed without a new Snapshot.",
        live=True,
    )
    max_cached_nodes: int = _key(
        Number(1000, 100_000_000),
        1_000_000,
        "Nodes in all caches; a target beyond is refused with QUOTA.",
        live=True,
    )
    max_cached_size_bytes: int = _key(
        Size(1 << 20, 1 << 40),
        192 << 20,
        "Bytes of the nodes in all caches; a target beyond is refused with QUOTA, and a cached read of another path "
        "is answered by ZooKeeper. Nodes that grow while they are watched may pass it.",
        live=True,
    )
    max_roots: int = _key(
        Number(1, 10_000_000),
        100_000,
        "Paths and subtrees kept in caches; cached reads of others are answered by ZooKeeper.",
        live=True,
    )
    window_size: int = _key(
        Number(1, 10_000_000),
        10_000,
        "Paths in the log of changes of one target: how far a subscriber can fall behind before it gets a "
        "new Snapshot.",
        live=True,
    )
    event_queue_size: int = _key(
        Number(1, 10_000_000),
        10_000,
        "Events that a subscriber in EVENTS mode may leave unread.",
        live=True,
    )
    snapshot_interval_s: float = _key(Duration(1, 86400), 30.0, "How often caches are written to state_dir.", live=True)
    revalidate_interval_s: float = _key(
        Duration(1, 86400),
        15.0,
        "In what time the daemon looks again at all that is cached, for what no event tells (changes of ACLs); "
        "at 2,000 nodes a second if that takes longer.",
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Holds:
    """What processes own."""

    reclaim_grace_s: float = _key(
        Duration(0, 3600),
        30.0,
        "How long a hold found in the journal at a start waits for its process to come back for it.",
    )


@dataclass(frozen=True, slots=True)
class Quotas:
    """Limits; what is beyond is refused with QUOTA."""

    max_streams: int = _key(Number(1, 1_000_000), 20_000, "Open streams, of all clients together.", live=True)
    max_streams_per_client: int = _key(
        Number(1, 1_000_000),
        160,
        "Open streams of one TCP connection; those over a Unix socket cannot be told apart.",
        live=True,
    )
    max_concurrent_streams: int = _key(
        Number(2, 100_000),
        200,
        "Streams and calls of one connection at once (HTTP/2's MAX_CONCURRENT_STREAMS). With what is beyond, clients "
        "wait and are told nothing. It bounds how long one connection can keep the others waiting.",
    )
    max_calls: int = _key(
        Number(1, 1_000_000),
        5_000,
        "Unary calls opened and not ended, whether their message has come or not.",
        live=True,
    )
    message_timeout_s: float = _key(
        Duration(0.1, 3600),
        10.0,
        "How long a call that was opened may take to send its message; then it hears NO_MESSAGE. Of unary calls gRPC "
        "itself waits for the first 250 at a time, without a bound.",
        live=True,
    )
    max_holds: int = _key(Number(1, 1_000_000), 10_000, "Holds, of all clients together.", live=True)
    max_pipeline: int = _key(
        Number(1, 100_000),
        1_000,
        "Writes of one Pipeline stream under way; more wait in the client.",
        live=True,
    )
    max_requests_size_bytes: int = _key(
        Size(1 << 20, 1 << 40),
        16 << 20,
        "Bytes of requests of 16 KiB and more under way, half of it of one client; who finds no room waits, and is "
        "refused if as much waits already.",
        live=True,
    )
    max_reads_size_bytes: int = _key(
        Size(1 << 20, 1 << 40),
        32 << 20,
        "Bytes of ZooKeeper's answers to reads of clients under way, half of it to those of one client; others wait.",
        live=True,
    )
    max_answers_size_bytes: int = _key(
        Size(1 << 20, 1 << 40),
        32 << 20,
        "Bytes of answers of 16 KiB and more that clients have not taken yet, half of it of one client; others wait.",
        live=True,
    )
    max_messages_size_bytes: int = _key(
        Size(1 << 20, 1 << 40),
        64 << 20,
        "Bytes of messages of streams of 16 KiB and more that clients have not taken yet, half of it of one client; "
        "who finds no room waits, and its stream is ended if as much waits already.",
        live=True,
    )
    max_answer_size_bytes: int = _key(
        Size(1 << 20, 1 << 30),
        16 << 20,
        "Bytes of the nodes in one answer; more is refused with TOO_LARGE.",
        live=True,
    )


@dataclass(frozen=True, slots=True)
class ServerTls:
    """TLS to clients. All files are read again when they change."""

    cert: Path | None = _key(
        File(),
        None,
        "The daemon's certificate and the chain behind it, as a PEM file. With it every TCP listener speaks TLS.",
    )
    key: Path | None = _key(File(), None, "Its private key, as a PEM file without a password.")
    client_ca: Path | None = _key(
        File(),
        None,
        "The authorities that sign client certificates, as a PEM file. With it TCP listeners demand one.",
    )


@dataclass(frozen=True, slots=True)
class Tokens:
    """Bearer tokens of clients."""

    files: tuple[Path, ...] = _key(
        Several(File()),
        (),
        "Files with a name and a token a line, or directories with a file for each name. They are read again when "
        "they change. With them TCP listeners that demand no certificate demand a token.",
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may do what."""

    file: Path | None = _key(
        File(),
        None,
        "The identities, and what each may do (docs/security.md). It is read again when it changes. Without it whoever "
        "can connect may do everything.",
    )


@dataclass(frozen=True, slots=True)
class Audit:
    """A record of writes, holds, administration, and of what was denied."""

    file: Path | None = _key(
        File(), None, 'Where it is written, a JSON object a line; "-" for standard error. Without it there is none.'
    )
    max_waiting: int = _key(
        Number(100, 1_000_000), 10_000, "Lines that wait to be written; more are dropped, counted, and spoken of."
    )


@dataclass(frozen=True, slots=True)
class Http:
    """Metrics and status pages."""

    listen: Address | None = _key(
        Listen(unix=False),
        Address(host="127.0.0.1", port=9464),
        "Where /metrics, /healthz, /readyz, /statusz and the status page are served.",
    )
    details: bool = _key(
        Flag(),
        True,
        "Whether the status page (/) and /statusz are there. They tell paths, owners and clients to every process of "
        "this host, whoever may use the sockets; never to other hosts.",
    )


@dataclass(frozen=True, slots=True)
class Health:
    """A second gRPC server that knows grpc.health.v1 and nothing else."""

    listen: Address | None = _key(
        Listen(unix=False), None, "Where it listens. Kubernetes' gRPC probes come to the pod's address."
    )


@dataclass(frozen=True, slots=True)
class Shutdown:
    """What SIGTERM does."""

    grace_s: float = _key(Duration(0, 600), 10.0, "How long the orderly stop may take.", live=True)
    session: AtShutdown = _key(
        Choice(AtShutdown),
        AtShutdown.RELEASE,
        "Whether to end the ZooKeeper session, which releases every hold, or to leave it to be taken up by "
        "the next daemon with the same state_dir.",
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Tracing:
    """Spans for callers who send a W3C traceparent; needs `zkside[otel]`."""

    endpoint: str = _key(
        Text('"http://host:port" or "https://host:port"', collector_address),
        "",
        "The OTLP collector that takes them by gRPC; empty: no traces. OTEL_EXPORTER_OTLP_HEADERS and "
        "OTEL_EXPORTER_OTLP_CERTIFICATE of the environment are heeded.",
    )


@dataclass(frozen=True, slots=True)
class Log:
    """Lines on standard error."""

    level: LogLevel = _key(Choice(LogLevel), LogLevel.INFO, "The least that is written.", live=True)
    format: LogFormat = _key(Choice(LogFormat), LogFormat.TEXT, "Lines for people, or JSON objects.", live=True)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    listen: tuple[Address, ...] = _key(
        Several(Listen(unix=True)),
        (),
        "Where clients are served. Where none is given: $XDG_RUNTIME_DIR/zkside/zkside.sock, or "
        "/run/zkside/zkside.sock. The options are described in docs/security.md.",
    )
    socket_mode: int = _key(
        Mode(), 0o660, "The permissions of Unix sockets without a mode of their own: who can write to one can call."
    )
    socket_group: str = _key(Text("group name or number"), "", "The group of Unix sockets without one of their own.")
    state_dir: Path | None = _key(
        File(),
        None,
        "Where the session's journal and the caches survive the daemon. Without it a restart begins a new "
        "session, with empty caches.",
    )
    zookeeper: ZooKeeper = field(default_factory=ZooKeeper)
    lease: Lease = field(default_factory=Lease)
    hub: Hub = field(default_factory=Hub)
    holds: Holds = field(default_factory=Holds)
    quotas: Quotas = field(default_factory=Quotas)
    tls: ServerTls = field(default_factory=ServerTls)
    tokens: Tokens = field(default_factory=Tokens)
    policy: Policy = field(default_factory=Policy)
    audit: Audit = field(default_factory=Audit)
    http: Http = field(default_factory=Http)
    health: Health = field(default_factory=Health)
    shutdown: Shutdown = field(default_factory=Shutdown)
    tracing: Tracing = field(default_factory=Tracing)
    log: Log = field(default_factory=Log)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where clients are served."""
        return self.listen or (default_address(),)

    def speaks_tls(self, address: Address) -> bool:
        """Whether TLS is spoken at this one of the addresses."""
        if address.path:
            return False
        return self.tls.cert is not None if address.tls is None else address.tls

    def demanded(self, address: Address) -> Auth:
        """What callers at this one of the addresses have to show. A Unix socket's permissions are enough."""
        if address.auth is not None:
            return address.auth
        if address.path:
            return Auth.NONE
        if self.tls.client_ca is not None and self.speaks_tls(address):
            return Auth.CERTIFICATE
        return Auth.TOKEN if self.tokens.files else Auth.NONE
