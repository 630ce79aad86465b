"""The flows that an LB should hold besides its access table: pure functions of the site, its ports and roles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from lbctl.model import ExternalIp, TransferMode
from lbctl.pipeline import flow as f
from lbctl.pipeline.cookies import Kind
from lbctl.pipeline.flow import CONTROLLER, DEC_TTL, IN_PORT, Flow, Move, Output, Resubmit, SetField, flow
from lbctl.pipeline.tables import REG_MODE_NORMAL, REG_MODE_TRANSITION

METER_NEW, METER_ERROR, METER_HOLD, METER_ARP, METER_RESET = 1, 2, 3, 4, 5
ARP_REQUEST, ARP_REPLY = 1, 2
SYN_WITHOUT_ACK = (f.TCP_SYN, f.TCP_SYN | f.TCP_ACK)
"""What inbound_flags may look at is limited by OVS: the datapath's cache keeps packets apart that differ in a flag looked at
there. Were FIN among them, a FIN would overtake the ACK that came just before it, whose cached flow is another."""
OPENS_CONNECTION = (f.TCP_SYN, f.TCP_FIN | f.TCP_SYN | f.TCP_RST | f.TCP_ACK)
SYN_AND_FIN = (f.TCP_SYN | f.TCP_FIN, f.TCP_SYN | f.TCP_FIN)
ANY_RST = (f.TCP_RST, f.TCP_RST)


@dataclass(frozen=True, slots=True)
class Port:
    """A port as the switch reports it: OpenFlow number and MAC (text)."""

    number: int
    mac: str


@dataclass(frozen=True, slots=True)
class Ports:
    external: Port
    internal: Port


@dataclass(frozen=True, slots=True)
class Role:
    """What an LB does for one external IP.

    mode: None means not ours: its packets get an error reply.
    hold_all: in transition mode, hold every packet (`buffered`) instead of only those without an entry.
    arp: answers ARP for the external IP and its gateway, so packets come here.
    """

    mode: TransferMode | None = None
    hold_all: bool = False
    arp: bool = False


ABSENT = Role()
SERVING = Role(TransferMode.NORMAL, arp=True)


def base_flows(ports: Ports) -> Iterator[Flow]:
    """The flows that depend on the LB's ports only."""
    for port in (ports.external, ports.internal):
        yield flow(Kind.PIPELINE, 0, "classify", 120, {"in_port": port.number, "eth_type": f.ETH_ARP}, goto="arp")
        yield flow(Kind.FRAGMENT, 0, "classify", 110,
                   {"in_port": port.number, "eth_type": f.ETH_IP, "ip_frag": f.FRAGMENT_ANY})
        yield flow(Kind.PIPELINE, 0, "classify", 100,
                   {"in_port": port.number, "eth_type": f.ETH_IP, "eth_dst": port.mac}, goto="transfer_mode")
    yield flow(Kind.SERVER_ARP, 0, "arp", 100,
               {"in_port": ports.internal.number, "eth_type": f.ETH_ARP, "arp_op": ARP_REPLY,
                "eth_dst": ports.internal.mac}, CONTROLLER, meter=METER_ARP)

    yield flow(Kind.PIPELINE, 0, "inbound_flags", 120, _tcp(tcp_flags=SYN_WITHOUT_ACK), goto="no_entry")
    yield flow(Kind.PIPELINE, 0, "inbound_flags", 110, _tcp(tcp_flags=ANY_RST), SetField("reg1", 1), goto="access_in")
    yield flow(Kind.PIPELINE, 0, "inbound_flags", 0, {}, goto="access_in")
    yield flow(Kind.PIPELINE, 0, "outbound_flags", 110, _tcp(tcp_flags=ANY_RST), SetField("reg1", 1), goto="access_out")
    yield flow(Kind.PIPELINE, 0, "outbound_flags", 0, {}, goto="access_out")
    yield flow(Kind.PIPELINE, 0, "access_in", 0, {}, goto="no_entry")
    yield flow(Kind.PIPELINE, 0, "access_out", 0, {}, goto="no_entry")

    yield flow(Kind.HOLD, 0, "no_entry", 130, {"reg0": REG_MODE_TRANSITION, "eth_type": f.ETH_IP}, CONTROLLER,
               meter=METER_HOLD)
    yield flow(Kind.PIPELINE, 0, "no_entry", 125, _tcp(tcp_flags=SYN_AND_FIN))
    yield flow(Kind.PIPELINE, 0, "no_entry", 110, _tcp(tcp_flags=ANY_RST))
    yield flow(Kind.PIPELINE, 0, "no_entry", 110, {"eth_type": f.ETH_IP, "ip_proto": 1})
    yield flow(Kind.STRAY, 0, "no_entry", 100, {"reg0": REG_MODE_NORMAL, "eth_type": f.ETH_IP}, CONTROLLER,
               meter=METER_ERROR)

    for table in ("deliver_server", "deliver_client"):
        # Delivered first: the meter in show_reset drops all that is left to do with a packet, and so not the packet.
        yield flow(Kind.PIPELINE, 0, table, 200, {"reg1": 1}, SetField("reg1", 0), Resubmit(table),
                   Resubmit("show_reset"))
    yield flow(Kind.RESET, 0, "show_reset", 0, {}, CONTROLLER, meter=METER_RESET)
    yield flow(Kind.DELIVER, 0, "deliver_client", 100, {"eth_type": f.ETH_IP},
               SetField("eth_src", ports.external.mac), DEC_TTL, Output(ports.external.number))


