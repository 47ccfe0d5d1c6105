"""A Unix listener's file and the lock beside it: made once, and looked at for as long as the daemon serves.

Nobody can connect to a socket whose name is gone, and the daemon that listens on it sees nothing of that. What removes
it: a cleaner of temporary directories, a volume that is mounted over it, somebody with `rm`. So its file is compared
with the one that was made, once a second, and made again by a new server; the old one goes on with its streams.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from zkside import log
from zkside.errors import StartError
from zkside.rpc.listeners import MAX_SOCKET_PATH_BYTES, UnixListener
from zkside.zk import state_dir

_Identity = tuple[int, int]


class SocketFile:
    """`take`, then `bind` for each server that is to listen there, and in the end `close`."""

    def __init__(self, listener: UnixListener) -> None:
        self.listener = listener
        self.path = listener.path.absolute()
        self._lock_path = self.path.with_name(f"{self.path.name}.lock")
        self._lock: int | None = None
        self._made: _Identity | None = None

    def take(self) -> None:
        """Make the directory and lock the place. Idempotent. Raises: StartError; then it is as it was.

        gRPC would take over a socket in use without a word, hence the lock. Its file stays in the end: were it removed,
        two daemons could hold locks on two files of that name. If somebody else removes it, that can happen; so it is
        made again too, unless another daemon was faster.
        """
        if len(os.fsencode(self.path)) > MAX_SOCKET_PATH_BYTES:
            raise StartError(f"the socket's path is longer than {MAX_SOCKET_PATH_BYTES} bytes: {self.path}")
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not self._has_lock():
                self._take_lock()
        except OSError as error:
            raise StartError(f"the socket {self.path} cannot be made: {error}") from error

    def bind(self, bind: Callable[[str], object]) -> None:
        """Let a server listen there; `bind` is called with the address. After `take`.

        It is bound beside its place and moved there when its permissions are right. So nobody connects before they
        are, and gRPC, which removes the file of the name that it was told when it stops, removes no successor's.
        Raises: StartError; then nothing is left behind.
        """
        beside = self.path.with_name(_beside(self.path.name))
        try:
            self._refuse_strange()
            with suppress(FileNotFoundError):
                if stat.S_ISSOCK(beside.lstat().st_mode):
                    beside.unlink()
            with _umask(0o777):
                bind(f"unix:{beside}")
            try:
                self._permit(beside)
                made = _identity_at(beside)
                beside.replace(self.path)
            except OSError:
                beside.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StartError(f"the socket {self.path} cannot be made: {error}") from error
        self._made = made

    def is_there(self) -> bool:
        """Whether who connects to the path comes to this daemon, and no other can take the place.

        Permissions that are not as configured are set again.
        """
        if not self._has_lock():
            return False
        if self._made is None or _identity_at(self.path) != self._made:
            return False
        with suppress(OSError, StartError):
            # What cannot be looked at any more is seen at the next look.
            found = self.path.stat()
            group = self._group()
            if stat.S_IMODE(found.st_mode) != self.listener.mode or (group is not None and found.st_gid != group):
                self._permit(self.path)
                log.listener_permissions_restored(address=self.listener.address)
        return True

    def forget(self) -> None:
        """What was made is not in use."""
        self._made = None

    def close(self) -> None:
        """Remove the file, if it is still the one that was made, and unlock the place. Idempotent."""
        if self._made is not None and _identity_at(self.path) == self._made:
            with suppress(OSError):
                self.path.unlink()
        self._made = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _has_lock(self) -> bool:
        """Whether the file that is locked still has its name."""
        return self._lock is not None and state_dir.is_at(self._lock_path, self._lock)

    def _take_lock(self) -> None:
        in_use = f"another daemon (pid {{pid}}) listens on {self.path}: stop it, or choose another socket"
        before, self._lock = self._lock, state_dir.lock(self._lock_path, in_use)
        if before is not None:
            os.close(before)

    def _refuse_strange(self) -> None:
        """The lock is ours, so a socket that is there belongs to nobody. Raises: StartError."""
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise StartError(f"{self.path} is there and is not a socket: it is left alone, choose another path")

    def _permit(self, path: os.PathLike[str]) -> None:
        group = self._group()
        if group is not None:
            os.chown(path, -1, group)
        os.chmod(path, self.listener.mode)

    def _group(self) -> int | None:
        group = self.listener.group
        if group is None or isinstance(group, int) or group.isdigit():
            return None if group is None else int(group)
        try:
            return grp.getgrnam(group).gr_gid
        except KeyError:
            raise StartError(f"there is no group {group!r}") from None


def _beside(name: str) -> str:
    """Another name that is no longer: a socket's path has a limit."""
    return name[:-1] + ("_" if name.endswith("~") else "~")


def _identity_at(path: os.PathLike[str]) -> _Identity | None:
    """None: there is nothing, or nothing that can be looked at."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
