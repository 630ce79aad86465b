"""The keeper's HTTP server: threads, TLS, and bounds on what a client may cost."""

from __future__ import annotations

import io
import logging
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, TCPServer, ThreadingMixIn
from urllib.parse import parse_qs, unquote, urlsplit

from lbctl import __version__
from lbctl.http.message import Request, Response
from lbctl.http.problems import RequestProblem
from lbctl.keeper.process.journal import KeptCopy
from lbctl.keeper.process.resources import BODY_LIMIT, Resources

LOG = logging.getLogger(__name__)

CONNECTIONS = 64
"""Open at once. One more, and the one that has been idle for longest is closed."""
REQUEST_SECONDS = 10.0
"""From the first byte of a request (of a connection with TLS: from its beginning) to the last of its answer."""
IDLE_SECONDS = 300.0
"""A connection may wait so long for its next request."""
NOTE_SECONDS = 10.0
"""Odd things of one kind are logged once in this time."""


Accepted = socket.socket | tuple[bytes, socket.socket]
"""What socketserver hands over: of TCP always a socket (of UDP a packet too)."""
ClientAddress = tuple[str, int] | tuple[str, int, int, int]
"""Of IPv4; of IPv6."""


class _Connection:
    """What is known of a connection from outside its thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.idle = False
        self.since = time.monotonic()

    def turn(self, idle: bool) -> None:
        self.idle, self.since = idle, time.monotonic()

    def overdue(self, now: float) -> bool:
        return now - self.since > (IDLE_SECONDS if self.idle else REQUEST_SECONDS)

    def cut(self) -> None:
        """Ends whatever its thread waits for. Not SSLSocket's own shutdown, which would take the TLS state from under
        it."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended by itself


