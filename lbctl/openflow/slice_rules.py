"""The flows of sliced services: the access table's entries for slices of clients, the way back, and what knows it.

None of them looks at more of a packet than its slice, so that the datapath's cache holds some for each slice, however
many connections there are (docs/slices.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from lbctl.openflow.cookies import Kind
from lbctl.openflow.flow import Flow, Match, MoveField, SetField, flow
from lbctl.openflow.hop_rules import MAC_BITS
from lbctl.openflow.ports import Ports, comes_by
from lbctl.site.model import ExternalIp, Service
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.owners import owner_of
from lbctl.values.protocols import ETH_TYPES
from lbctl.values.slices import PORT_MASK, clients_of

ASKING_SECONDS = 10
"""So long, unless it is said again, SYNs come to the controller. Without one they go by their slice then."""


class SliceState(NamedTuple):
    """How a slice's packets find their server. owner: who gets its new connections; default: where packets without an
    entry go (None: nowhere); by_entry: some may have one; asking: SYNs come to the controller."""

    owner: Endpoint | None
    default: Endpoint | None
    by_entry: bool = False
    asking: bool = False


class Sliced(NamedTuple):
    """A sliced service. servers: all whose answers may come without an entry; direct: they answer clients
    themselves."""

    external_ip: Address
    service: Service
    slices: tuple[SliceState, ...]
    servers: frozenset[Endpoint]
    direct: bool = False

    @property
    def next_table(self) -> str:
        """Where a client's packet goes on; from where it comes matters if it is to be answered there."""
        return "deliver_server" if self.direct else "slice_hop"


def slice_flows(sliced: Sliced) -> Iterator[Flow]:
    """The same on every LB. Of a slice those come first that are to be there first: a slice that changes hands must not
    be its new owner's before its packets are looked at one by one."""
    address, service = sliced.external_ip, sliced.service
    owner, version, transport = owner_of(address.packed), address.version, service.protocol
    mixed = any(state.by_entry for state in sliced.slices)
    defaults = default_flows(sliced)
    for number, state in enumerate(sliced.slices):
        match = _match(sliced, number)
        if number in defaults:
            yield defaults[number]
        if state.asking:
            # Written onto themselves: so each connection has a cached flow of its own, which sees what changes.
            narrow = [MoveField(field, field, width) for field, width in (
                (f"ipv{version}_src", address.max_prefixlen), (f"{transport}_src", 16))]
            yield flow(Kind.SLICE, owner, "slices_in", 140, match, *narrow, goto="inbound_flags",
                       hard_timeout=ASKING_SECONDS)
            if number in defaults and service.protocol == "udp":  # any datagram may be a connection's first
                yield flow(Kind.SLICE, owner, "access_in", 60, match, goto="no_entry", hard_timeout=ASKING_SECONDS)
        if state.by_entry:
            yield flow(Kind.SLICE, owner, "slices_in", 130, match, goto="access_in")
        if state.owner:
            yield flow(Kind.SLICE, owner, "slices_in", 100, match, *_to(state.owner, service),
                       goto=sliced.next_table)
    for server in sorted(sliced.servers, key=str):
        match = {"eth_type": ETH_TYPES[version], "ip_proto": service.protocol_number,
                 f"ipv{version}_src": str(server.address), f"{transport}_src": server.port}
        from_service = (SetField(f"ipv{version}_src", str(address)), SetField(f"{transport}_src", service.port))
        if mixed:
            yield flow(Kind.SLICE, owner, "access_out", 50, match, *from_service, goto="way_back")
            yield flow(Kind.SLICE, owner, "slices_out", 100, match, goto="outbound_flags")
        else:
            yield flow(Kind.SLICE, owner, "slices_out", 100, match, *from_service, goto="way_back")


def asking_flows(sliced: Sliced) -> list[Flow]:
    """Those that are to be said again."""
    return [each for each in slice_flows(sliced) if each.hard_timeout]


def default_flows(sliced: Sliced) -> dict[int, Flow]:
    """By slice: where packets go that have no entry, if some have one."""
    owner = owner_of(sliced.external_ip.packed)
    return {number: flow(Kind.SLICE, owner, "access_in", 50, _match(sliced, number),
                         *_to(state.default, sliced.service), goto=sliced.next_table)
            for number, state in enumerate(sliced.slices) if state.by_entry and state.default}


