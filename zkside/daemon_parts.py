"""From the configuration to the settings of each part of the daemon."""

from __future__ import annotations

import platform
import ssl
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import zkside
from zkside.config import Config, LeaseProof, SaslMechanism
from zkside.config_kinds import Address
from zkside.core.lease import Proof
from zkside.errors import StartError
from zkside.hub.hub import HubSettings
from zkside.recipes.holds import HoldSettings
from zkside.rpc.files import FileWatch
from zkside.rpc.listeners import Listener, TcpListener, TlsFiles, UnixListener
from zkside.rpc.settings import RpcSettings
from zkside.rpc.streams import QuotaSettings
from zkside.supervisor import Supervisor
from zkside.zk import der
from zkside.zk.hosts import Hosts
from zkside.zk.kazoo import KazooSettings, kazoo_connector
from zkside.zk.port import Connector
from zkside.zk.sasl import SaslSettings
from zkside.zk.session import SessionSettings
from zkside.zk.tls import ZooKeeperTls, load

if TYPE_CHECKING:
    from zkside.rpc.tracing import Tracing

_PROOFS = {LeaseProof.PING: Proof.PING, LeaseProof.SYNC: Proof.SYNC, LeaseProof.WRITE: Proof.WRITE}


class Backend(Enum):
    """What is behind the port."""

    KAZOO = "kazoo"
    MEMORY = "memory"


def connector(config: Config, backend: Backend, files: FileWatch, supervisor: Supervisor) -> Connector:
    """Raises: StartError when what the configuration names cannot be used."""
    if backend is Backend.MEMORY:
        return _memory_connector(config)
    return kazoo_connector(
        KazooSettings(
            hosts=config.zookeeper.hosts,
            create_chroot=config.zookeeper.create_chroot,
            chroot_acl=config.zookeeper.default_acl,
            session_timeout_s=config.zookeeper.session_timeout_s,
            auth=credentials(config),
            sasl=_sasl(config),
            ssl_context=_ssl_context(config, files),
            read_only=config.zookeeper.read_only,
            connect_timeout_s=config.zookeeper.connect_timeout_s,
            max_in_flight=config.zookeeper.max_in_flight,
            max_queued=config.zookeeper.max_queued,
            max_queued_bytes=config.zookeeper.max_queued_size_bytes,
            jute_maxbuffer_bytes=config.zookeeper.jute_maxbuffer_bytes,
            max_reply_bytes=config.zookeeper.max_reply_bytes,
        ),
        supervisor,
    )


def credentials(config: Config) -> tuple[tuple[str, str], ...]:
    """What `addauth` takes: (scheme, credential)."""
    pairs = (secret.reveal().partition(":") for secret in config.zookeeper.auth)
    return tuple((scheme, credential) for scheme, _, credential in pairs)


def session_settings(config: Config) -> SessionSettings:
    return SessionSettings(
        timeout_s=config.zookeeper.session_timeout_s,
        proof=_PROOFS[config.lease.proof],
        proof_interval_s=config.lease.proof_interval_s,
        tick_s=config.lease.tick_s,
        margin_s=config.lease.margin_s,
    )


def cache_dir(config: Config) -> Path | None:
    """Where caches are kept: a directory for each ensemble and chroot, so that a daemon which is pointed
    elsewhere never answers with the tree of before."""
    if config.state_dir is None:
        return None
    hosts = Hosts.parse(config.zookeeper.hosts)
    of = f"{sorted(hosts.names)} {hosts.chroot}"
    return config.state_dir / f"cache-{sha256(of.encode()).hexdigest()[:12]}"


def cache_identity(config: Config) -> str:
    """As whom which ensemble is read. Caches can have nodes that nobody else may read."""
    hosts, sasl = Hosts.parse(config.zookeeper.hosts), config.zookeeper.sasl
    parts = [f"{sorted(hosts.names)} {hosts.chroot}", *map(":".join, sorted(credentials(config)))]
    parts.append(f"{sasl.mechanism.value} {sasl.username} {sasl.service}")
    if config.zookeeper.tls.enabled and config.zookeeper.tls.cert is not None:
        parts.append(_subject(config.zookeeper.tls.cert))
    return "\n".join(parts)


def _subject(certificate: Path) -> str:
    """Of a certificate in a file: a renewed one has the same. Of a file without one it is the file's name."""
    try:
        text = certificate.read_text()
        first = text[text.index(ssl.PEM_HEADER) : text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)]
        return der.subject(ssl.PEM_cert_to_DER_cert(first)).hex()
    except (OSError, ValueError):
        return str(certificate)


def hub_settings(config: Config) -> HubSettings:
    return HubSettings(
        idle_eviction_s=config.hub.idle_eviction_s,
        max_cached_nodes=config.hub.max_cached_nodes,
        max_cached_bytes=config.hub.max_cached_size_bytes,
        max_reads_bytes=config.quotas.max_reads_size_bytes,
        max_answer_bytes=config.quotas.max_answer_size_bytes,
        max_roots=config.hub.max_roots,
        window_size=config.hub.window_size,
        event_queue_size=config.hub.event_queue_size,
        state_dir=cache_dir(config),
        identity=cache_identity(config),
        snapshot_interval_s=config.hub.snapshot_interval_s,
        revalidate_interval_s=config.hub.revalidate_interval_s,
    )


