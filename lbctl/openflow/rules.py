"""The flows that an LB should hold besides its access table: pure functions of the site, its ports and roles."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from lbctl.frames import mld
from lbctl.frames.discovery import (
    ADVERTISEMENT,
    HOP_LIMIT,
    SOLICITATION,
    link_local,
)
from lbctl.frames.packets import ACK, FIN, OPENS_CONNECTION, RST, SYN, parse_mac
from lbctl.openflow.cookies import Kind
from lbctl.openflow.delivery_rules import delivery_flows, direct_servers, measure, too_big_flows
from lbctl.openflow.flow import (
    ANY_TAG,
    CONTROLLER,
    DEC_TTL,
    FORGET_IN_PORT,
    FRAGMENT_ANY,
    IN_PORT,
    POP_VLAN,
    PRIORITY_TAG,
    Flow,
    FlowAction,
    Match,
    MoveField,
    Output,
    Resubmit,
    SetField,
    flow,
)
from lbctl.openflow.hop_rules import changed_hop_flows
from lbctl.openflow.meters import (
    METER_ARP,
    METER_CHECK,
    METER_CLOSED,
    METER_ERROR,
    METER_FRAGMENT,
    METER_HOLD,
    METER_ICMP,
    METER_PASS_ON,
    METER_QUERY,
    METER_RESET,
    meter_new,
    meter_stray,
)
from lbctl.openflow.ports import Port, Ports, comes_by
from lbctl.openflow.probe_rules import Watched, probe_flows
from lbctl.openflow.responder_rules import ECHO_TYPES, echo_responder, responder, solicitation_flows
from lbctl.openflow.slice_rules import entrance_flows, unknown_client_flows, way_back_flows
from lbctl.openflow.source_rules import NO_NETWORKS, Internal, external_ip_source_flows, source_flows
from lbctl.openflow.tables import REG_MODE_NORMAL, REG_MODE_TRANSITION
from lbctl.site.model import CHECK_PORTS, FILTERINGS, ExternalIp, Hop, Tunnel
from lbctl.values.addresses import Address, Network, address_order
from lbctl.values.owners import owner_of
from lbctl.values.portions import each_once, portions
from lbctl.values.protocols import (
    ARP_REPLY,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV6,
    ETH_TYPES,
    ICMPV6,
    PROTOCOL_NAMES,
    PROTOCOL_NUMBERS,
    TCP,
    UDP,
)
from lbctl.values.side import EXTERNAL, INTERNAL
from lbctl.values.transfer import TransferMode

BATCH = 50
"""Servers, or flows, that are computed in one go."""
ICMP_ERRORS = {4: (3, 11, 12), 6: (1, 2, 3, 4)}
"""Types of the errors that concern one packet: unreachable, time exceeded, parameter problem; IPv6 also: packet too
big."""
SYN_WITHOUT_ACK = (SYN, SYN | ACK)
"""What inbound_flags may look at is limited by OVS: the datapath's cache keeps packets apart that differ in a flag
looked at there. Were FIN among them, a FIN would overtake the ACK that came just before it, whose cached flow is
another."""
SYN_AND_FIN = (SYN | FIN, SYN | FIN)
ANY_RST = (RST, RST)


@dataclass(frozen=True, slots=True)
class Role:
    """What an LB does for one external IP.

    mode: None means not ours: its packets get an error reply.
    hold_all: in transition mode, hold every packet (`buffered`) instead of only those without an entry.
    arp: answers ARP for the external IP and its internal addresses, so packets come here.
    """

    mode: TransferMode | None = None
    hold_all: bool = False
    arp: bool = False


MISSES = {"classify": Kind.NOT_OURS, "arp": Kind.ARP_NOT_OURS, "transfer_mode": Kind.NO_EXTERNAL_IP,
          "way_back": Kind.CLIENT_MAC_UNKNOWN, "no_entry": Kind.ENTRY_GONE,
          "deliver_server": Kind.SERVER_MAC_UNKNOWN, "wrong_side": Kind.WRONG_SIDE}
DROPPING_TABLES = tuple(MISSES)
"""Those with flows that drop."""
ABSENT = Role()
SERVING = Role(TransferMode.NORMAL, arp=True)


def base_flows(ports: Ports, tunnels: Iterable[Tunnel] = ()) -> Iterator[Flow]:
    """The flows that depend on the LB's ports and the tunnels only."""
    yield from _entrance_flows(ports, tunnels)
    # What a table has no other flow for is dropped anyway; here it is counted.
    for table, kind in MISSES.items():
        yield flow(kind, 0, table, 0, {})
    for eth_type in ETH_TYPES.values():
        tcp = {"eth_type": eth_type, "ip_proto": TCP}
        yield flow(Kind.PIPELINE, 0, "inbound_flags", 120, {**tcp, "tcp_flags": SYN_WITHOUT_ACK}, goto="no_entry")
        for flags_table, side in (("inbound_flags", EXTERNAL), ("outbound_flags", INTERNAL)):
            yield flow(Kind.PIPELINE, 0, flags_table, 110, {**tcp, "tcp_flags": ANY_RST}, SetField("reg1", 1),
                       goto=side.access_table)
    yield flow(Kind.PIPELINE, 0, "slices_in", 0, {}, goto="inbound_flags")
    yield flow(Kind.PIPELINE, 0, "slices_out", 0, {}, goto="outbound_flags")
    yield flow(Kind.PIPELINE, 0, "inbound_flags", 0, {}, goto="access_in")
    yield flow(Kind.PIPELINE, 0, "outbound_flags", 0, {}, goto="access_out")
    yield flow(Kind.PIPELINE, 0, "access_in", 0, {}, goto="no_entry")
    yield flow(Kind.PIPELINE, 0, "access_out", 0, {}, goto="no_entry")

    for eth_type in ETH_TYPES.values():
        yield flow(Kind.NO_WAY, 0, "transfer_mode", 10, {"in_port": ports.internal.number, "eth_type": eth_type},
                   CONTROLLER, meter=METER_ERROR)

    for version, eth_type in ETH_TYPES.items():
        yield flow(Kind.HOLD, 0, "no_entry", 130, {"reg0": REG_MODE_TRANSITION, "eth_type": eth_type}, CONTROLLER,
                   meter=METER_HOLD)
        tcp = {"eth_type": eth_type, "ip_proto": TCP}
        yield flow(Kind.SYN_AND_FIN, 0, "no_entry", 125, {**tcp, "tcp_flags": SYN_AND_FIN})
        yield flow(Kind.RESET_OF_NOTHING, 0, "no_entry", 110, {**tcp, "tcp_flags": ANY_RST})
        icmp: Match = {"eth_type": eth_type, "ip_proto": ECHO_TYPES[version][1]}
        yield flow(Kind.ICMP_OF_NOTHING, 0, "no_entry", 110, icmp)
        yield flow(Kind.STRAY, 0, "no_entry", 100, {"reg0": REG_MODE_NORMAL, "eth_type": eth_type}, CONTROLLER,
                   meter=METER_ERROR)

    for table in ("deliver_server", "deliver_client", "deliver_inside"):
        for eth_type, ttl in itertools.product(ETH_TYPES.values(), (0, 1)):
            yield flow(Kind.EXPIRED, 0, table, 300, {"eth_type": eth_type, "nw_ttl": ttl}, CONTROLLER,
                       meter=METER_ERROR)
        # Delivered first: the meter in show_reset drops all that is left to do with a packet, and so not the packet.
        yield flow(Kind.PIPELINE, 0, table, 200, {"reg1": 1}, SetField("reg1", 0), Resubmit(table),
                   Resubmit("show_reset"))
    yield from too_big_flows("deliver_tunnel")
    yield flow(Kind.RESET, 0, "show_reset", 0, {}, CONTROLLER, meter=METER_RESET)
    yield from changed_hop_flows()
    yield from unknown_client_flows()
    for table, send, port, back in (("deliver_client", "send_outside", ports.external, ()),
                                    ("deliver_inside", "send_inside", ports.internal, (FORGET_IN_PORT,))):
        if port.limit is not None:
            yield from too_big_flows(send)
        for eth_type in ETH_TYPES.values():
            if port.limit is not None:
                yield flow(Kind.DELIVER, 0, table, 100, {"eth_type": eth_type}, measure(port.limit), goto=send)
            yield flow(Kind.DELIVER, 0, table if port.limit is None else send, 100, {"eth_type": eth_type},
                       SetField("eth_src", port.mac), DEC_TTL, *back, Output(port.number))


