"""The image, and containers of it, run as a cluster runs them: a read-only root, no capability, bounded memory."""

from __future__ import annotations

import json
import os
import queue
import re
import resource
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools/image"

UID = 65532
LIMIT_BYTES = 96 << 20
LIMIT_DESCRIPTORS = min(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])

HARDENED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    f"--memory={LIMIT_BYTES}",
    f"--memory-swap={LIMIT_BYTES}",
    # Podman would ask for more than who started the tests may have.
    f"--ulimit=nofile={LIMIT_DESCRIPTORS}:{LIMIT_DESCRIPTORS}",
    "--ulimit=nproc=1024:1024",
)

_numbers = count(1)


def podman(*arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Podman on the store of tools/image; the exit status is for the caller to look at."""
    return subprocess.run(
        [str(TOOL), "podman", "--log-level=fatal", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


ALONE = ("--rm", "--pull=never", "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=64:64")
"""For `podman run` of a command that ends by itself."""


def done(*arguments: str, timeout_s: float = 120.0) -> str:
    """What podman printed; it must succeed."""
    run = podman(*arguments, timeout_s=timeout_s)
    assert run.returncode == 0, f"podman {' '.join(arguments)}: {run.stderr}"
    return run.stdout.strip()


@contextmanager
def volumes() -> Iterator[Path]:
    """A directory with `run` and `state` in it, which belong to the container's user as volumes of a pod do; its
    name leaves room in a socket's 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="zkside-", dir="/tmp") as name:
        for each in ("run", "state"):
            directory = Path(name, each)
            directory.mkdir(mode=0o770)
            os.chown(directory, UID, UID)
        yield Path(name)


@dataclass(frozen=True, slots=True)
class Memory:
    """What the kernel counts for a container; `peak_bytes` since its start."""

    limit_bytes: int
    used_bytes: int
    peak_bytes: int
    refused: int
    """How often something was killed because of the limit."""


def memory_of(pid: int) -> Memory:
    """Read from the control group of a process, of version 1 or 2."""
    groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            v1 = Path(f"/sys/fs/cgroup/memory{path}")
            limit, used, peak = (v1 / f"memory.{name}_in_bytes" for name in ("limit", "usage", "max_usage"))
            return Memory(_number(limit), _number(used), _number(peak), _killed(v1 / "memory.oom_control"))
    v2 = Path(f"/sys/fs/cgroup{groups[0][2]}")
    limit, used, peak = (v2 / f"memory.{name}" for name in ("max", "current", "peak"))
    return Memory(_number(limit), _number(used), _number(peak), _killed(v2 / "memory.events"))


def _number(file: Path) -> int:
    return int(file.read_text())


def _killed(events: Path) -> int:
    found = re.search(r"^oom_kill (\d+)$", events.read_text(), re.MULTILINE)
    assert found is not None, events
    return int(found[1])


class Container:
    """One container with `zkside serve` (or other `arguments`) in it, its log read as JSON lines.

    It listens in `directory`/run and keeps its state in `directory`/state. It is on the host's network, where the
    test's ZooKeeper is.
    """

    def __init__(
        self,
        image: str,
        directory: Path,
        hosts: str,
        *,
        arguments: Sequence[str] = (),
        volumes: tuple[str, str] | None = None,
        mounts: Sequence[str] = (),
        keys: Mapping[str, str] | None = None,
    ) -> None:
        """`volumes` in the place of those in the directory, `mounts` beside them; `keys` as in the environment,
        without their ZKSIDE_.
        """
        self.name = f"zkside-test-{os.getpid()}-{next(_numbers)}"
        self.address = f"unix:{directory}/run/zkside.sock"
        settings = {"ZOOKEEPER_HOSTS": hosts, "HTTP_LISTEN": "127.0.0.1:0", "LOG_FORMAT": "json"} | dict(keys or {})
        environment = [f"--env=ZKSIDE_{key}={value}" for key, value in settings.items()]
        run, state = volumes or (f"{directory}/run", f"{directory}/state")
        mounted = [f"--volume={mount}" for mount in (f"{run}:/run/zkside", f"{state}:/var/lib/zkside", *mounts)]
        # Who asks whether it is healthy here are the tests; the interval would be for systemd's timers.
        command = [
            *(str(TOOL), "podman", "--log-level=fatal", "run", f"--name={self.name}", "--pull=never"),
            *("--network=host", "--health-interval=disable", *HARDENED, *mounted, *environment),
            *(image, *arguments),
        ]
        self.asked = datetime.now().astimezone()
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._unread: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._unread.put(line)
        self._unread.put(None)

    def wait_for(self, words: str, *, within_s: float = 30.0) -> dict[str, Any]:
        """The first log line from here on with these words in it."""
        while True:
            line = self._unread.get(timeout=within_s)
            assert line is not None, f"ended without {words!r}: {''.join(self.lines)}"
            self.lines.append(line)
            if words in line:
                entry: dict[str, Any] = json.loads(line)
                return entry

    def wait_serving(self) -> datetime:
        """When it served its socket."""
        return datetime.fromisoformat(self.wait_for("serving at")["time"])

    def wait_connected(self) -> datetime:
        """When it had its session, which is when it is ready."""
        return datetime.fromisoformat(self.wait_for("session connected")["time"])

    @property
    def pid(self) -> int:
        """Of its first process, as this host counts."""
        return int(done("inspect", "--format={{.State.Pid}}", self.name))

    @property
    def began(self) -> datetime:
        """When its first process was started."""
        began = done("inspect", "--format={{.State.StartedAt.UnixMilli}}", self.name)
        return datetime.fromtimestamp(int(began) / 1000).astimezone()

    def status(self) -> dict[str, str]:
        """Its first process as the kernel sees it."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def memory(self) -> Memory:
        return memory_of(self.pid)

    def run(self, *command: str, user: str = "") -> subprocess.CompletedProcess[str]:
        """Run another command in it."""
        return podman("exec", *([f"--user={user}"] if user else []), self.name, *command)

    def is_healthy(self) -> bool:
        """Run the image's own HEALTHCHECK once."""
        return podman("healthcheck", "run", self.name).returncode == 0

    def signal(self, signum: signal.Signals) -> None:
        """To its first process, as a runtime does that stops it."""
        done("kill", f"--signal={signum.value}", self.name)

    def wait_ended(self, *, within_s: float = 30.0) -> int:
        """Its exit status; `lines` is complete then."""
        status = self._process.wait(within_s)
        self._reader.join(within_s)
        while not self._unread.empty():
            line = self._unread.get()
            self.lines += [line] if line is not None else []
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        podman("rm", "--force", "--time=0", self.name)
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stderr is not None:
            self._process.stderr.close()
