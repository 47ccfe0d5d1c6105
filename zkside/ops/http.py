"""A small HTTP server in threads of its own, for pages that are made quickly and asked for rarely.

It never runs on the event loop, and its requests never keep it waiting: a page asks the loop for one frozen
view and is written from that (ops/pages.py).
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from zkside import log
from zkside.errors import StartError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

MAX_REQUESTS = 8
"""Answered at the same time; one more cuts the oldest off, so that nobody who hangs can keep others out."""
READ_TIMEOUT_S = 5.0
ACCEPT_AGAIN_S = 0.1
FAILED_AGAIN_S = 60.0


class HttpServer:
    """Serves a WSGI application on one address, from `start` to `stop`."""

    def __init__(self, host: str, port: int, application: WSGIApplication) -> None:
        """Port 0 takes any free one. Raises: StartError when the address cannot be had."""
        try:
            self._server = _Server(host, port)
        except OSError as error:
            raise StartError(f"http.listen: {host}:{port} cannot be used: {error.strerror or error}") from error
        self._server.set_app(application)
        self._thread = self._new_thread()
        self._stopped = False
        self.restarts = 0

    @property
    def port(self) -> int:
        return self._server.server_port

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        """Serve again if the thread has ended, by an error of its own: the address is bound all the time."""
        if not self._stopped and not self._thread.is_alive():
            self.restarts += 1
            log.http_restarted()
            self._thread = self._new_thread()
            self._thread.start()

    def stop(self) -> None:
        """Stop answering. Blocks for half a second at most: not for the event loop's thread."""
        self._stopped = True
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._server.serve_forever, name="http", daemon=True)


class _Handler(WSGIRequestHandler):
    timeout = READ_TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes come every few seconds: no lines for them."""

    def handle(self) -> None:
        # Whoever is slow, hangs up or is cut off is not worth a traceback.
        try:
            super().handle()
        except OSError:
            self.close_connection = True


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._failed_s = -FAILED_AGAIN_S
        self._answering: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's: that asks the DNS for this host's full name.
        TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        with self._lock:
            if len(self._answering) >= MAX_REQUESTS:
                oldest = next(iter(self._answering))
                del self._answering[oldest]
                _cut(oldest)
            self._answering[request] = None
        super().process_request(request, client_address)

    def get_request(self) -> tuple[socket.socket, object]:
        try:
            return super().get_request()
        except OSError:
            # No descriptor is left, mostly: the connection stays in the queue, and would be asked for at once again.
            time.sleep(ACCEPT_AGAIN_S)
            raise

    def handle_error(self, request: object, client_address: object) -> None:
        """A request that could not be served, as when there can be no more threads. Its connection is closed; the log
        has a line in a minute, and standard error nothing else."""
        now_s = time.monotonic()
        if now_s - self._failed_s >= FAILED_AGAIN_S:
            self._failed_s = now_s
            log.http_failed(error=sys.exception() or RuntimeError("unknown"))

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        with self._lock:
            self._answering.pop(request, None)
        super().shutdown_request(request)


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It has gone by itself.
        return