def inside_flows(inside: Iterable[Network]) -> Iterator[Flow]:
    """Clients on the internal network: what they are answered goes back there."""
    for network in inside:
        to_inside: Match = {"eth_type": ETH_TYPES[network.version], f"ipv{network.version}_dst": str(network)}
        yield flow(Kind.DELIVER, 0, "deliver_client", 110, to_inside, goto="deliver_inside")


def _entrance_flows(ports: Ports, tunnels: Iterable[Tunnel]) -> Iterator[Flow]:
    yield flow(Kind.PIPELINE, 0, "classify", 400, {"vlan_vid": PRIORITY_TAG}, POP_VLAN, Resubmit("classify"))
    yield flow(Kind.VLAN, 0, "classify", 390, {"vlan_vid": ANY_TAG})
    by_tunnel = [(ports.to(tunnel), tunnel) for tunnel in tunnels]
    for port, tunnel in ((ports.external, None), (ports.internal, None), *by_tunnel):
        where = comes_by(port, tunnel)
        yield flow(Kind.PIPELINE, 0, "classify", 120, {**where, "eth_type": ETH_TYPE_ARP}, goto="arp")
        icmpv6: Match = {**where, "eth_type": ETH_TYPE_IPV6, "ip_proto": ICMPV6}
        for kind in (SOLICITATION, ADVERTISEMENT):
            yield flow(Kind.PIPELINE, 0, "classify", 120, {**icmpv6, "icmpv6_type": kind, "nw_ttl": HOP_LIMIT},
                       goto="arp")
        if tunnel is None:
            yield flow(Kind.QUERY, 0, "classify", 120, {**icmpv6, "icmpv6_type": mld.QUERY, "nw_ttl": mld.HOP_LIMIT},
                       CONTROLLER, meter=METER_QUERY)
            for told in ({**where, "eth_type": ETH_TYPE_ARP, "arp_op": ARP_REPLY},
                         {**icmpv6, "icmpv6_type": ADVERTISEMENT}):
                yield flow(Kind.SERVER_ARP, 0, "arp", 100, {**told, "eth_dst": port.mac}, CONTROLLER, meter=METER_ARP)
        for version, eth_type in ETH_TYPES.items():
            addressed = {**where, "eth_type": eth_type, "eth_dst": port.mac}
            yield flow(Kind.FRAGMENT, 0, "classify", 110, {**addressed, "ip_frag": FRAGMENT_ANY}, CONTROLLER,
                       meter=METER_FRAGMENT)
            field, protocol, _, _ = ECHO_TYPES[version]
            for kind in ICMP_ERRORS[version]:
                yield flow(Kind.TRANSLATE_ICMP, 0, "classify", 105, {**addressed, "ip_proto": protocol, field: kind},
                           CONTROLLER, meter=METER_ICMP)
            yield flow(Kind.PIPELINE, 0, "classify", 100, addressed, goto="sources")
    for port in (ports.external, ports.internal, *ports.tunnels.values()):
        # The next hops ask for it, before they answer probes that came from it.
        yield from solicitation_flows(0, port, IPv6Address(link_local(parse_mac(port.mac))), router=False)
        made: Match = {"in_port": port.number, "eth_type": ETH_TYPE_IPV6, "ip_proto": ICMPV6,
                       "icmpv6_type": ADVERTISEMENT}
        yield flow(Kind.ARP, 0, "advertise", 100, made, SetField("ipv6_nd_tll", port.mac), *_back(port, ports), IN_PORT)


