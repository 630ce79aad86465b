"""What the control function asks of keepers, over HTTP.

A call waits for the answer, up to a time limit; in Ryu's process that is a green thread which waits.

One Client for each keeper. It keeps connections open, and may be used by several threads at once: who fetches a copy
does not wait for a batch that is being sent.
"""

from __future__ import annotations

import json
import logging
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from urllib3 import HTTPConnectionPool, HTTPHeaderDict, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ProtocolError

from lbctl.keeper.batches import CONTENT_TYPE, Answer, Batch, Reply, decode, encode
from lbctl.keeper.rows import Row, derived_ports, entries
from lbctl.site.model import KEEPER_PORT, ExternalIp
from lbctl.values.addresses import Address
from lbctl.values.protocols import PROTOCOL_NUMBERS, TCP

BODY_LIMIT = 256 * 1024 * 1024
"""Bytes that a keeper's answer may have: a million rows of any kind are less than a quarter of it."""
ERROR_LIMIT = 64 * 1024
IDLE_CONNECTIONS = 2
"""Are kept for the next call. A fetch of many copies at once opens more, which are closed when they have served."""

# It warns of each connection that is not kept.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class KeeperError(Exception):
    """The keeper did not do it. The message says which keeper, what happened, and what to do."""


class KeeperSilent(KeeperError):
    """Nothing answers there, or not in time: the next question would fare no better."""