def _match(sliced: Sliced, number: int) -> Match:
    """What clients in that slice send."""
    address, service = sliced.external_ip, sliced.service
    packets: Match = {"eth_type": ETH_TYPES[address.version], "ip_proto": service.protocol_number,
                      f"ipv{address.version}_dst": str(address), f"{service.protocol}_dst": service.port}
    if service.by_client:
        return {**packets, f"ipv{address.version}_src": clients_of(address, number)}
    return {**packets, f"{service.protocol}_src": (number << 1, PORT_MASK)}


def _to(server: Endpoint, service: Service) -> tuple[SetField, SetField]:
    return (SetField(f"ipv{server.address.version}_dst", str(server.address)),
            SetField(f"{service.protocol}_dst", server.port))


def unknown_client_flows() -> Iterator[Flow]:
    """A client that comes from a MAC that nothing is known of is served, and shown; see hop_rules.py."""
    yield flow(Kind.PIPELINE, 0, "slice_hop", 0, {}, MoveField("eth_src", "metadata", MAC_BITS), SetField("reg3", 1),
               goto="deliver_server")


def client_flows(client: Address, mac: str) -> tuple[Flow, Flow]:
    """That client is answered to that MAC, and its packets from there are not shown."""
    version = client.version
    packets: Match = {"eth_type": ETH_TYPES[version]}
    return (
        flow(Kind.PIPELINE, 0, "slice_hop", 90, {**packets, f"ipv{version}_src": str(client), "eth_src": mac},
             goto="deliver_server"),
        flow(Kind.PIPELINE, 0, "way_back", 100, {**packets, f"ipv{version}_dst": str(client)},
             SetField("eth_dst", mac), goto="deliver_client"),
    )


def router_flow(mac: str) -> Flow:
    """Packets from that MAC, a router's, are not shown."""
    return flow(Kind.PIPELINE, 0, "slice_hop", 100, {"eth_src": mac}, goto="deliver_server")


def way_back_flows(external_ips: Iterable[ExternalIp], neighbours: Mapping[Address, str]) -> Iterator[Flow]:
    """By its router, if nothing else is known of a client. neighbours: the MAC of each router that is known."""
    for external_ip in external_ips:
        mac = neighbours.get(external_ip.router) if external_ip.router else None
        if mac is None or not any(service.sliced for service in external_ip.services):
            continue
        version = external_ip.address.version
        yield router_flow(mac)
        yield flow(Kind.PIPELINE, owner_of(external_ip.address.packed), "way_back", 50,
                   {"eth_type": ETH_TYPES[version], f"ipv{version}_src": str(external_ip.address)},
                   SetField("eth_dst", mac), goto="deliver_client")


def entrance_flows(external_ip: ExternalIp, owner: int, ports: Ports, mode: int) -> Iterator[Flow]:
    """In table transfer_mode: what is a sliced service's goes past the flags and the entries, which would look at more
    of it. Clients inside have entries of their own (their answers would miss the LB), and health checks none: both are
    answered at the gateway. mode: the value of reg0."""
    version, hops = external_ip.address.version, ports.hops(external_ip)
    sliced = [service for service in external_ip.services if service.sliced]
    set_mode = SetField("reg0", mode)
    for service in sliced:
        packets: Match = {"eth_type": ETH_TYPES[version], "ip_proto": service.protocol_number}
        yield flow(Kind.MODE, owner, "transfer_mode", 120, {
            **packets, "in_port": ports.external.number, f"ipv{version}_dst": str(external_ip.address),
            f"{service.protocol}_dst": service.port}, set_mode, goto="slices_in")
        for server in () if external_ip.direct else service.servers:
            if server.address in hops:
                tunnel = hops[server.address].tunnel
                yield flow(Kind.MODE, owner, "transfer_mode", 120, {
                    **packets, **comes_by(ports.to(tunnel), tunnel),
                    f"ipv{version}_src": str(server.address), f"{service.protocol}_src": server.port},
                    set_mode, goto="slices_out")
    if not sliced:
        return
    for port in ports.inside(external_ip):
        yield flow(Kind.MODE, owner, "transfer_mode", 125, {
            "in_port": port.number, "eth_type": ETH_TYPES[version],
            f"ipv{version}_dst": str(external_ip.gateway)}, set_mode, goto="outbound_flags")