def external_ip_flows(external_ip: ExternalIp, role: Role, ports: Ports) -> Iterator[Flow]:
    """The flows of one external IP on an LB with that role."""
    owner = owner_of(external_ip.address.packed)
    yield from external_ip_source_flows(external_ip, owner, ports)
    yield from _check_flows(external_ip, owner, ports)
    yield from role_flows(external_ip, role, ports)


def role_flows(external_ip: ExternalIp, role: Role, ports: Ports) -> Iterator[Flow]:
    """Those of them that are others with another role."""
    address, owner = external_ip.address, owner_of(external_ip.address.packed)
    if role.arp:
        yield from responder(owner, ports.external, address, router=False)
        for internal in external_ip.internal_addresses():
            for port in ports.inside(external_ip):
                yield from responder(owner, port, internal, internal == external_ip.gateway, _back(port, ports))
    yield from _mode_flows(external_ip, owner, role, ports)
    if role.mode is not None:
        for port in (ports.external, ports.internal):
            yield echo_responder(owner, port, address)
        for internal in external_ip.internal_addresses():
            for port in ports.inside(external_ip):
                yield echo_responder(owner, port, internal, _back(port, ports))
    if role.mode is TransferMode.NORMAL:
        yield from _opening_flows(external_ip, owner, ports)


