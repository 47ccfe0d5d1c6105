"""Generated from the asynchronous classes by docs/generate.py: `make fmt` writes it anew."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from zkside.client.answer import (
    AclAnswer,
    CheckAnswer,
    CreateAnswer,
    DeleteAnswer,
    DrainAnswer,
    ExistsAnswer,
    GetAnswer,
    GetManyAnswer,
    HoldInfo,
    ListAnswer,
    LogLevel,
    LogLines,
    ReloadAnswer,
    SessionAnswer,
    SetAnswer,
    StatusAnswer,
    StreamInfo,
    TransactAnswer,
    WatchInfo,
)
from zkside.client.contender import Contenders, ElectionLayout, Leader, LeaderChange, LockLayout
from zkside.client.credentials import TlsOptions
from zkside.client.event import Changes, EventTarget, Gap, Scope, Target, WatchedEvent, WatchEvent, WatchKind
from zkside.client.health import Health
from zkside.client.member import GroupAnswer, GroupView, ServiceInstance, ShrinkGuard
from zkside.client.mirror import ChangesCallback
from zkside.client.value import Acl, Consistency, CreateMode, HoldState, HoldStatus, Node, OnExists, Session

T = TypeVar("T")

class Client:
    admin: AdminCalls
    def __init__(
        self,
        address: str | None = ...,
        *,
        tls: TlsOptions | None = ...,
        token_file: str | Path | None = ...,
        timeout_s: float = ...,
        consistency: Consistency = ...,
        bookmark_interval_s: float = ...,
    ) -> None: ...
    @property
    def address(self) -> str: ...
    @property
    def environment(self) -> dict[str, str]: ...
    def __enter__(self) -> Client: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def close(self) -> None: ...
    def watch(
        self,
        *targets: str | Target,
        scope: Scope = ...,
        with_data: bool = ...,
        on_change: Callable[[WatchEvent], None] | None = ...,
        bookmarks: bool = ...,
        wait_for_ready: bool = ...,
    ) -> Watch: ...
    def mirror(self, path: str, *, scope: Scope = ..., with_data: bool = ..., wait_for_ready: bool = ...) -> Mirror: ...
    def watch_events(
        self,
        *targets: str | EventTarget,
        kind: WatchKind = ...,
        one_shot: bool = ...,
        on_event: Callable[[WatchedEvent | Gap], None] | None = ...,
        wait_for_ready: bool = ...,
    ) -> Reading[WatchedEvent | Gap]: ...
    def watch_session(
        self, *, on_change: Callable[[Session], None] | None = ..., wait_for_ready: bool = ...
    ) -> Reading[Session]: ...
    def session(self, *, timeout_s: float | None = ..., wait_for_ready: bool = ...) -> SessionAnswer: ...
    def health(self, service: str = ..., *, timeout_s: float | None = ...) -> Health: ...
    def get(
        self,
        path: str,
        *,
        consistency: Consistency | None = ...,
        min_zxid: int = ...,
        max_stale_s: float | None = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> GetAnswer: ...
    def get_many(
        self,
        paths: Iterable[str],
        *,
        consistency: Consistency | None = ...,
        min_zxid: int = ...,
        max_stale_s: float | None = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> GetManyAnswer: ...
    def exists(
        self,
        path: str,
        *,
        consistency: Consistency | None = ...,
        min_zxid: int = ...,
        max_stale_s: float | None = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> ExistsAnswer: ...
    def children_page(
        self,
        path: str,
        *,
        page_token: str = ...,
        page_size: int = ...,
        with_nodes: bool = ...,
        consistency: Consistency | None = ...,
        min_zxid: int = ...,
        max_stale_s: float | None = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> ListAnswer: ...
    def children_pages(
        self,
        path: str,
        *,
        page_size: int = ...,
        with_nodes: bool = ...,
        consistency: Consistency | None = ...,
        min_zxid: int = ...,
        max_stale_s: float | None = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> Iterator[ListAnswer]: ...
    def children(
        self,
        path: str,
        *,
        with_nodes: bool = ...,
        consistency: Consistency | None = ...,
        min_zxid: int = ...,
        max_stale_s: float | None = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> ListAnswer: ...
    def create(
        self,
        path: str,
        data: bytes = ...,
        *,
        mode: CreateMode = ...,
        ttl_s: float | None = ...,
        acl: Sequence[Acl] | None = ...,
        make_parents: bool = ...,
        daemon_lifetime: bool = ...,
        protected: bool = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> CreateAnswer: ...
    def set(
        self,
        path: str,
        data: bytes,
        *,
        version: int | None = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> SetAnswer: ...
    def delete(
        self,
        path: str,
        *,
        version: int | None = ...,
        recursive: bool = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> DeleteAnswer: ...
    def transaction(self, *, guard_hold_id: str = ...) -> Transaction: ...
    def pipeline(self) -> Pipeline: ...
    def sync(self, path: str = ..., *, timeout_s: float | None = ..., wait_for_ready: bool = ...) -> int: ...
    def get_acl(self, path: str, *, timeout_s: float | None = ..., wait_for_ready: bool = ...) -> AclAnswer: ...
    def set_acl(
        self,
        path: str,
        acl: Sequence[Acl],
        *,
        version: int | None = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> SetAnswer: ...
    def hold_ephemeral(
        self,
        path: str,
        data: bytes = ...,
        *,
        sequential: bool = ...,
        acl: Sequence[Acl] | None = ...,
        make_parents: bool = ...,
        recreate: bool = ...,
        on_exists: OnExists = ...,
        wait_timeout_s: float | None = ...,
        reconnect_grace_s: float | None = ...,
        heartbeat_timeout_s: float | None = ...,
        cancel_on_loss: bool = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
        on_update: Callable[[HoldStatus], None] | None = ...,
    ) -> Ephemeral: ...
    def lock(
        self,
        path: str,
        *,
        shared: bool = ...,
        permits: int = ...,
        wait_timeout_s: float | None = ...,
        owner: str = ...,
        value: bytes = ...,
        layout: LockLayout = ...,
        acl: Sequence[Acl] | None = ...,
        reconnect_grace_s: float | None = ...,
        heartbeat_timeout_s: float | None = ...,
        revocable: bool = ...,
        cancel_on_loss: bool = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
        on_update: Callable[[HoldStatus], None] | None = ...,
    ) -> Held: ...
    def contenders(
        self,
        path: str,
        *,
        semaphore: bool = ...,
        consistency: Consistency | None = ...,
        min_zxid: int = ...,
        max_stale_s: float | None = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> Contenders: ...
    def campaign(
        self,
        path: str,
        *,
        candidate_id: str = ...,
        value: bytes = ...,
        layout: ElectionLayout = ...,
        wait_timeout_s: float | None = ...,
        acl: Sequence[Acl] | None = ...,
        reconnect_grace_s: float | None = ...,
        heartbeat_timeout_s: float | None = ...,
        cancel_on_loss: bool = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
        on_update: Callable[[HoldStatus], None] | None = ...,
    ) -> Leadership: ...
    def leader(
        self,
        path: str,
        *,
        consistency: Consistency | None = ...,
        min_zxid: int = ...,
        max_stale_s: float | None = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> Leader | None: ...
    def observe(
        self, path: str, *, on_change: Callable[[LeaderChange], None] | None = ..., wait_for_ready: bool = ...
    ) -> Reading[LeaderChange]: ...
    def join(
        self,
        path: str,
        *,
        member_id: str = ...,
        data: bytes = ...,
        service: ServiceInstance | None = ...,
        acl: Sequence[Acl] | None = ...,
        on_exists: OnExists = ...,
        wait_timeout_s: float | None = ...,
        reconnect_grace_s: float | None = ...,
        heartbeat_timeout_s: float | None = ...,
        cancel_on_loss: bool = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
        on_update: Callable[[HoldStatus], None] | None = ...,
    ) -> Ephemeral: ...
    def group(
        self,
        path: str,
        *,
        consistency: Consistency | None = ...,
        min_zxid: int = ...,
        max_stale_s: float | None = ...,
        timeout_s: float | None = ...,
        wait_for_ready: bool = ...,
    ) -> GroupAnswer: ...
    def watch_group(
        self,
        path: str,
        *,
        shrink_guard: ShrinkGuard | None = ...,
        on_change: Callable[[GroupView], None] | None = ...,
        wait_for_ready: bool = ...,
    ) -> Reading[GroupView]: ...
    def confirm_shrink(self, watch_id: str, *, timeout_s: float | None = ...) -> bool: ...

class AdminCalls:
    def status(self, *, timeout_s: float | None = ...) -> StatusAnswer: ...
    def holds(self, *, timeout_s: float | None = ...) -> tuple[HoldInfo, ...]: ...
    def watches(self, *, timeout_s: float | None = ...) -> tuple[WatchInfo, ...]: ...
    def streams(self, *, timeout_s: float | None = ...) -> tuple[StreamInfo, ...]: ...
    def drain(self, *, timeout_s: float | None = ...) -> DrainAnswer: ...
    def reload_config(self, *, timeout_s: float | None = ...) -> ReloadAnswer: ...
    def log_levels(self, *, timeout_s: float | None = ...) -> tuple[LogLevel, ...]: ...
    def set_log_level(
        self, level: str, *, logger: str = ..., for_s: float = ..., timeout_s: float | None = ...
    ) -> tuple[LogLevel, ...]: ...
    def log_lines(self, *, timeout_s: float | None = ...) -> LogLines: ...
    def dump_state(self, *, timeout_s: float | None = ...) -> bytes: ...

class Transaction:
    def __len__(self) -> int: ...
    def create(
        self, path: str, data: bytes = ..., *, mode: CreateMode = ..., acl: Sequence[Acl] | None = ...
    ) -> Transaction: ...
    def set(self, path: str, data: bytes, *, version: int | None = ...) -> Transaction: ...
    def delete(self, path: str, *, version: int | None = ...) -> Transaction: ...
    def check(self, path: str, *, version: int | None = ...) -> Transaction: ...
    def commit(
        self, *, timeout_s: float | None = ..., wait_for_ready: bool = ..., raise_refused: bool = ...
    ) -> TransactAnswer: ...

class Pipeline:
    def create(
        self, path: str, data: bytes = ..., *, mode: CreateMode = ..., acl: Sequence[Acl] | None = ...
    ) -> Future[CreateAnswer]: ...
    def set(self, path: str, data: bytes, *, version: int | None = ...) -> Future[SetAnswer]: ...
    def delete(self, path: str, *, version: int | None = ...) -> Future[DeleteAnswer]: ...
    def check(self, path: str, *, version: int | None = ...) -> Future[CheckAnswer]: ...
    def __enter__(self) -> Pipeline: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class Watch:
    @property
    def targets(self) -> tuple[Target, ...]: ...
    @property
    def zxid(self) -> int: ...
    @property
    def stale(self) -> bool: ...
    @property
    def age_s(self) -> float: ...
    def __iter__(self) -> Iterator[WatchEvent]: ...
    def __next__(self) -> WatchEvent: ...
    def wait_ended(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Watch: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class Mirror:
    @property
    def path(self) -> str: ...
    @property
    def zxid(self) -> int: ...
    @property
    def stale(self) -> bool: ...
    @property
    def age_s(self) -> float: ...
    def ready(self) -> None: ...
    def get(self, path: str) -> Node | None: ...
    def __getitem__(self, path: str) -> Node: ...
    def __contains__(self, path: str) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...
    @property
    def nodes(self) -> Mapping[str, Node]: ...
    @property
    def unreadable(self) -> frozenset[str]: ...
    def children(self, path: str) -> list[str]: ...
    def changes(self, on_change: ChangesCallback | None = ...) -> MirrorChanges: ...
    def close(self) -> None: ...
    def __enter__(self) -> Mirror: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class MirrorChanges:
    def __iter__(self) -> MirrorChanges: ...
    def __next__(self) -> Changes: ...
    def close(self) -> None: ...
    def __enter__(self) -> MirrorChanges: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class Reading(Generic[T]):
    def __iter__(self) -> Iterator[T]: ...
    def __next__(self) -> T: ...
    def wait_ended(self) -> None: ...
    def close(self) -> None: ...
    def wait_stopped(self) -> None: ...
    def __enter__(self) -> Reading[T]: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class Held:
    lost: Loss
    revoke_requested: Revocation
    @property
    def status(self) -> HoldStatus: ...
    @property
    def path(self) -> str: ...
    @property
    def hold_id(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def fencing_token(self) -> int: ...
    @property
    def state(self) -> HoldState: ...
    def is_held(self) -> bool: ...
    def lease_left_s(self) -> float: ...
    def heartbeat(self) -> float: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

class Leadership(Held):
    def proclaim(self, value: bytes, *, timeout_s: float | None = ...) -> None: ...

class Ephemeral(Held):
    def set_data(self, data: bytes, *, timeout_s: float | None = ...) -> None: ...

class Loss:
    def is_set(self) -> bool: ...
    def set(self, reason: str) -> None: ...
    def wait(self, timeout_s: float | None = ...) -> str: ...

class Revocation:
    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def wait(self, timeout_s: float | None = ...) -> bool: ...
