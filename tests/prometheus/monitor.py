"""A real Prometheus with zkside's rules, and the other end of its notifications."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.ops.test_metrics import ROOT, tool
from zkside.cli.zookeeper import free_port

RULES = ROOT / "deploy/k8s/monitoring/rules.yaml"
SCRAPE_S = 2
FOR_S = 5
"""In the place of every `for:`, long enough for two scrapes."""

Labels = dict[str, str]


def rules() -> dict[str, Any]:
    """As they are shipped, in the form that Prometheus reads without an operator."""
    spec: dict[str, Any] = yaml.safe_load(RULES.read_text())["spec"]
    return spec


def hurried(shipped: dict[str, Any]) -> dict[str, Any]:
    """The same rules, but for the time that their conditions have to last."""
    found: dict[str, Any] = json.loads(json.dumps(shipped))
    for group in found["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = f"{FOR_S}s"
    return found


@dataclass(frozen=True, slots=True)
class Notice:
    """What Prometheus told of one alert."""

    labels: Labels
    annotations: Labels
    is_firing: bool

    def is_of(self, alert: str, instance: str) -> bool:
        return (self.labels["alertname"], self.labels["instance"]) == (alert, instance)


class Notices:
    """An Alertmanager's address: keeps what it is told. Belongs to the running event loop."""

    def __init__(self) -> None:
        self.all: list[Notice] = []
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._hear))
        self._thread = threading.Thread(target=self._server.serve_forever, name="notices", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def of(self, alert: str, instance: str) -> list[Notice]:
        """Oldest first."""
        return [notice for notice in self.all if notice.is_of(alert, instance)]

    def fired_at(self, instance: str) -> set[str]:
        """The alerts that fired for this instance."""
        return {each.labels["alertname"] for each in self.all if each.labels["instance"] == instance and each.is_firing}

    async def wait(self, alert: str, instance: str, *, is_firing: bool, within_s: float) -> Notice:
        """Return when the newest notice says so. Raises: TimeoutError."""
        async with asyncio.timeout(within_s):
            while True:
                told = self.of(alert, instance)
                if told and told[-1].is_firing is is_firing:
                    return told[-1]
                self._came.clear()
                await self._came.wait()

    def _hear(self, body: bytes) -> None:
        now = datetime.now(UTC)
        told = [
            Notice(each["labels"], each["annotations"], datetime.fromisoformat(each["endsAt"]) > now)
            for each in json.loads(body)
        ]
        self._loop.call_soon_threadsafe(self._take, told)

    def _take(self, told: list[Notice]) -> None:
        self.all += told
        self._came.set()


def _handler(hear: Callable[[bytes], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/api/v2/alerts"
            hear(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


class Prometheus:
    """Scrapes whatever is added, every SCRAPE_S."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self._targets_file = directory / "targets.json"
        self._targets: dict[str, tuple[int, Labels]] = {}
        self._write()

    def add(self, instance: str, port: int, **labels: str) -> None:
        """Scrape 127.0.0.1:port from now on (within seconds) under this name."""
        self._targets[instance] = (port, labels)
        self._write()

    def remove(self, instance: str) -> None:
        """No longer a target, as a pod that is gone."""
        self._targets.pop(instance, None)
        self._write()

    def _write(self) -> None:
        groups = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": instance, **labels}}
            for instance, (port, labels) in self._targets.items()
        ]
        fresh = self._targets_file.with_suffix(".new")
        fresh.write_text(json.dumps(groups))
        fresh.replace(self._targets_file)

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """What the expression gives now: series with `metric` and `value`. Raises: AssertionError if it is none."""
        answer = await self._get(f"/api/v1/query?query={urllib.parse.quote(expression)}")
        found: list[dict[str, Any]] = answer["result"]
        return found

    async def values_of(self, label: str, selector: str) -> list[str]:
        """As Grafana's `label_values(selector, label)`."""
        found: list[str] = await self._get(f"/api/v1/label/{label}/values?match[]={urllib.parse.quote(selector)}")
        return found

    async def wait_for(self, expression: str, *, within_s: float = 60.0) -> list[dict[str, Any]]:
        """The answer, once there is one. Nothing announces a scrape, so this asks again and again."""
        async with asyncio.timeout(within_s):
            while not (found := await self.query(expression)):  # noqa: ASYNC110
                await asyncio.sleep(0.25)
        return found

    async def wait_scraped(self, instance: str) -> None:
        """Twice: what is counted from then on is seen to grow."""
        await self.wait_for(f'count_over_time(zkside_build_info{{instance="{instance}"}}[1h]) > 1')

    async def _get(self, path: str) -> Any:
        return await asyncio.to_thread(_fetched, f"http://127.0.0.1:{self.port}{path}")


def _fetched(address: str) -> Any:
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as refused:
        raise AssertionError(f"{urllib.parse.unquote(address)}: {refused.read().decode()}") from None


@contextmanager
def running(directory: Path, notices_port: int) -> Iterator[Prometheus]:
    """A server with its data in this directory, ready to be asked."""
    (directory / "rules.yaml").write_text(yaml.safe_dump(hurried(rules())))
    port = free_port()
    prometheus = Prometheus(directory, port)
    settings = {
        "global": {
            "scrape_interval": f"{SCRAPE_S}s",
            "scrape_timeout": f"{SCRAPE_S}s",
            "evaluation_interval": "1s",
        },
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{notices_port}"]}]}]},
        "scrape_configs": [
            {"job_name": "zkside", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "2s"}]}
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(settings))
    log = directory / "prometheus.log"
    with log.open("wb") as lines:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=lines,
            stderr=lines,
        )
    try:
        _wait_ready(port, process, log)
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)


def _wait_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    pause = threading.Event()
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
                return
        except OSError:
            pause.wait(0.1)
    raise AssertionError(log.read_text())