def _opening_flows(external_ip: ExternalIp, owner: int, ports: Ports) -> Iterator[Flow]:
    """What shows the packets that make an entry to the controller."""
    version = external_ip.address.version
    normal: Match = {"reg0": REG_MODE_NORMAL, "eth_type": ETH_TYPES[version]}
    outside: Match = {**normal, "in_port": ports.external.number, f"ipv{version}_dst": str(external_ip.address)}
    gateway = external_ip.kind == "nat-gateway"
    for name, number in PROTOCOL_NUMBERS.items():
        # To a port that nobody serves. Apart from what may be a connection's whose flows have been lost.
        if name == "tcp" or not gateway:
            yield flow(Kind.STRAY, owner, "no_entry", 107, {**outside, "ip_proto": number, **_opens(name)}, CONTROLLER,
                       meter=METER_CLOSED)
    yield flow(Kind.STRAY, owner, "no_entry", 105, outside, CONTROLLER, meter=meter_stray(owner))
    for service in external_ip.services:
        # From either network: clients may be inside, also among a NAT gateway's hosts.
        yield flow(Kind.NEW, owner, "no_entry", 122, {
            **normal, f"ipv{version}_dst": str(external_ip.address),
            "ip_proto": service.protocol_number, f"{service.protocol}_dst": service.port, **_opens(service.protocol)},
            CONTROLLER, meter=meter_new(owner))
    if not gateway:
        return
    field, icmp, request, reply = ECHO_TYPES[version]
    for prefix in external_ip.inside:
        inside: Match = {**normal, "in_port": ports.internal.number, f"ipv{version}_src": str(prefix)}
        for name, number in PROTOCOL_NUMBERS.items():
            yield flow(Kind.NEW, owner, "no_entry", 120, {**inside, "ip_proto": number, **_opens(name)}, CONTROLLER,
                       meter=meter_new(owner))
        yield flow(Kind.TRANSLATE_ICMP, owner, "no_entry", 120, {**inside, "ip_proto": icmp, field: request},
                   CONTROLLER, meter=METER_ICMP)
    yield flow(Kind.TRANSLATE_ICMP, owner, "no_entry", 120, {
        **outside, "ip_proto": icmp, field: reply}, CONTROLLER, meter=METER_ICMP)
    if external_ip.filtering != FILTERINGS[0]:
        yield flow(Kind.NEW, owner, "no_entry", 120, {**outside, "ip_proto": UDP}, CONTROLLER, meter=meter_new(owner))


