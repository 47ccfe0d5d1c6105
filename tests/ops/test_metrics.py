"""What Prometheus sees, judged by promtool and by a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.ops.process import DaemonProcess
from tests.ops.secured import secured
from zkside.cli.zookeeper import free_port
from zkside.client import Client, Consistency, Scope, SessionState
from zkside.errors import Quota
from zkside.ops.metrics import KINDS
from zkside.pb import watch_pb2, watch_pb2_grpc
from zkside.recipes import ephemeral, group, lock
from zkside.rpc import election

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str) -> str:
    """Debian's `prometheus` package, installed or unpacked by `make test`."""
    found = shutil.which(name) or shutil.which(name, path=str(ROOT / ".zkside/prometheus/usr/bin"))
    assert found, f"{name} is not here: `tools/provide prometheus` gets it"
    return found


@pytest.fixture
def daemon(tmp_path: Path, hosts: str) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts) as process:
        yield process


@pytest.fixture
def full(tmp_path: Path, hosts: str) -> Iterator[DaemonProcess]:
    """One that has a certificate, tokens, a policy and an audit log, and so measures more."""
    with DaemonProcess(tmp_path, **{"ZOOKEEPER_HOSTS": hosts, **secured(tmp_path)}) as process:
        yield process


async def use(client: Client) -> None:
    """Something of everything that is counted."""
    async for session in client.watch_session(wait_for_ready=True):
        if session.state is SessionState.CONNECTED:
            break
    await client.create("/counted", b"1")
    await client.get("/counted", consistency=Consistency.CACHED)
    async with client.watch("/", scope=Scope.SUBTREE) as watch, client.hold_ephemeral("/held"):
        await anext(watch)
        await client.set("/counted", b"2")
        await anext(watch)


def families(text: str) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    return {
        family.name: [(sample.name, sample.labels, sample.value) for sample in family.samples]
        for family in text_string_to_metric_families(text)
    }


async def test_promtool_finds_nothing_to_complain_of(full: DaemonProcess) -> None:
    async with Client(full.address) as client:
        await use(client)
    text = full.get("/metrics")[1]
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


async def test_no_label_has_a_path_a_client_or_a_session_as_its_value(daemon: DaemonProcess) -> None:
    async with Client(daemon.address) as client:
        await use(client)
        mine = (await client.session()).session.session_id
    for samples in families(daemon.get("/metrics")[1]).values():
        for name, labels, _ in samples:
            assert not {"path", "peer", "client", "session", "target"} & labels.keys(), name
            assert not any("/counted" in value or mine in value for value in labels.values()), name


async def test_the_counters_count(daemon: DaemonProcess) -> None:
    async with Client(daemon.address) as client:
        await use(client)
    found = families(daemon.get("/metrics")[1])
    assert ("zkside_session_state", {"state": "connected"}, 1.0) in found["zkside_session_state"]
    assert found["zkside_session_epoch"][0][2] == 1
    for name in ("watch_events", "changes", "zookeeper_requests"):
        assert found[f"zkside_{name}"][0][2] > 0, name
    assert ("zkside_snapshots_total", {"reason": "initial"}, 1.0) in found["zkside_snapshots"]
    assert ("zkside_holds_granted_total", {"kind": "ephemeral"}, 1.0) in found["zkside_holds_granted"]
    ended = {"kind": "ephemeral", "reason": "RELEASED"}
    assert ("zkside_holds_ended_total", ended, 1.0) in found["zkside_holds_ended"]
    assert found["zkside_cache_nodes"][0][2] >= 2
    operations = {labels["operation"] for _, labels, _ in found["zkside_zookeeper_request_duration_seconds"]}
    assert {"Create", "SetData"} <= operations
    assert any(
        labels.get("grpc_method") == "Create" and value == 1 for _, labels, value in found["grpc_server_handled"]
    )


async def test_scraping_costs_the_same_with_many_subscribers(daemon: DaemonProcess) -> None:
    """O4: not a line more, and the event loop goes on."""
    async with Client(daemon.address) as client:
        await use(client)
        daemon.get("/metrics")
        before = len(daemon.get("/metrics")[1].splitlines())
        watches = [client.watch(f"/subscribed-{number}") for number in range(300)]
        for watch in watches:
            await anext(watch)
        text = daemon.get("/metrics")[1]
        assert families(text)["zkside_subscribers"][0][2] == 300
        # New buckets and codes of methods apart, which are bounded by the number of methods.
        assert len(text.splitlines()) - before < 30