def external_ip_flows(external_ip: ExternalIp, role: Role, ports: Ports) -> Iterator[Flow]:
    """The flows of one external IP on an LB with that role."""
    address, owner = str(external_ip.address), int(external_ip.address)
    if role.arp:
        yield _arp_responder(owner, ports.external, address)
        yield _arp_responder(owner, ports.internal, str(external_ip.gateway))
    for server in external_ip.server_addresses():
        yield flow(Kind.SERVER_ARP, owner, "arp", 110,
                   {"in_port": ports.internal.number, "eth_type": f.ETH_ARP, "arp_spa": str(server),
                    "arp_tpa": str(server)}, CONTROLLER, meter=METER_ARP)
        yield _mode_flow(owner, role, ports.internal, "ipv4_src", str(server), "outbound_flags")
    yield _mode_flow(owner, role, ports.external, "ipv4_dst", address, "inbound_flags")
    if role.mode is TransferMode.NORMAL:
        for service in external_ip.services:
            yield flow(Kind.NEW, owner, "no_entry", 120,
                       {"reg0": REG_MODE_NORMAL, "in_port": ports.external.number, "eth_type": f.ETH_IP,
                        "ip_proto": service.protocol_number, "ipv4_dst": address, "tcp_dst": service.port,
                        "tcp_flags": OPENS_CONNECTION}, CONTROLLER, meter=METER_NEW)


def delivery_flows(neighbours: Mapping[IPv4Address, str], ports: Ports) -> Iterator[Flow]:
    """How to reach each server whose MAC is known. `neighbours`: server address -> MAC."""
    for server, mac in neighbours.items():
        yield flow(Kind.DELIVER, 0, "deliver_server", 100, {"eth_type": f.ETH_IP, "ipv4_dst": str(server)},
                   SetField("eth_src", ports.internal.mac), SetField("eth_dst", mac), DEC_TTL,
                   Output(ports.internal.number))


def all_flows(external_ips: Iterable[ExternalIp], roles: Mapping[IPv4Address, Role],
              neighbours: Mapping[IPv4Address, str], ports: Ports) -> list[Flow]:
    """Everything that an LB should hold besides its access table."""
    flows = [*base_flows(ports), *delivery_flows(neighbours, ports)]
    for external_ip in external_ips:
        flows += external_ip_flows(external_ip, roles.get(external_ip.address, ABSENT), ports)
    return flows


def _tcp(**match: f.MatchValue) -> dict[str, f.MatchValue]:
    return {"eth_type": f.ETH_IP, "ip_proto": f.PROTO_TCP, **match}


def _arp_responder(owner: int, port: Port, address: str) -> Flow:
    """Turns an ARP request into its reply, in the switch (RFC 826)."""
    return flow(Kind.ARP, owner, "arp", 100,
                {"in_port": port.number, "eth_type": f.ETH_ARP, "arp_op": ARP_REQUEST, "arp_tpa": address},
                Move("eth_src", "eth_dst", 48), SetField("eth_src", port.mac), SetField("arp_op", ARP_REPLY),
                Move("arp_sha", "arp_tha", 48), SetField("arp_sha", port.mac),
                Move("arp_spa", "arp_tpa", 32), SetField("arp_spa", address), IN_PORT)


def _mode_flow(owner: int, role: Role, port: Port, field: str, address: str, flags_table: str) -> Flow:
    match = {"in_port": port.number, "eth_type": f.ETH_IP, field: address}
    if role.mode is None:
        return flow(Kind.UNASSIGNED, owner, "transfer_mode", 100, match, CONTROLLER, meter=METER_ERROR)
    register = REG_MODE_NORMAL if role.mode is TransferMode.NORMAL else REG_MODE_TRANSITION
    return flow(Kind.MODE, owner, "transfer_mode", 100, match, SetField("reg0", register),
                goto="no_entry" if role.hold_all else flags_table)