def _check_flows(external_ip: ExternalIp, owner: int, ports: Ports) -> Iterator[Flow]:
    """What shows the answers to health checks to the controller: at every LB, since an answer may come to the one that
    served before. They have no entry; so nothing that has one meets these flows."""
    for protocol in external_ip.check_protocols():
        source, transport = external_ip.check_source(), PROTOCOL_NAMES[protocol]
        check_ports = CHECK_PORTS[0], 0xFFFF & ~(CHECK_PORTS[1] - CHECK_PORTS[0])
        for port in ports.inside(external_ip):
            yield flow(Kind.CHECKED, owner, "no_entry", 135, {
                "in_port": port.number, "eth_type": ETH_TYPES[source.version], f"ipv{source.version}_dst": str(source),
                "ip_proto": protocol, f"{transport}_dst": check_ports}, CONTROLLER, meter=METER_CHECK)


def _opens(protocol: str) -> Match:
    """The first packet of a connection: any datagram, but not any segment."""
    return {"tcp_flags": OPENS_CONNECTION} if protocol == "tcp" else {}


def neighbour_flows(hops: Iterable[Hop], routers: Iterable[Address], ports: Ports) -> Iterator[Flow]:
    """What shows the controller that a next hop has told its MAC unasked (gratuitous ARP, unsolicited
    advertisement)."""
    outside = ((router, None, ports.external) for router in sorted(routers, key=address_order))
    inside = ((hop.address, hop.tunnel, ports.to(hop.tunnel)) for hop in hops)
    for address, tunnel, port in each_once(itertools.chain(outside, inside)):
        where = comes_by(port, tunnel)
        if isinstance(address, IPv4Address):
            told: list[Match] = [{"arp_spa": str(address), "arp_tpa": str(address)}]
            if tunnel:  # what the other end answers is believed of the next hops that are there
                told.append({"arp_spa": str(address), "arp_op": ARP_REPLY, "eth_dst": port.mac})
            head: Match = {"eth_type": ETH_TYPE_ARP}
        else:
            head = {"eth_type": ETH_TYPE_IPV6, "ip_proto": ICMPV6, "icmpv6_type": ADVERTISEMENT}
            told = [{"ipv6_nd_target": str(address)}]
        for fields in told:
            yield flow(Kind.SERVER_ARP, 0, "arp", 110, {**where, **head, **fields}, CONTROLLER, meter=METER_ARP)


def all_flows(external_ips: Iterable[ExternalIp], roles: Mapping[Address, Role],
              neighbours: Mapping[Address, str], ports: Ports, watched: Watched | None = None,
              internal: Internal = NO_NETWORKS) -> list[Flow]:
    """Everything that an LB should hold besides its access table: see flow_portions."""
    portions = flow_portions(external_ips, roles, neighbours, ports, watched, internal)
    return [flow for portion in portions for flow in portion]


