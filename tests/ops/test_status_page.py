"""What the status page is made of, as it travels. How it looks: tests/page."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.process import DaemonProcess
from zkside.client import Client


@pytest.fixture
def daemon(tmp_path: Path, hosts: str) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts, STATE_DIR=str(tmp_path / "state")) as process:
        yield process


def headers(daemon: DaemonProcess, path: str) -> dict[str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=20)
    try:
        connection.request("GET", path, headers={"Host": "localhost"})
        answer = connection.getresponse()
        assert answer.status == 200, path
        answer.read()
        return dict(answer.getheaders())
    finally:
        connection.close()


def test_every_part_forbids_the_browser_all_that_it_does_not_need(daemon: DaemonProcess) -> None:
    """O1, O2: no inline script, no other host, no frame, no guess at what a file is, no copy kept."""
    types = {
        "/": "text/html; charset=utf-8",
        "/page/page.js": "text/javascript; charset=utf-8",
        "/page/page.css": "text/css; charset=utf-8",
        "/page/icon.svg": "image/svg+xml; charset=utf-8",
        "/page/live.json": "application/json",
    }
    for path, content_type in types.items():
        found = headers(daemon, path)
        assert found["Content-Type"] == content_type
        policy = found["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "trusted-types 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert (found["X-Content-Type-Options"], found["Cache-Control"]) == ("nosniff", "no-store")
        assert found["Cross-Origin-Resource-Policy"] == "same-origin"


def test_the_page_names_no_other_host_and_has_no_markup_from_strings() -> None:
    folder = Path(__file__).resolve().parents[2] / "zkside/ops/page"
    for file in folder.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, file.name
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=", " onclick"):
            assert word not in text, (file.name, word)


async def test_what_a_hold_is_taken_up_with_is_not_told(daemon: DaemonProcess, tmp_path: Path) -> None:
    """No resume token and no hold_id, though the page shows the hold."""
    async with Client(daemon.address) as client:
        await client.get("/", wait_for_ready=True)
        await client.create("/secret", b"the data of a node")
        async with client.lock("/lock", owner="me", reconnect_grace_s=30) as held:
            told = (await asyncio.to_thread(daemon.get, "/page/live.json"))[1]
            (row,) = json.loads(told)["lists"]["held"]
            assert (row["path"], row["owners"][0]["owner"], row["owners"][0]["state"]) == ("/lock", "me", "held")
            assert row["owners"][0]["token"] == str(held.fencing_token)
            journal = b"".join(file.read_bytes() for file in (tmp_path / "state").iterdir() if file.is_file())
            assert held.hold_id.encode() in journal
            assert held.hold_id not in told
            assert "the data of a node" not in told
            tokens = re.findall(rb"[A-Za-z0-9_-]{32,}", journal)
            assert tokens, "the journal has the resume token"
            assert [token for token in tokens if token.decode() in told] == [held.path.rpartition("/")[2].encode()]


def test_details_can_be_switched_off(tmp_path: Path, hosts: str) -> None:
    """O2."""
    with DaemonProcess(tmp_path, ZOOKEEPER_HOSTS=hosts, HTTP_DETAILS="false") as daemon:
        assert daemon.get("/") == (200, "zkside: /metrics /healthz /readyz /statusz\n")
        assert daemon.get("/statusz")[0] == 403
        assert daemon.get("/page/live.json")[0] == 404
        assert daemon.get("/metrics")[0] == 200