class KeeperServer(ThreadingMixIn, TCPServer):
    """Listens at once. Raises OSError if it cannot. tls: what it shows clients; None: no TLS."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], kept: KeptCopy, token: str | None,
                 tls: ssl.SSLContext | None = None) -> None:
        self.resources = Resources(kept, token, self.note, lambda: self.connections)
        self._tls = tls
        self._connections: dict[int, _Connection] = {}
        self._guard = threading.Lock()
        self._noted: dict[str, tuple[float, int]] = {}
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, BaseRequestHandler)  # which is never made: finish_request makes a _Handler

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    @property
    def idle(self) -> int:
        """How many of them wait for their next request."""
        with self._guard:
            return sum(each.idle for each in self._connections.values())

    def server_bind(self) -> None:
        """`::` is for IPv4 as well."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Accepted, client_address: ClientAddress) -> None:
        """Starts the connection's thread, if there is room or can be made."""
        assert isinstance(request, socket.socket)
        with self._guard:
            if len(self._connections) >= CONNECTIONS:
                idle = [each for each in self._connections.values() if each.idle]
                if not idle:
                    self.note("busy", f"{CONNECTIONS} connections are busy: one from {client_address[0]} is refused")
                    self.shutdown_request(request)
                    return
                min(idle, key=lambda each: each.since).cut()
            self._connections[id(request)] = _Connection(request)
        super().process_request(request, client_address)

    def finish_request(self, request: Accepted, client_address: ClientAddress) -> None:
        """One connection, in its thread."""
        assert isinstance(request, socket.socket)
        connection = self._connections[id(request)]
        try:
            request.settimeout(IDLE_SECONDS)
            if self._tls:
                encrypted = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                request = connection.sock = encrypted
                encrypted.do_handshake()
            _Handler(request, client_address, self, connection)
        except ssl.SSLError as error:
            self.note("tls", f"{client_address[0]}: no TLS connection: {error.reason or error}")
        except (OSError, ValueError):
            pass  # the client, or `cut`, has ended the connection
        finally:
            with self._guard:
                self._connections = {key: each for key, each in self._connections.items() if each is not connection}
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Twice a second: connections that take too long end."""
        now = time.monotonic()
        with self._guard:
            overdue = [each for each in self._connections.values() if each.overdue(now)]
        for connection in overdue:
            if not connection.idle:
                self.note("slow", f"a request was not done after {REQUEST_SECONDS:g} s: its connection is closed")
            connection.cut()

    def note(self, kind: str, text: str) -> None:
        """One line in the log; not more than one of a kind in NOTE_SECONDS, then with the number of those left out."""
        now = time.monotonic()
        last, left_out = self._noted.get(kind, (float("-inf"), 0))
        if now - last < NOTE_SECONDS:
            self._noted[kind] = last, left_out + 1
            return
        self._noted[kind] = now, 0
        LOG.warning("%s%s", text, f" ({left_out} more of this kind since the last such line)" if left_out else "")

    def handle_error(self, request: Accepted, client_address: ClientAddress) -> None:
        """A bug: everything foreseen has been answered."""
        LOG.exception("internal error with a connection from %s", client_address[0])


class _Handler(BaseHTTPRequestHandler):
    """Requests of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"lbctl-keeper/{__version__}", ""
    disable_nagle_algorithm = True
    server: KeeperServer
    rfile: io.BufferedReader

    def __init__(self, request: socket.socket, client_address: ClientAddress, server: KeeperServer,
                 connection: _Connection) -> None:
        self._connection = connection
        super().__init__(request, client_address, server)

    def handle_one_request(self) -> None:
        self._connection.turn(idle=True)
        if not self.rfile.peek(1):
            self.close_connection = True
            return
        self._connection.turn(idle=False)
        super().handle_one_request()

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        length, unreadable = self._length(headers)
        refused = self.server.resources.unauthorised(headers) or unreadable
        body = b"" if refused else self.rfile.read(length)
        if not refused and len(body) != length:
            refused = RequestProblem(400, "The body is shorter than its Content-Length.")
        if refused:
            self.close_connection = True
        self._send(refused.response() if refused else self._of_resources(headers, body))
        while refused and length > 0 and (left_out := self.rfile.read1(min(length, 65536))):
            length -= len(left_out)  # with bytes unread, closing would make the client's machine forget the answer

    def _of_resources(self, headers: Mapping[str, str], body: bytes) -> Response:
        try:
            parts = urlsplit(self.path)
        except ValueError as error:
            return RequestProblem(400, f"The path makes no sense: {error}.").response()
        query = parse_qs(parts.query, keep_blank_values=True)
        request = Request(self.command, unquote(parts.path), query, headers, body)
        try:
            return self.server.resources.answer(request)
        except Exception:
            LOG.exception("%s %s failed; this is a bug in lbctl", self.command, self.path)
            return RequestProblem(500, "The keeper failed on this request; its log says why.").response()

    @staticmethod
    def _length(headers: Mapping[str, str]) -> tuple[int, RequestProblem | None]:
        """Bytes of the body; and what to answer if it will not be read."""
        if "transfer-encoding" in headers:
            return 0, RequestProblem(411, "Send the body with its Content-Length.")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 20:
            return 0, RequestProblem(400, "Content-Length is no number.")
        if int(length) > BODY_LIMIT:
            return BODY_LIMIT, RequestProblem(413, f"The body is longer than {BODY_LIMIT} bytes.")
        return int(length), None

    def _send(self, response: Response) -> None:
        self.server.resources.counters[str(response.status)] += 1
        if response.status >= 400:
            self.server.note(str(response.status), f"{self.client_address[0]}: {self.requestline!r} answered with "
                                                   f"{response.status}: {response.body.decode()}")
        self.send_response_only(response.status)
        more = {"Cache-Control": "no-store", "Content-Length": str(len(response.body))}
        for name, value in {**response.headers, **more}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else response.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request."""
        self.close_connection = True
        self.command, self.requestline = self.command or "", self.requestline or ""
        self.request_version = self.protocol_version  # of 0.9, as which it would pass, answers have no head
        self._send(RequestProblem(code, f"{message or HTTPStatus(code).phrase}.").response())

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _answer

    def log_message(self, *_: object) -> None:
        pass