def flow_portions(external_ips: Iterable[ExternalIp], roles: Mapping[Address, Role],
                  neighbours: Mapping[Address, str], ports: Ports, watched: Watched | None = None,
                  internal: Internal = NO_NETWORKS) -> Iterator[list[Flow]]:
    """Everything that an LB should hold besides its access table, a few flows at a time; what roles and neighbours say
    counts when they are asked for. A portion may be empty: that has taken some time, too. neighbours: the MAC of
    each next hop that is known; watched: how other LBs' probes mean it."""
    external_ips = list(external_ips)
    prefixes = {*internal.networks, *(prefix for external_ip in external_ips for prefix in external_ip.inside)}
    hops: dict[Address, Hop] = {}
    for several in portions(external_ips, BATCH):
        hops |= {server: hop for external_ip in several for server, hop in ports.hops(external_ip).items()}
        if len(several) == BATCH:
            yield []
    routers = {external_ip.router for external_ip in external_ips if external_ip.router}
    tunnels = sorted({replace(hop.tunnel, mtu=0) for hop in hops.values() if hop.tunnel}, key=str)
    yield [*base_flows(ports, tunnels), *source_flows(ports, internal), *inside_flows(sorted(prefixes, key=str))]
    if watched:
        yield list(probe_flows(watched, tuple((port.number, port.mac) for port in (ports.external, ports.internal))))
    direct = direct_servers(external_ips)
    for some in portions(hops.items(), BATCH):
        yield list(delivery_flows(dict(some), neighbours, ports, direct))
    for told in portions(neighbour_flows(hops.values(), routers, ports), BATCH):
        yield list(told)
    for external_ip in external_ips:
        yield list(way_back_flows([external_ip], neighbours))
        yield list(external_ip_flows(external_ip, roles.get(external_ip.address, ABSENT), ports))


def _back(port: Port, ports: Ports) -> tuple[FlowAction, ...]:
    """What an answer needs besides IN_PORT: a tunnel port has many other ends (the key stays)."""
    return (MoveField("tun_ipv4_src", "tun_ipv4_dst", 32),) if port in ports.tunnels.values() else ()


def _mode_flows(external_ip: ExternalIp, owner: int, role: Role, ports: Ports) -> Iterator[Flow]:
    hops = ports.hops(external_ip)
    if role.mode is not None:
        yield from entrance_flows(external_ip, owner, ports, _register(role.mode))
    yield _mode_flow(owner, role, 100, comes_by(ports.external), {"dst": external_ip.address}, "inbound_flags")
    # A client inside, whoever's server it is. What it sends to another LB's external IP is many packets: they take no
    # share of the meter for errors.
    yield _mode_flow(owner, role, 105, comes_by(ports.internal), {"dst": external_ip.address}, "inbound_flags",
                     METER_PASS_ON)
    if external_ip.kind == "nat-gateway":
        for prefix in external_ip.inside:
            yield _mode_flow(owner, role, 90, comes_by(ports.internal), {"src": prefix}, "outbound_flags")
    elif external_ip.nat == "full":
        for internal in external_ip.every_internal_ip():
            yield _mode_flow(owner, role, 110, comes_by(ports.internal), {"dst": internal}, "outbound_flags")
            for server, hop in hops.items():
                if hop.tunnel:
                    where = comes_by(ports.to(hop.tunnel), hop.tunnel)
                    yield _mode_flow(owner, role, 110, where, {"src": server, "dst": internal}, "outbound_flags")
    elif not external_ip.direct:
        for server, hop in hops.items():
            where = comes_by(ports.to(hop.tunnel), hop.tunnel)
            yield _mode_flow(owner, role, 100, where, {"src": server}, "outbound_flags")


def _mode_flow(owner: int, role: Role, priority: int, where: Match, sides: Mapping[str, Address | Network],
               flags_table: str, unassigned: int | None = None) -> Flow:
    """sides: `src` or `dst` -> the address there. unassigned: the meter where there is no mode,
    if it is not the external IP's own."""
    match = dict(where)
    for side, address in sides.items():
        match |= {"eth_type": ETH_TYPES[address.version], f"ipv{address.version}_{side}": str(address)}
    if role.mode is None:
        return flow(Kind.UNASSIGNED, owner, "transfer_mode", priority, match, CONTROLLER,
                    meter=unassigned or meter_stray(owner))
    return flow(Kind.MODE, owner, "transfer_mode", priority, match, SetField("reg0", _register(role.mode)),
                goto="no_entry" if role.hold_all else flags_table)


def _register(mode: TransferMode) -> int:
    """What reg0 says of it."""
    return REG_MODE_NORMAL if mode is TransferMode.NORMAL else REG_MODE_TRANSITION
