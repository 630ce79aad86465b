"""What becomes of a client's packet: from the API's answers to the rules it meets and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from lbctl.access_table import Entry, pack_key, reply_key
from lbctl.cli.walk import Hit, Packet, walk
from lbctl.model import PROTOCOL_NUMBERS, TCP, Endpoint, ExternalIp, Server, Service, TransferMode
from lbctl.pipeline import flow as f
from lbctl.pipeline.cookies import Kind, kind_of
from lbctl.pipeline.entries import entry_flows
from lbctl.pipeline.rules import ABSENT, TTL, Port, Ports, Role, all_flows

SYN, SEGMENT = "syn", "segment"
"""A connection request; any other packet without RST."""
FLAGS = {SYN: f.TCP_SYN, SEGMENT: f.TCP_ACK}


@dataclass(frozen=True, slots=True)
class Situation:
    """What the API says that matters for one connection. `entry` is None if there is none, `move` if none is running."""

    client: Endpoint
    external: Endpoint
    external_ip: dict[str, Any]
    load_balancer: dict[str, Any]
    mode: str | None
    entry: dict[str, Any] | None
    move: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """outcome: server, new, reset, unreachable, held, dropped."""

    outcome: str
    sentence: str
    path: list[Hit]


def verdict(situation: Situation, packet: str) -> Verdict:
    """Where a SYN or another SEGMENT from the client goes. The LB's ports must be there."""
    ports = ports_of(situation.load_balancer)
    path = walk(_flows(situation, ports), _packet(situation, ports, packet))
    outcome, sentence = _outcome(situation, path[-1])
    return Verdict(outcome, sentence, path)


def ports_of(load_balancer: dict[str, Any]) -> Ports | None:
    """None if the switch has not shown both ports."""
    external, internal = (load_balancer["ports"][side] for side in ("external", "internal"))
    if None in (external["number"], internal["number"], external["mac"], internal["mac"]):
        return None
    return Ports(Port(external["number"], external["mac"]), Port(internal["number"], internal["mac"]))


def _flows(situation: Situation, ports: Ports) -> list[f.Flow]:
    external_ip = _external_ip(situation.external_ip)
    neighbours = {IPv4Address(server["address"]): server["mac"]
                  for service in situation.external_ip["services"] for server in service["servers"] if server["mac"]}
    flows = all_flows([external_ip], {external_ip.address: _role(situation)}, neighbours, ports)
    if situation.entry:
        flows += entry_flows(_entry(situation.entry), linger=0)
    return flows


def _external_ip(view: dict[str, Any]) -> ExternalIp:
    services = tuple(
        Service(service["protocol"], service["port"], service["scheduler"], tuple(
            Server(IPv4Address(server["address"]), server["port"], server["weight"]) for server in service["servers"]))
        for service in view["services"])
    return ExternalIp(IPv4Address(view["address"]), view["load_balancer"], IPv4Address(view["gateway"]), view["nat"],
                      services)


def _role(situation: Situation) -> Role:
    if situation.mode is None:
        return ABSENT
    mode, move = TransferMode(situation.mode), situation.move
    hold_all = (mode is TransferMode.TRANSITION and move is not None and move["strategy"] == "buffered"
                and move["to"] == situation.load_balancer["name"])
    return Role(mode, hold_all, arp=True)


def _entry(view: dict[str, Any]) -> Entry:
    key = pack_key(PROTOCOL_NUMBERS[view["protocol"]], IPv4Address(view["client"]).packed, view["client_port"],
                   IPv4Address(view["external_ip"]).packed, view["external_port"])
    reply = reply_key(key, IPv4Address(view["server"]).packed, view["server_port"])
    return Entry(key, reply, bytes.fromhex(view["next_hop"].replace(":", "")), 0.0)


def _packet(situation: Situation, ports: Ports, packet: str) -> Packet:
    return {"in_port": ports.external.number, "eth_type": f.ETH_IP, "eth_dst": ports.external.mac,
            "ip_proto": TCP, "nw_ttl": TTL, "ipv4_src": str(situation.client.address), "tcp_src": situation.client.port,
            "ipv4_dst": str(situation.external.address), "tcp_dst": situation.external.port,
            "tcp_flags": FLAGS[packet]}


def _outcome(situation: Situation, last: Hit) -> tuple[str, str]:
    lb, entry = situation.load_balancer["name"], situation.entry
    where = f"table {last.number} ({last.table}) of {lb}"
    if last.flow is None and last.table == "deliver_server" and entry:
        return "dropped", (f"dropped in {where}: the server {entry['server']} has not answered {lb}'s ARP; is it up, and "
                           "on the internal network?")
    match kind_of(last.flow.cookie) if last.flow else None:
        case Kind.DELIVER:
            return "server", f"goes to server {entry['server']}:{entry['server_port']} by its entry"
        case Kind.NEW:
            return "new", f"{where} shows it to the controller, {_new(situation)}"
        case Kind.STRAY:
            return "reset", f"{where} shows it to the controller, which answers with a RST: there is no entry" + (
                "" if _service(situation) else f", and no service on port {situation.external.port}")
        case Kind.HOLD:
            return "held", f"{where} has it held: {situation.external.address} is being moved, it goes on when that is done"
        case Kind.UNASSIGNED:
            return "unreachable", (f"{where} shows it to the controller, which answers with ICMP host unreachable: "
                                   f"{situation.external.address} is not assigned to {lb}")
    return "dropped", f"dropped in {where}"


def _service(situation: Situation) -> dict[str, Any] | None:
    return next((service for service in situation.external_ip["services"]
                 if service["port"] == situation.external.port), None)


def _new(situation: Situation) -> str:
    if situation.entry:
        return "which lets a repeated SYN go on to the same server, and makes a new entry for a new connection"
    service = _service(situation)
    servers = ", ".join(f"{server['address']}:{server['port']}" for server in service["servers"])
    return f"which makes an entry for a server by {service['scheduler']}, one of {servers}"