class Fetched(NamedTuple):
    """What a keeper has of a stream, as of the batch with that number of that session, which came `age` seconds ago."""

    session: int
    sequence: int
    age: float
    rows: list[Row]


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the certificates in that file (None: the system's). Raises KeeperError if it can't be read."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise KeeperError(f"the keepers' CA file {ca_file} cannot be read: {error}") from error


class KeeperClient:
    """url: http://ADDRESS:PORT or https://... Raises ValueError if it is neither. timeout: seconds without progress
    that end a call."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 2.0,
                 tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"{url!r} is no address of a keeper; one is http://10.0.0.11:{KEEPER_PORT}")
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        host, port = parts.hostname, parts.port or KEEPER_PORT
        self._pool = HTTPConnectionPool(host, port, timeout=timeout, maxsize=IDLE_CONNECTIONS)
        if parts.scheme == "https":
            self._pool = HTTPSConnectionPool(host, port, timeout=timeout, maxsize=IDLE_CONNECTIONS,
                                             ssl_context=tls or tls_context(None))

    def send(self, batch: Batch) -> Reply:
        """Gives a batch to the keeper. Raises KeeperError if it is not known whether the keeper has taken it."""
        status, _, body = self._call("POST", "/v1/copies", encode(batch))
        try:
            content = json.loads(body)
            if status == 200:
                return Reply(Answer(content["answer"]), int(content["sequence"]), str(content.get("detail", "")))
        except (ValueError, KeyError, TypeError):
            raise self._stranger(status) from None
        raise self._refused(status, body)

    def fetch(self, external: Address, server: Address) -> Fetched:
        """The copy of that external IP's entries that lead to that server. Raises KeeperError."""
        batch, age = self._get(f"/v1/copies/{quote(str(external), safe='')}?{urlencode({'server': server})}")
        return Fetched(batch.session, batch.sequence, age, self._rows(batch))

    def fetch_sockets(self, external_ip: ExternalIp, server: Address) -> list[Row]:
        """That server's TCP connections as its kernel knows them (seed figure 14); next hops are not among it. Raises
        KeeperError.

        Only with destination NAT: else the kernel does not know the clients' addresses.
        """
        query = _sockets_query(external_ip, server)
        return self._rows(self._get(f"/v1/sockets?{query}")[0]) if query else []

    def count_sockets(self, external_ip: ExternalIp, server: Address) -> dict[int, int]:
        """How many of these there are, by the server's port. Raises KeeperError."""
        query = _sockets_query(external_ip, server)
        if not query:
            return {}
        status, _, body = self._call("GET", f"/v1/sockets/count?{query}")
        if status != 200:
            raise self._refused(status, body)
        try:
            return {int(port): int(count) for port, count in json.loads(body)["connections"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._stranger(status) from None

    def close(self) -> None:
        """Closes what is open and idle. The client must not be used afterwards."""
        self._pool.close()

    def _get(self, target: str) -> tuple[Batch, float]:
        status, headers, body = self._call("GET", target)
        if status != 200:
            raise self._refused(status, body)
        try:
            return decode(body), float(headers.get("lbctl-age", 0.0))
        except ValueError as error:
            raise KeeperError(f"what the keeper at {self.url} gave back cannot be read: {error}") from error

    def _rows(self, batch: Batch) -> list[Row]:
        rows = [row for section in batch.sections for row in entries(section)]
        if not {row.key[0] for row in rows} <= set(PROTOCOL_NUMBERS.values()):
            raise KeeperError(f"the copy of the keeper at {self.url} has entries of unknown protocols; is it of "
                              "another release?")
        return rows

    def _call(self, method: str, target: str, body: bytes | None = None) -> tuple[int, HTTPHeaderDict, bytes]:
        """Status, headers and body of the answer; asks once more if the connection ends without one, which an idle one
        may do while it is being used again."""
        try:
            try:
                return self._exchange(method, target, body)
            except ProtocolError:
                return self._exchange(method, target, body)
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from error

    def _exchange(self, method: str, target: str, body: bytes | None) -> tuple[int, HTTPHeaderDict, bytes]:
        kind = "Accept" if body is None else "Content-Type"
        response = self._pool.urlopen(
            method, target, body, {**self._headers, kind: CONTENT_TYPE}, retries=False, redirect=False,
            preload_content=False, decode_content=False, enforce_content_length=False)
        content = response.read(BODY_LIMIT + 1)
        if len(content) > BODY_LIMIT:
            response.close()
            raise KeeperError(f"what the keeper at {self.url} gave back cannot be read: it is longer than {BODY_LIMIT} "
                              "bytes")
        response.release_conn()
        return response.status, response.headers, content

    def _unreachable(self, error: BaseException) -> KeeperSilent:
        while isinstance(error, HTTPError) and error.__context__:
            error = error.__context__  # what it was before urllib3 made it its own
        if isinstance(error, TimeoutError):
            return KeeperSilent(f"the keeper at {self.url} does not answer within {self._timeout:g} s")
        if isinstance(error, ssl.SSLCertVerificationError):
            return KeeperSilent(f"the certificate of the keeper at {self.url} is not trusted ({error.verify_message}); "
                               "see keeper_ca_file")
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        return KeeperSilent(f"there is no keeper at {self.url} ({cause}); start it there: lbctl keeper")

    def _stranger(self, status: int) -> KeeperError:
        return KeeperError(f"what answers at {self.url} (status {status}) is no keeper")

    def _refused(self, status: int, body: bytes) -> KeeperError:
        try:
            detail = json.loads(body[:ERROR_LIMIT])["detail"]
        except (ValueError, KeyError, TypeError):
            return self._stranger(status)
        return KeeperError(f"the keeper at {self.url}: {detail}")


def _sockets_query(external_ip: ExternalIp, server: Address) -> str:
    """Empty: no TCP service leads there. Raises KeeperError."""
    pairs = [("port", f"{inside}:{outside}") for inside, outside in socket_ports(external_ip, server).items()]
    return urlencode([("external_ip", external_ip.address), ("server", server), *pairs]) if pairs else ""


def socket_ports(external_ip: ExternalIp, server: Address) -> dict[int, int]:
    """TCP port of that server -> external port, for a fetch of its sockets. Raises KeeperError if they don't tell the
    entries."""
    if not external_ip.has_own_servers:
        raise KeeperError(f"{external_ip.address}: the servers' sockets tell its connections only with destination "
                          "NAT, or none; take `copies: keeper`")
    derived = derived_ports(external_ip, server)
    ports = {each.port for service in external_ip.services if service.protocol_number == TCP
             for each in service.servers if each.address == server}
    known = {port: derived[place] for port in sorted(ports) if (place := bytes([TCP]) + port.to_bytes(2)) in derived}
    if unclear := sorted(ports - known.keys()):
        raise KeeperError(f"{external_ip.address}: several services lead to port {', '.join(map(str, unclear))} of "
                          f"{server}, so its sockets don't tell which one a connection is of; take `copies: keeper`")
    return {port: int.from_bytes(external) for port, external in known.items()}
