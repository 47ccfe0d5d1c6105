"""The HTTP server keeps answering whatever its clients do, and never touches the event loop's thread."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from zkside.errors import StartError
from zkside.ops.http import MAX_REQUESTS, HttpServer
from zkside.ops.pages import pages
from zkside.ops.status_page import StatusPage
from zkside.ops.turns import InTurns

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def hello(environment: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
    respond("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


@pytest.fixture
def server() -> Iterator[HttpServer]:
    server = HttpServer("127.0.0.1", 0, hello)
    server.start()
    yield server
    server.stop()


def get(port: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    answer = connection.getresponse().read()
    connection.close()
    return answer


def test_a_page_is_served(server: HttpServer) -> None:
    assert get(server.port) == b"hello"


def test_clients_that_never_send_a_request_do_not_keep_others_out(server: HttpServer) -> None:
    """O1, O4: the oldest of those who hang is cut off for the newest."""
    with ExitStack() as hanging:
        silent = [
            hanging.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(3 * MAX_REQUESTS)
        ]
        silent[-1].sendall(b"GET / HT")
        assert [get(server.port) for _ in range(20)] == [b"hello"] * 20
        silent[0].settimeout(10)
        assert silent[0].recv(1) == b""
        # Those whose connection was cut end as soon as they get to run.
        until_s = time.monotonic() + 10
        while sum(thread.name.startswith("Thread-") for thread in threading.enumerate()) > MAX_REQUESTS + 2:
            assert time.monotonic() < until_s
            time.sleep(0.01)


@pytest.mark.parametrize(
    "nonsense", [b"\x00\xff" * 500, b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_is_no_http_gets_an_error_and_harms_nobody(server: HttpServer, nonsense: bytes) -> None:
    """O1."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(nonsense)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
    assert b"hello" not in answer
    assert get(server.port) == b"hello"


def never() -> Any:
    raise AssertionError("looked into the daemon")


def ask(path: str, *, remote: str, host: str, loopback: bool, details: bool = True) -> tuple[str, bytes]:
    """The status and the text, from a daemon that must not be looked into."""
    answers: list[str] = []
    environment: WSGIEnvironment = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "REMOTE_ADDR": remote,
        "HTTP_HOST": host,
    }
    page = StatusPage(never, InTurns(asyncio.new_event_loop(), never)) if details else None
    body = pages(never, page, loopback=loopback)(
        environment,
        lambda status, headers, error=None: answers.append(status),  # type: ignore[arg-type]
    )
    return answers[0], b"".join(body)


@pytest.mark.parametrize(
    ("remote", "host", "details"),
    [
        ("192.0.2.1", "192.0.2.2:9464", True),
        ("192.0.2.1", "localhost:9464", True),
        ("127.0.0.1", "evil.example:9464", True),
        ("127.0.0.1", "localhost:9464", False),
    ],
    ids=["another host", "another host that lies", "a name that was pointed here", "switched off"],
)
def test_beyond_loopback_the_details_are_told_to_this_host_only(remote: str, host: str, details: bool) -> None:
    """O2: metrics and health may be scraped from elsewhere, the details may not."""

    def status(path: str) -> str:
        return ask(path, remote=remote, host=host, loopback=False, details=details)[0]

    assert status("/statusz") == "403 Forbidden"
    assert status("/page/live.json") == status("/page/page.js") == status("/page/index.html") == "404 Not Found"
    assert ask("/", remote=remote, host=host, loopback=False, details=details) == (
        "200 OK",
        b"zkside: /metrics /healthz /readyz /statusz\n",
    )


@pytest.mark.parametrize("path", ["/page/../pages.py", "/page//etc/passwd", "/page/", "/page/..", "/page/%2e%2e/x.js"])
def test_no_file_but_the_page_is_served(path: str) -> None:
    assert ask(path, remote="127.0.0.1", host="localhost", loopback=True)[0] == "404 Not Found"


def test_an_address_in_use_is_a_start_error_that_names_it(server: HttpServer) -> None:
    with pytest.raises(StartError, match=rf"http.listen: 127.0.0.1:{server.port} cannot be used"):
        HttpServer("127.0.0.1", server.port, hello)


def test_stopping_frees_the_port() -> None:
    first = HttpServer("127.0.0.1", 0, hello)
    first.start()
    assert get(first.port) == b"hello"
    first.stop()
    second = HttpServer("127.0.0.1", first.port, hello)
    second.start()
    assert get(second.port) == b"hello"
    second.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_is_followed_by_another(caplog: pytest.LogCaptureFixture) -> None:
    """O5: the address was bound all the time."""
    server = HttpServer("127.0.0.1", 0, hello)
    ended = threading.Event()

    def fail() -> None:
        ended.set()
        raise RuntimeError

    server.start()
    server._server.service_actions = fail  # type: ignore[method-assign]
    assert ended.wait(10)
    server._thread.join(10)
    del server._server.service_actions
    try:
        server.look()
        assert get(server.port) == b"hello"
        server.look()
        assert server.restarts == 1
        assert "another one goes on" in caplog.text
    finally:
        server.stop()
    server.look()
    assert not server._thread.is_alive()


def test_a_request_that_gets_no_thread_costs_a_line_and_no_more(
    server: HttpServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """O5, O1."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("no more threads")

    with monkeypatch.context() as none_left:
        none_left.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises((http.client.HTTPException, OSError)):
                get(server.port)
    assert caplog.text.count("no more threads") == 1
    assert capfd.readouterr().err == ""
    assert get(server.port) == b"hello"
