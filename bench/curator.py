"""Candidates with Curator's LeaderLatch: tests/interop/java, compiled, with the bench in the referee's place."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

BUILT = Path(__file__).parents[1] / ".zkside" / "interop"


class Candidate:
    """One JVM with one latch. Its words: "enter" when it leads, then "leave" as soon as that is answered."""

    def __init__(self, process: subprocess.Popen[bytes], line: socket.socket, words: IO[str]) -> None:
        self._process = process
        self._line = line
        self._words = words
        self._resigned = 0

    def hear(self, timeout_s: float) -> int:
        """When it came to lead, or resigned: on the monotonic clock, in nanoseconds. Raises TimeoutError."""
        if self._resigned:
            resigned, self._resigned = self._resigned, 0
            return resigned
        self._expect("enter", timeout_s)
        return time.monotonic_ns()

    def tell(self, message: object) -> None:
        """Resign, and stand again."""
        self._line.sendall(b"on\n")
        self._expect("leave", 10)
        self._resigned = time.monotonic_ns()
        self._line.sendall(b"on\n")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._words.close()
        self._line.close()

    def _expect(self, word: str, timeout_s: float) -> None:
        self._line.settimeout(timeout_s)
        said = self._words.readline()
        if not said.startswith(word):
            raise RuntimeError(f"Curator's candidate said {said!r}, not {word!r}")


class Candidates:
    """Hires them; leaving the `with` does not end those that were hired.

    Raises (on entering): RuntimeError if the Java project was not compiled.
    """

    def __enter__(self) -> Candidates:
        if not (BUILT / ".compiled").exists():
            raise RuntimeError(f"{BUILT} is missing: `make bench` compiles it, with Maven")
        self._numbers = itertools.count()
        self._stack = contextlib.ExitStack()
        self._listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._log = self._stack.enter_context(tempfile.TemporaryFile())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def hire(self, hosts: str, path: str) -> Candidate:
        """Returns when its session is there, just before it stands."""
        command = [
            shutil.which("java") or "java", "-cp", f"{BUILT}/classes:{BUILT}/lib/*", "dev.zkside.interop.Main",
            "contend", "latch", hosts, path, str(self._listener.getsockname()[1]), f"candidate-{next(self._numbers)}",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        try:
            self._listener.settimeout(30)
            line, _ = self._listener.accept()
        except TimeoutError:
            process.kill()
            process.wait()
            self._log.seek(0)
            raise RuntimeError(f"Curator's candidate did not come:\n{self._log.read()[-4000:].decode()}") from None
        candidate = Candidate(process, line, line.makefile("r"))
        candidate._expect("join", 10)
        line.sendall(b"on\n")
        return candidate
