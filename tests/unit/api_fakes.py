"""A control function that only has state: what the tests of the REST API and of the CLI read."""

from __future__ import annotations

import json
from collections import Counter
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from lbctl.access_table import Entry, pack_key, reply_key
from lbctl.api.dispatch import dispatch
from lbctl.api.http import Request, Response
from lbctl.control import Refused
from lbctl.model import ExternalIp, LoadBalancer, Server, Service, Site, Strategy, TransferMode
from lbctl.move import MoveRecord, StepRecord
from lbctl.switch import PortState, Switch

IP_1, IP_2 = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2")
SERVER_1, SERVER_2 = IPv4Address("10.0.0.11"), IPv4Address("10.0.0.12")
START = 1_700_000_000.0


def site() -> Site:
    services = (Service("tcp", 80, "weighted-round-robin", (Server(SERVER_1, 80), Server(SERVER_2, 8080, weight=2))),)
    return Site(
        (LoadBalancer("lb-a", 0xAA, "lba-ext", "lba-int"), LoadBalancer("lb-b", 0xBB, "lbb-ext", "lbb-int")),
        IPv4Network("198.51.100.0/24"), IPv4Network("10.0.0.0/24"),
        (ExternalIp(IP_1, "lb-a", IPv4Address("10.0.0.1"), services=services),
         ExternalIp(IP_2, "lb-b", IPv4Address("10.0.0.2"))))


def entry(client: str, port: int, external: IPv4Address = IP_1, server: IPv4Address = SERVER_1) -> Entry:
    key = pack_key(6, IPv4Address(client).packed, port, external.packed, 80)
    return Entry(key, reply_key(key, server.packed, 80), bytes.fromhex("020000000009"), START)


class _Move:
    def __init__(self, record: MoveRecord) -> None:
        self.record = record


class FakeControl:
    def __init__(self) -> None:
        self.site = site()
        self.counters = Counter(entries_expired=4)
        self.switches = {lb.name: Switch(lb) for lb in self.site.load_balancers}
        self.moves: dict[str, Any] = {}
        self.table: dict[IPv4Address, list[Entry]] = {IP_1: [], IP_2: []}
        self.assignment = {ip.address: ip.load_balancer for ip in self.site.external_ips}
        for number, switch in enumerate(self.switches.values(), 1):
            switch.set_ports([PortState(switch.lb.external_port, 1, f"02:00:00:00:0{number}:01", True),
                              PortState(switch.lb.internal_port, 2, f"02:00:00:00:0{number}:02", True)])
            switch.state = "ready"
            switch.neighbours[SERVER_1] = "02:00:00:00:00:11"

    def assigned_to(self, address: IPv4Address) -> str:
        return self.assignment[address]

    def transfer_modes(self, name: str) -> dict[IPv4Address, TransferMode]:
        return {address: TransferMode.NORMAL for address, lb in self.assignment.items() if lb == name}

    def neighbour(self, lb_name: str, server_address: IPv4Address) -> str | None:
        return self.switches[lb_name].neighbours.get(server_address)

    def connection_count(self, address: IPv4Address) -> int:
        return len(self.table[address])

    def entries(self, address: IPv4Address) -> list[Entry]:
        return list(self.table[address])


class FakeOrders:
    """Moves start at once, and end when they are waited for."""

    def __init__(self) -> None:
        self.control = FakeControl()
        self.waited: list[tuple[str, float]] = []

    def start_move(self, address: IPv4Address, to: str, strategy: Strategy) -> MoveRecord:
        if self.control.assigned_to(address) == to:
            raise Refused(409, "Already there", f"{address} is on {to} already.")
        record = MoveRecord(str(len(self.control.moves) + 1), address, self.control.assigned_to(address), to, strategy,
                            START + len(self.control.moves), steps=[StepRecord("transition", START)])
        self.control.moves[record.id] = _Move(record)
        return record

    def fail_over(self, name: str) -> list[MoveRecord]:
        others = [lb for lb in self.control.switches if lb != name and self.control.switches[lb].ready]
        if not others:
            raise Refused(409, "No other load balancer", f"no load balancer but {name} is ready")
        return [self.start_move(address, others[0], Strategy.PRECOPY)
                for address, lb in self.control.assignment.items() if lb == name]

    def abort_move(self, id: str) -> None:
        record = self.control.moves[id].record
        if record.ended is not None:
            raise Refused(409, "Has ended", f"Move {id} has ended ({record.state}).")
        record.state, record.ended, record.reason = "aborted", START + 1, "on request"

    def wait_for_move(self, id: str, timeout: float) -> None:
        self.waited.append((id, timeout))
        record = self.control.moves[id].record
        record.state, record.ended = "done", START + 2
        self.control.assignment[record.external_ip] = record.target


class Api:
    """Calls of the API without a server."""

    def __init__(self, token: str | None = None) -> None:
        self.orders = FakeOrders()
        self.control = self.orders.control
        self.token = token

    def call(self, method: str, path: str, body: Any = None, query: dict[str, str] | None = None,
             headers: dict[str, str] | None = None) -> Response:
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} if headers is None else headers
        request = Request(method, path, {name: [value] for name, value in (query or {}).items()}, headers, raw or b"")
        return dispatch(request, self.orders, self.token)

    def get(self, path: str, **query: Any) -> Any:
        response = self.call("GET", path, query={name: str(value) for name, value in query.items()})
        assert response.status == 200, response.body
        return json.loads(response.body)


def problem(response: Response, status: int) -> dict[str, Any]:
    """Asserts problem details of that status, and returns them."""
    assert response.status == status, response.body
    assert response.headers["Content-Type"] == "application/problem+json"
    details = json.loads(response.body)
    assert details["status"] == status and details["title"] and details["detail"]
    return details