async def test_the_documentation_lists_every_metric_with_its_labels_and_no_other(full: DaemonProcess) -> None:
    async with Client(full.address) as client:
        await use(client)
    page = (ROOT / "docs/operations.md").read_text()
    rows = re.findall(r"^\| (`.*`) \|", page, re.MULTILINE)
    documented = {
        name: set(labels.split(",")) - {""}
        for row in rows
        for name, labels in re.findall(r"`((?:zkside|grpc_server)_\w+)(?:{([\w,]+)})?`", row)
    }
    exported: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(full.get("/metrics")[1]):
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        if not name.startswith(("process_", "python_gc_")):
            exported[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert documented == exported


def test_series_that_are_known_beforehand_begin_at_zero(daemon: DaemonProcess) -> None:
    """Of one that begins with its first event, increase() and rate() do not see that event."""
    found = families(daemon.get("/metrics")[1])
    assert {labels["kind"] for _, labels, _ in found["zkside_holds_granted"]} == set(KINDS)
    assert set(KINDS) == {ephemeral.RECIPE, group.RECIPE, lock.RECIPE, election.RECIPE}
    assert len(found["zkside_holds_ended"]) == len(KINDS) * 8
    assert len(found["zkside_holds"]) == len(KINDS) * 3
    ways = {(labels["from"], labels["to"]): count for _, labels, count in found["zkside_session_transitions"]}
    assert ways[("suspended", "lost")] == ways[("connected", "lost")] == 0
    assert {labels["reason"] for _, labels, _ in found["zkside_gaps"]} == {"overflow", "disconnected"}
    assert {labels["reason"] for _, labels, _ in found["zkside_snapshots"]} == {
        "initial",
        "resume_too_old",
        "overflow",
        "history_changed",
    }
    assert all(count == 0 for _, _, count in found["zkside_quota_refusals"])
    assert {labels["limit"] for _, labels, _ in found["zkside_quota_refusals"]} >= {
        "max_holds",
        "max_streams",
        "max_calls",
    }


async def test_there_are_no_exemplars(full: DaemonProcess) -> None:
    """Nor in OpenMetrics, which has a place for them, and is what Prometheus asks for."""
    async with Client(full.address) as client:
        await use(client)
    text = await asyncio.to_thread(as_open_metrics, full.http_port)
    read = list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    assert read
    assert not [sample for family in read for sample in family.samples if sample.exemplar]


def as_open_metrics(port: int) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        text: str = answer.read().decode()
    return text


async def test_the_lowest_lease_is_told_while_something_is_owned(daemon: DaemonProcess) -> None:
    async with Client(daemon.address) as client:
        await client.session(wait_for_ready=True)
        assert families(daemon.get("/metrics")[1])["zkside_lease_lowest_seconds"] == []
        async with client.hold_ephemeral("/owned"):
            found = families(daemon.get("/metrics")[1])
            ((_, _, lowest_s),) = found["zkside_lease_lowest_seconds"]
            assert 0 < lowest_s <= found["zkside_lease_remaining_seconds"][0][2] + 0.1


async def test_who_does_not_read_is_seen_and_what_is_refused_is_counted(tmp_path: Path, hosts: str) -> None:
    """W8, O4."""
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts, QUOTAS_MAX_HOLDS="1") as daemon:
        async with Client(daemon.address) as client, grpc.aio.insecure_channel(daemon.address) as channel:
            await client.create("/large", wait_for_ready=True)
            target = watch_pb2.WatchTarget(path="/large", scope=watch_pb2.SCOPE_NODE, with_data=True)
            stream = watch_pb2_grpc.WatchServiceStub(channel).Watch(watch_pb2.WatchRequest(targets=[target]))
            await stream.read()
            found = families(daemon.get("/metrics")[1])
            assert found["zkside_streams"][0][2] == 1
            while found["zkside_stream_unread_max_seconds"][0][2] < 1.0:
                await client.set("/large", os.urandom(900_000))
                found = families(daemon.get("/metrics")[1])
            assert found["zkside_streams_stalled"][0][2] == 0
            stream.cancel()
            async with client.hold_ephemeral("/held"):
                with pytest.raises(Quota):
                    async with client.hold_ephemeral("/more"):
                        pass
            found = families(daemon.get("/metrics")[1])
            assert ("zkside_quota_refusals_total", {"limit": "max_holds"}, 1.0) in found["zkside_quota_refusals"]
            while found["zkside_stream_unread_max_seconds"][0][2] >= 1.0:
                found = families(daemon.get("/metrics")[1])


def test_the_pages_refuse_other_names_and_methods(daemon: DaemonProcess) -> None:
    """O2: a web page elsewhere whose name points at this host learns nothing."""
    assert daemon.get("/metrics", host="evil.example")[0] == 421
    assert daemon.get("/nothing")[0] == 404
    request = urllib.request.Request(f"http://127.0.0.1:{daemon.http_port}/metrics", data=b"x", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request, timeout=10)


def test_the_status_page_is_json_that_tells_the_session(daemon: DaemonProcess) -> None:
    document = json.loads(daemon.get("/statusz")[1])
    assert document["backend"] == "kazoo"
    assert {"state", "epoch", "session_id"} <= document["session"]["status"].keys()
    assert document["hub"]["cached_nodes"] >= 0


@pytest.mark.slow
async def test_a_real_prometheus_scrapes_it(daemon: DaemonProcess, tmp_path: Path) -> None:
    async with Client(daemon.address) as client:
        await use(client)
    port = free_port()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        "scrape_configs:\n"
        f"  - {{job_name: zkside, static_configs: [{{targets: ['127.0.0.1:{daemon.http_port}']}}]}}\n"
    )
    prometheus = subprocess.Popen(
        [
            tool("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        query = 'zkside_session_state{state="connected"} == 1 and on() up == 1'
        assert await asyncio.to_thread(answer_of, port, query)
        assert await asyncio.to_thread(answer_of, port, "zkside_build_info")
        assert await asyncio.to_thread(answer_of, port, "histogram_quantile(0.5, zkside_event_loop_lag_seconds_bucket)")
    finally:
        prometheus.terminate()
        prometheus.wait(20)


def answer_of(port: int, query: str) -> list[object]:
    """The answer as soon as there is one; Prometheus has no way to be told when it has scraped."""
    address = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(query)}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                found: list[object] = json.load(answer)["data"]["result"]
        except OSError:
            found = []
        if found:
            return found
        time.sleep(0.1)
    return []
