"""A daemon as a child process, as it runs in production: to be signalled, killed and scraped."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_CODE = """
import os, signal, sys, time
from zkside.config_source import read
from zkside.daemon import Backend, run
from zkside.errors import StartError
try:
    again = lambda: read(environment=os.environ).config
    # SIGWINCH lets its event loop hang, as a defect would.
    signal.signal(signal.SIGWINCH, lambda *_: time.sleep(3600))
    sys.exit(run(again(), backend=Backend(sys.argv[1]), read=again))
except StartError as error:
    sys.exit(f"refused: {error}")
"""


class DaemonProcess:
    """Configured by environment variables; logs JSON lines, which `wait_for` reads."""

    def __init__(
        self,
        directory: Path,
        *,
        backend: str = "kazoo",
        launcher: Sequence[str] = (),
        code: str = _CODE,
        **keys: str | None,
    ) -> None:
        """`keys` as in the environment, without their ZKSIDE_: ZOOKEEPER_HOSTS="…"; None leaves a default of here
        out. `launcher` is a command in front of the daemon's that becomes it; `code` is run in place of the usual.
        """
        self.address = f"unix:{directory}/zkside.sock"
        settings = {"LISTEN": self.address, "HTTP_LISTEN": "127.0.0.1:0", "LOG_FORMAT": "json"} | keys
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ZKSIDE_")}
        environment |= {f"ZKSIDE_{name}": value for name, value in settings.items() if value is not None}
        self._process = subprocess.Popen(
            [*launcher, sys.executable, "-c", code, backend],
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._unread: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.http_port = 0

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._unread.put(line)
        self._unread.put(None)

    def wait_for(self, words: str, *, within_s: float = 30.0) -> dict[str, Any]:
        """The first log line from here on that has these words."""
        entry: dict[str, Any] = json.loads(self.wait_line(words, within_s=within_s))
        return entry

    def wait_line(self, words: str, *, within_s: float = 30.0) -> str:
        """As `wait_for`, for a log of text."""
        while True:
            line = self._unread.get(timeout=within_s)
            assert line is not None, f"ended without {words!r}: {''.join(self.lines)}"
            self.lines.append(line)
            if words in line:
                return line

    def wait_serving(self) -> Self:
        entry = self.wait_for("serving at")
        self.http_port = int(entry["http_port"])
        return self

    def wait_ended(self, *, within_s: float = 30.0) -> int:
        """The exit status; `lines` is complete then."""
        status = self._process.wait(within_s)
        self._reader.join(within_s)
        while not self._unread.empty():
            line = self._unread.get()
            self.lines += [line] if line is not None else []
        return status

    @property
    def log(self) -> str:
        return "".join(self.lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def get(self, page: str, *, host: str = "localhost") -> tuple[int, str]:
        """The status and the text of a page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=20)
        try:
            connection.request("GET", page, headers={"Host": f"{host}:{self.http_port}"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self.wait_serving()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        if self._process.stderr is not None:
            self._process.stderr.close()
