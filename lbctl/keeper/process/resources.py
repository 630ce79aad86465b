"""What a keeper answers to a request: a function of the request and the copy, without sockets and threads."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

from lbctl.entries.access_table import NO_HOP, STATES, Entry
from lbctl.http.message import Request, Response
from lbctl.http.problems import RequestProblem
from lbctl.http.tokens import missing_token
from lbctl.keeper.batches import CONTENT_TYPE, Answer, Batch, BatchKind, MalformedBatch, decode, encode
from lbctl.keeper.process import sockets
from lbctl.keeper.process.copy import ServerCopy, Session
from lbctl.keeper.process.journal import KeptCopy
from lbctl.keeper.process.metrics import exposition
from lbctl.keeper.rows import Row, Section, entries, row_size, version_of
from lbctl.values.addresses import Address
from lbctl.values.protocols import PROTOCOL_NAMES

BODY_LIMIT = 8 * 1024 * 1024
"""Bytes of a batch."""
SHOWN = 10_000
"""So many entries are shown as JSON, which is for people."""


class Resources:
    """Answers requests, of several threads. Whoever holds `lock` keeps the copy and its file as they are.

    note(kind, text) is told what a person might want to know; connections: how many there are now, for the metrics.
    """

    def __init__(self, kept: KeptCopy, token: str | None, note: Callable[[str, str], None] = lambda kind, text: None,
                 connections: Callable[[], int] = lambda: 0) -> None:
        self.lock = threading.Lock()
        self.counters: Counter[str] = Counter()
        """Answers by status."""
        self._kept, self._copy, self._token = kept, kept.copy, token
        self._note, self._connections = note, connections
        self._routes: dict[str, dict[str, Callable[[Request], Response]]] = {
            "/v1/copies": {"GET": self._streams, "POST": self._take},
            "/v1/sockets": {"GET": self._sockets},
            "/v1/sockets/count": {"GET": self._socket_count},
            "/v1/health": {"GET": self._health},
            "/metrics": {"GET": self._metrics},
        }

    def unauthorised(self, headers: Mapping[str, str]) -> RequestProblem | None:
        """What to answer to a request that does not carry the token; before its body is read."""
        detail = missing_token(headers, self._token, "keeper")
        challenge = {"WWW-Authenticate": 'Bearer realm="lbctl keeper"'}
        return RequestProblem(401, detail, headers=challenge) if detail else None

    def answer(self, request: Request) -> Response:
        """The answer to a request that carries the token."""
        try:
            return self._route(request)(request)
        except RequestProblem as problem:
            return problem.response()

    def _route(self, request: Request) -> Callable[[Request], Response]:
        by_method = self._routes.get(request.path)
        if by_method is None and request.path.startswith("/v1/copies/"):
            by_method = {"GET": self._rows}
        if by_method is None:
            raise RequestProblem(404, f"There is nothing at {request.path}.")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in by_method:
            allow = ", ".join(by_method)
            raise RequestProblem(405, f"{request.path} takes {allow}, not {request.method}.", headers={"Allow": allow})
        return by_method[method]

    def _take(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CONTENT_TYPE:
            raise RequestProblem(415, f"The body must be {CONTENT_TYPE}.")
        try:
            batch = decode(request.body or b"")
        except MalformedBatch as error:
            raise RequestProblem(400, f"The body is no batch: {error}.") from error
        try:
            with self.lock:
                reply = self._kept.put(batch, request.body or b"")
        except OSError as error:
            raise RequestProblem(507, f"The batch cannot be written: {error.strerror}; free space in the keeper's "
                                      "directory.") from error
        if reply.answer is not Answer.ACKNOWLEDGED:
            which = f"batch {batch.sequence} of session {batch.session:016x} of {ip_address(batch.server)}"
            self._note(reply.answer.value, f"{which}: {reply.answer.value}, {reply.detail}")
        elif batch.kind is BatchKind.LAST_PART:
            self._note("full", f"the full copy of {ip_address(batch.server)} is complete, session {batch.session:016x}")
        return _json({"answer": reply.answer.value, "sequence": reply.sequence, "detail": reply.detail})

    def _streams(self, request: Request) -> Response:
        with self.lock:
            streams, now = self._copy.streams(), time.time()
            return _json({
                "rows": self._copy.rows, "rows_limit": self._copy.max_rows,
                "servers": [{"server": str(ip_address(address)), **_session(server, now)}
                            for address, server in self._copy.servers.items()],
                "streams": [{"server": str(ip_address(server)), "external_ip": str(ip_address(external)), "rows": rows}
                            for (server, external), rows in streams.items()]})

    def _rows(self, request: Request) -> Response:
        external = _address(request.path.removeprefix("/v1/copies/"))
        server = self._own(_one(request, "server"))
        with self.lock:
            current = self._copy.servers[server].current
            if current is None:
                raise RequestProblem(404, "This keeper has not received a full copy of the entries of "
                                          f"{ip_address(server)} yet.")
            found, age = current.batch(BatchKind.LAST_PART, external.packed), _age(current, time.time())
        return _batch(request, found, age)

    def _sockets(self, request: Request) -> Response:
        found, _ = self._found_sockets(request)
        return _batch(request, Batch(BatchKind.LAST_PART, found.stream.server, 0, 0, [found]), 0.0)

    def _socket_count(self, request: Request) -> Response:
        found, ports = self._found_sockets(request)
        behind = 1 + len(found.stream.server)
        counts = Counter(int.from_bytes(row.reply[behind:behind + 2]) for row in entries(found))
        return _json({"connections": {str(port): counts[port] for port in ports}})

    def _found_sockets(self, request: Request) -> tuple[Section, dict[int, int]]:
        """And the ports that were asked about."""
        server = self._own(_one(request, "server"))
        external = _address(_one(request, "external_ip"))
        if len(external.packed) != len(server):
            raise RequestProblem(422, "Wrong query: server and external_ip are of different IP versions.")
        try:
            ports = dict(_port_pair(text) for text in request.query.get("port", []))
            return sockets.connections(server, external.packed, ports), ports
        except ValueError:
            raise RequestProblem(422, "Wrong query: port is SERVER_PORT:EXTERNAL_PORT, once for each.") from None
        except sockets.SocketsError as error:
            raise RequestProblem(503, f"{error}.".capitalize()) from error

    def _health(self, _: Request) -> Response:
        return _json({"status": "ok", "rows": self._copy.rows})

    def _metrics(self, _: Request) -> Response:
        with self.lock:
            text = exposition(self._copy, time.time(), self._kept.size, self.counters, self._connections())
        return Response(200, {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}, text.encode())

    def _own(self, text: str) -> bytes:
        """A packed server address that this keeper is for."""
        server = _address(text)
        if server.packed not in self._copy.servers:
            own = ", ".join(sorted(str(ip_address(each)) for each in self._copy.servers))
            raise RequestProblem(403, f"This keeper is not for server {server}, but for: {own}.")
        return server.packed


def _age(session: Session, now: float) -> float:
    """Seconds since a batch was last taken."""
    return round(max(0.0, now - session.taken_at), 3)


def _session(server: ServerCopy, now: float) -> dict[str, Any]:
    current, coming = server.current, server.coming
    return {"session": current and f"{current.number:016x}", "sequence": current and current.sequence,
            "rows": current.size if current else 0, "age_seconds": current and _age(current, now),
            "rows_coming": coming and coming.size}


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise RequestProblem(422, f"{text!r} is no IP address.") from None


def _one(request: Request, name: str) -> str:
    values = request.query.get(name, [])
    if len(values) != 1:
        raise RequestProblem(422, f"Wrong query: {name}: must be given once.")
    return values[0]


def _port_pair(text: str) -> tuple[int, int]:
    """Raises ValueError if it is not two port numbers with a colon between."""
    server_port, external_port = (int(part) for part in text.split(":"))
    if not (0 < server_port < 0x10000 and 0 < external_port < 0x10000):
        raise ValueError(text)
    return server_port, external_port


def _json(content: Any) -> Response:
    return Response(200, {"Content-Type": "application/json"}, json.dumps(content).encode())


def _batch(request: Request, batch: Batch, age: float) -> Response:
    """In the form that the request accepts: binary for the control function, else JSON."""
    if CONTENT_TYPE in request.headers.get("accept", ""):
        return Response(200, {"Content-Type": CONTENT_TYPE, "Lbctl-Age": f"{age:.3f}"}, encode(batch))
    shown = [row for section in batch.sections for row in entries(section._replace(rows=section.rows[:SHOWN * row_size(
        section.kind, version_of(section.stream))]))][:SHOWN]
    return _json({"session": f"{batch.session:016x}", "sequence": batch.sequence, "age_seconds": age,
                  "rows": batch.rows, "complete": len(shown) == batch.rows, "entries": [_entry(row) for row in shown]})


def _entry(row: Row) -> dict[str, Any]:
    connection = Entry(row.key, row.reply, row.next_hop, 0.0, inner_hop=row.inner_hop).connection
    internal = connection.internal
    return {"protocol": PROTOCOL_NAMES.get(connection.protocol, str(connection.protocol)),
            "client": str(connection.client.address), "client_port": connection.client.port,
            "external_ip": str(connection.external.address), "external_port": connection.external.port,
            "server": str(connection.server.address), "server_port": connection.server.port,
            "internal_ip": internal and str(internal.address), "internal_port": internal and internal.port,
            "next_hop": None if row.next_hop == NO_HOP else connection.next_hop,
            "inner_hop": row.inner_hop.hex(":") or None, "state": STATES[row.flags]}
