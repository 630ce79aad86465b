"""A control function that only has state, behind the real `Shown`: what the tests of the REST API and of the CLI
read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Any

from lbctl.api.dispatch import dispatch
from lbctl.api.shown import Parts, Shown
from lbctl.copies.feeds import KeeperState
from lbctl.entries.access_table import Entry
from lbctl.entries.translation import full_reply
from lbctl.ground.move_record import MoveRecord, StepRecord
from lbctl.http.message import Request, Response
from lbctl.load.loads import Load
from lbctl.openflow.rules import SERVING
from lbctl.servers.slices import NOBODYS, divided
from lbctl.servers.slicing import Slicing
from lbctl.servers.states import FormerServer, ServerState
from lbctl.site.model import ExternalIp, Instead, LoadBalancer, Server, Service, ServiceName, ServiceOrder, Site, Tunnel
from lbctl.site.orders import in_force
from lbctl.switches.switch import PortState, Switch
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.keys import Place, pack_key, reply_key, server_key
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy

IP_1, IP_2 = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2")
ROUTER = IPv4Address("198.51.100.254")
SERVER_1, SERVER_2 = IPv4Address("10.0.0.11"), IPv4Address("10.0.0.12")
START = 1_700_000_000.0


def site() -> Site:
    services = (Service("tcp", 80, "weighted-round-robin", (Server(SERVER_1, 80), Server(SERVER_2, 8080, weight=2))),)
    return Site(
        (LoadBalancer("lb-a", 0xAA, "lba-ext", "lba-int"), LoadBalancer("lb-b", 0xBB, "lbb-ext", "lbb-int")),
        (IPv4Network("198.51.100.0/24"),), (IPv4Network("10.0.0.0/24"),),
        (ExternalIp(IP_1, "lb-a", IPv4Address("10.0.0.1"), services=services),
         ExternalIp(IP_2, "lb-b", IPv4Address("10.0.0.2"))))


DNS, FULL, GATEWAY = IPv4Address("198.51.100.3"), IPv4Address("198.51.100.4"), IPv4Address("198.51.100.5")
SIX = IPv6Address("2001:db8:1::1")
"""External IPs of site_of_all_kinds: UDP on port 53; full NAT; a NAT gateway; IPv6."""
VXLAN_SERVER = IPv4Address("10.9.0.1")


def site_of_all_kinds() -> Site:
    plain = site()
    balancers = (replace(plain.load_balancers[0], tunnel_ports=(("vxlan", "lba-vx"),)), plain.load_balancers[1])
    one = Server(SERVER_1, 5353)
    more = (
        ExternalIp(DNS, "lb-a", IPv4Address("10.0.0.3"),
                   services=(Service("udp", 53, servers=(one,)), Service("tcp", 53, servers=(one,)),
                                                                   Service("udp", 54, servers=(one,)))),
        ExternalIp(FULL, "lb-a", None, "full", (Service("tcp", 80, servers=(
            Server(IPv4Address("10.1.0.1"), 80, next_hop=SERVER_1),
            Server(VXLAN_SERVER, 80, tunnel=Tunnel("vxlan", SERVER_2, 7)))),),
            internal_ips=(IPv4Address("10.0.0.104"),)),
        ExternalIp(GATEWAY, "lb-a", IPv4Address("10.0.0.5"), kind="nat-gateway", inside=(IPv4Network("10.0.0.192/26"),),
                   router=IPv4Address("198.51.100.254")),
        ExternalIp(SIX, "lb-a", IPv6Address("2001:db8:2::1"), services=(Service("tcp", 80, servers=(
            Server(IPv6Address("2001:db8:2::11"), 80),)),)))
    return replace(plain, load_balancers=balancers, external_ips=(*plain.external_ips, *more))


def sliced_site() -> Site:
    """The plain one, its service sliced."""
    plain = site()
    first, *rest = plain.external_ips
    services = tuple(replace(service, entries="slices") for service in first.services)
    return replace(plain, external_ips=(replace(first, services=services, router=ROUTER), *rest))


def slices_of(of_site: Site) -> dict[Address, dict[Place, Slicing]]:
    """Its slices, as all its servers take connections."""
    return {ip.address: {(service.protocol_number, service.port): Slicing(divided(
        NOBODYS, {server.endpoint: server.weight for server in service.servers}))
        for service in ip.services if service.sliced} for ip in of_site.external_ips}


def entry_of(protocol: int, client: str, external: str, server: str, internal: str = "", inner_hop: str = "") -> Entry:
    """An entry of any kind; each place as ADDRESS PORT."""
    places = [(ip_address(text.split()[0]).packed, int(text.split()[1])) for text in (client, external, server)]
    key = pack_key(protocol, *places[0], *places[1])
    translated = (ip_address(internal.split()[0]).packed, int(internal.split()[1])) if internal else None
    reply = full_reply(key, *places[2], translated) if translated else reply_key(key, *places[2])
    return Entry(key, reply, bytes.fromhex("020000000009"), START, inner_hop=bytes.fromhex(inner_hop))


def entry(client: str, port: int, external: IPv4Address = IP_1, server: IPv4Address = SERVER_1) -> Entry:
    key = pack_key(6, IPv4Address(client).packed, port, external.packed, 80)
    return Entry(key, reply_key(key, server.packed, 80), bytes.fromhex("020000000009"), START)


class FakeServices:
    """states: by external IP and server; what is not in it is up, or drained by order."""

    def __init__(self, control: FakeControl) -> None:
        self._control = control
        self.in_force = in_force(control.site, {})
        self.states: dict[tuple[Address, Endpoint], ServerState] = {}
        self.former: list[FormerServer] = []
        self.failing_open: str | None = None
        """Why all services serve in spite of their checks."""

    def order(self, address: Address, service: Service) -> ServiceOrder:
        return self.in_force.order(address, service)

    def server_state(self, address: Address, service: Service, server: Server) -> ServerState:
        drained = server.endpoint in self.order(address, service).drained
        usual = ServerState("drained" if drained else "up", 0, takes=not drained)
        return self.states.get((address, server.endpoint), usual)

    def fails_open(self, address: Address, service: Service) -> str | None:
        return self.failing_open

    def former_servers(self, address: Address) -> list[FormerServer]:
        return self.former

    def change(self, name: ServiceName, **fields: Any) -> None:
        """Orders that for the service besides what is ordered already."""
        order = replace(self.in_force.orders.get(name, ServiceOrder()), **fields)
        self.in_force = in_force(self.in_force.file, {**self.in_force.orders, name: order})
        self._control.site = self.in_force.site


class FakeThrottle:
    def __init__(self, control: FakeControl) -> None:
        self._control = control

    def limit(self, address: Address) -> float | None:
        return self._control.limits.get(address)


class FakeServing:
    """An external IP of a FakeControl: what is shown of it."""

    def __init__(self, control: FakeControl, address: Address) -> None:
        self._control = control
        self.address = address

    @property
    def assigned(self) -> str:
        return self._control.assignment[self.address]

    @property
    def slices(self) -> dict[Place, Slicing]:
        return self._control.slices.get(self.address, {})

    @property
    def table(self) -> FakeTable:
        return FakeTable(self._control.table[self.address])

    @property
    def move(self) -> MoveRecord | None:
        return next((record for record in self._control.moves.values()
                     if record.external_ip == self.address and record.ended is None), None)


class FakeDirectory:
    def __init__(self, control: FakeControl) -> None:
        self._servings = {ip.address: FakeServing(control, ip.address) for ip in control.site.external_ips}

    def __iter__(self) -> Iterator[FakeServing]:
        return iter(self._servings.values())

    def get(self, address: Address) -> FakeServing | None:
        return self._servings.get(address)


class FakeTable:
    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries
        self.half_open: dict[Entry, int] = {}
        self.connections_to = dict(Counter(server_key(entry.key[0], *entry.server) for entry in entries))

    def __len__(self) -> int:
        return len(self._entries)

    def snapshot(self) -> list[Entry]:
        return list(self._entries)


class FakeControl:
    """The parts of a control function that the API shows, each as far as it is read; `shown` reads them."""

    def __init__(self, of_site: Site | None = None) -> None:
        self.site = of_site or site()
        self.counters = Counter(entries_expired=4)
        self.crashes = 0
        self.switches = {lb.name: Switch(lb) for lb in self.site.load_balancers}
        self.moves: dict[str, MoveRecord] = {}
        self.healths: dict[str, tuple[str, str | None]] = {}
        self.cut_off_since: float | None = None
        self.keeper_states: list[KeeperState] = []
        self.loads: dict[Address, Load] = {}
        self.limits: dict[Address, float] = {}
        self.slices = slices_of(self.site)
        self.table: dict[Address, list[Entry]] = {ip.address: [] for ip in self.site.external_ips}
        self.services = FakeServices(self)
        self.assignment = {ip.address: ip.load_balancer for ip in self.site.external_ips}
        self.external_ips = FakeDirectory(self)
        self.shown = Shown(Parts(
            ground=self, services=self.services, moves=FakeMoves(self), health=FakeHealth(self), loads=FakeLoads(self),
            throttle=FakeThrottle(self), balancing=FakeBalancing(), keepers=FakeKeepers(self), checks=FakeChecks()))
        for number, switch in enumerate(self.switches.values(), 1):
            switch.set_ports([PortState(name, port, f"02:00:00:00:0{number}:0{port}", True)
                              for port, name in enumerate(switch.lb.ports().values(), 1)])
            switch.state, switch.confirmed = "ready", True
            switch.neighbours[SERVER_1] = "02:00:00:00:00:11"
        for address, name in self.assignment.items():
            self.switches[name].roles[address] = SERVING

    def assigned_to(self, address: Address) -> str:
        return self.assignment[address]


class FakeHealth:
    """Every LB is well, unless the control function's `healths` say otherwise."""

    def __init__(self, control: FakeControl) -> None:
        self._control = control

    def state(self, name: str) -> tuple[str, str | None]:
        return self._control.healths.get(name, ("well", None))

    @property
    def cut_off_since(self) -> float | None:
        return self._control.cut_off_since