def hold_settings(config: Config) -> HoldSettings:
    return HoldSettings(
        max_holds=config.quotas.max_holds,
        reclaim_grace_s=config.holds.reclaim_grace_s,
    )


def quota_settings(config: Config) -> QuotaSettings:
    return QuotaSettings(
        max_streams=config.quotas.max_streams,
        max_streams_per_client=config.quotas.max_streams_per_client,
        max_concurrent_streams=config.quotas.max_concurrent_streams,
        max_calls=config.quotas.max_calls,
        message_timeout_s=config.quotas.message_timeout_s,
        max_pipeline=config.quotas.max_pipeline,
        max_requests_bytes=config.quotas.max_requests_size_bytes,
        max_answers_bytes=config.quotas.max_answers_size_bytes,
        max_messages_bytes=config.quotas.max_messages_size_bytes,
        max_answer_bytes=config.quotas.max_answer_size_bytes,
    )


def rpc_settings(config: Config, backend: Backend) -> RpcSettings:
    health = config.health.listen
    return RpcSettings(
        listeners=tuple(_listener(config, address) for address in config.addresses),
        health_listener=TcpListener(health.host, health.port) if health is not None else None,
        quotas=quota_settings(config),
        default_acl=config.zookeeper.default_acl,
        backend=backend.value,
        tls=_tls_files(config),
        token_files=config.tokens.files,
        policy_file=config.policy.file,
        audit_file=config.audit.file,
        max_audit_waiting=config.audit.max_waiting,
    )


def _listener(config: Config, address: Address) -> Listener:
    auth = config.demanded(address)
    if not address.path:
        return TcpListener(address.host, address.port, address.identity, auth, config.speaks_tls(address))
    mode = config.socket_mode if address.mode is None else address.mode
    group = address.group or config.socket_group or None
    return UnixListener(Path(address.path), mode, group, address.identity, auth)


def _tls_files(config: Config) -> TlsFiles | None:
    if config.tls.cert is None or config.tls.key is None:
        return None
    return TlsFiles(config.tls.cert, config.tls.key, config.tls.client_ca)


@cache
def versions() -> Mapping[str, str]:
    """Of zkside and of what it runs on."""
    return {
        "version": zkside.__version__,
        "python": platform.python_version(),
        "grpc": version("grpcio"),
        "kazoo": version("kazoo"),
    }


def tracing(config: Config) -> Tracing | None:
    """None where it is not configured: then nothing of it is loaded. Raises: StartError."""
    if not config.tracing.endpoint:
        return None
    try:
        from zkside.rpc.tracing import Tracing
    except ImportError as error:
        raise StartError(
            f"tracing.endpoint: the packages that it needs are missing ({error.name}): pip install 'zkside[otel]'"
        ) from error
    return Tracing(config.tracing.endpoint, zkside.__version__)


def _memory_connector(config: Config) -> Connector:
    # A development tool: other daemons do without its memory.
    from zkside.zk.memory import MemoryZooKeeper, memory_connector

    chroot = Hosts.parse(config.zookeeper.hosts).chroot
    return memory_connector(
        MemoryZooKeeper(),
        chroot=chroot,
        timeout_s=config.zookeeper.session_timeout_s,
        auth=credentials(config),
        read_only=config.zookeeper.read_only,
        max_in_flight=config.zookeeper.max_in_flight,
        max_queued=config.zookeeper.max_queued,
    )


def _sasl(config: Config) -> SaslSettings | None:
    if config.zookeeper.sasl.mechanism is SaslMechanism.NONE:
        return None
    password = config.zookeeper.sasl.password
    return SaslSettings(
        mechanism=config.zookeeper.sasl.mechanism.value,
        username=config.zookeeper.sasl.username,
        password=password.reveal() if password else "",
        service=config.zookeeper.sasl.service,
    )


def _ssl_context(config: Config, files: FileWatch) -> Callable[[], ssl.SSLContext] | None:
    """What TLS is to be spoken with now: new files count from the next connection on, and those that make no sense,
    such as a new certificate with the old key, are not used."""
    if not config.zookeeper.tls.enabled:
        return None
    password = config.zookeeper.tls.key_password
    tls = ZooKeeperTls(
        config.zookeeper.tls.ca,
        config.zookeeper.tls.cert,
        config.zookeeper.tls.key,
        password.reveal() if password else "",
        config.zookeeper.tls.verify_hostname,
        config.zookeeper.tls.strict,
    )
    kept = files.keep("zookeeper_tls", tls.paths, lambda: load(tls), lambda loaded: loaded.expires_unix_s)

    def current() -> ssl.SSLContext:
        # Files that came a moment ago need not wait for the next look.
        kept.look()
        return kept.value.context

    return current