class FakeMoves:
    def __init__(self, control: FakeControl) -> None:
        self._control = control

    def records(self) -> dict[str, MoveRecord]:
        return self._control.moves


class FakeLoads:
    def __init__(self, control: FakeControl) -> None:
        self._control = control
        self.totals: dict[tuple[str, int, str], int] = {}

    def of(self, serving: FakeServing) -> Load:
        return self._control.loads.get(serving.address, Load())


class FakeBalancing:
    """Nothing has been rebalanced, and no LB is drained."""

    last = None

    def is_drained(self, name: str) -> bool:
        return False


class FakeKeepers:
    def __init__(self, control: FakeControl) -> None:
        self._control = control

    def states(self, now: float) -> list[KeeperState]:
        return self._control.keeper_states


class FakeChecks:
    def __init__(self) -> None:
        self.counters = {"passed": 7, "refused": 2}


class FakeOrders:
    """Moves start at once, and end when they are waited for."""

    def __init__(self, of_site: Site | None = None) -> None:
        self.control = FakeControl(of_site)
        self.shown = self.control.shown
        self.waited: list[tuple[str, float]] = []

    def now(self) -> float:
        return START

    def pause(self) -> None:
        pass

    def apart(self, function, *args, **kwargs):
        return function(*args, **kwargs)

    def start_move(self, address: IPv4Address, to: str, strategy: Strategy, from_copies: bool = False) -> MoveRecord:
        if self.control.assigned_to(address) == to:
            raise Refused(409, "Already there", f"{address} is on {to} already.")
        record = MoveRecord(str(len(self.control.moves) + 1), address, self.control.assigned_to(address), to, strategy,
                            START + len(self.control.moves), steps=[StepRecord("transition", START)])
        self.control.moves[record.id] = record
        return record

    def fail_over(self, name: str) -> list[MoveRecord]:
        others = [lb for lb in self.control.switches if lb != name and self.control.switches[lb].ready]
        if not others:
            raise Refused(409, "No other load balancer", f"no load balancer but {name} is ready")
        return [self.start_move(address, others[0], Strategy.PRECOPY)
                for address, lb in self.control.assignment.items() if lb == name]

    def abort_move(self, id: str) -> None:
        record = self.control.moves[id]
        if record.ended is not None:
            raise Refused(409, "Has ended", f"Move {id} has ended ({record.state}).")
        record.state, record.ended, record.reason = "aborted", START + 1, "on request"

    def set_entries(self, name: ServiceName, entries: str) -> None:
        in_file = self._of(self.control.services.in_force.file, name)
        self.control.services.change(name, entries=Instead(entries, in_file.entries))

    def set_scheduler(self, name: ServiceName, scheduler: str) -> None:
        in_file = self._of(self.control.services.in_force.file, name)
        self.control.services.change(name, scheduler=Instead(scheduler, in_file.scheduler))

    def add_server(self, name: ServiceName, server: Server) -> None:
        if server.address.packed[-1] == 99:
            raise Refused(422, "Server refused", f"{server.address} is not wanted")
        self._set_servers(name, (*self._of(self.control.site, name).servers, server))

    def remove_server(self, name: ServiceName, endpoint: Endpoint) -> None:
        servers = self._of(self.control.site, name).servers
        self._set_servers(name, tuple(server for server in servers if server.endpoint != endpoint))

    def change_server(self, name: ServiceName, endpoint: Endpoint, fields: dict[str, Any],
                      drained: bool | None) -> None:
        self._set_servers(name, tuple(replace(server, **fields) if server.endpoint == endpoint else server
                                      for server in self._of(self.control.site, name).servers))
        if drained is not None:
            self.control.services.change(name, drained=frozenset({endpoint} if drained else ()))

    def _set_servers(self, name: ServiceName, servers: tuple[Server, ...]) -> None:
        in_file = self._of(self.control.services.in_force.file, name)
        self.control.services.change(name, servers=Instead(servers, in_file.servers))

    @staticmethod
    def _of(of_site: Site, name: ServiceName) -> Service:
        services = of_site.external_ip(name.external_ip).services
        return next(service for service in services if (service.protocol, service.port) == name[1:])

    def wait_for_move(self, id: str, timeout: float) -> None:
        self.waited.append((id, timeout))
        record = self.control.moves[id]
        record.state, record.ended = "done", START + 2
        self.control.assignment[record.external_ip] = record.target


class Api:
    """Calls of the API without a server."""

    def __init__(self, token: str | None = None, of_site: Site | None = None) -> None:
        self.orders = FakeOrders(of_site)
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


