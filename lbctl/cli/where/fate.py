"""What becomes of a packet: from the API's answers to the rules it meets and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from lbctl.cli import output
from lbctl.cli.where.situation import FLAGS, Situation
from lbctl.cli.where.walk import Fields, Hit, walk
from lbctl.entries.access_table import Entry
from lbctl.entries.translation import full_reply
from lbctl.frames.discovery import asked_by
from lbctl.frames.packets import parse_mac
from lbctl.openflow.cookies import Kind, known_kind
from lbctl.openflow.entry_flows import checked_side, entry_flows
from lbctl.openflow.flow import Flow
from lbctl.openflow.hop_rules import hop_flow
from lbctl.openflow.rules import ABSENT, Role, all_flows
from lbctl.openflow.slice_rules import Sliced, SliceState, router_flow, slice_flows
from lbctl.openflow.source_rules import Internal
from lbctl.site.documents import endpoint_of
from lbctl.site.model import FILTERINGS, ExternalIp, Hop, Server, Service, Tunnel
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.drops import DROPS
from lbctl.values.keys import pack_key, reply_key
from lbctl.values.protocols import ETH_TYPES, PROTOCOL_NUMBERS, TCP, TTL
from lbctl.values.transfer import TransferMode

_FILTERS = {"address-dependent": "has sent something to that address (filtering: address-dependent)",
            "endpoint-independent": "so lets everybody in (filtering: endpoint-independent)"}
"""What else a NAT gateway asks of a first datagram from outside."""


@dataclass(frozen=True, slots=True)
class Fate:
    """outcome: server, client (by the NAT gateway), new, reset, unreachable, held, dropped."""

    outcome: str
    sentence: str
    path: list[Hit]


def fate_of(packet: str, situation: Situation) -> Fate:
    """Where such a packet (one of situation.packets) goes."""
    path = walk(_flows(situation), _packet(situation, packet))
    kinds = {known_kind(hit.flow.cookie) for hit in path if hit.flow}
    by_slice = Kind.SLICE in kinds and Kind.ENTRY_IN not in kinds
    outcome, sentence = _outcome(situation, path[-1], situation.slice if by_slice else situation.entry)
    return Fate(outcome, sentence, path)


def _flows(situation: Situation) -> list[Flow]:
    external_ip = _external_ip(situation.external_ip)
    servers = [server for service in situation.external_ip["services"] for server in service["servers"]]
    neighbours = {
        _hop(server).address: server["mac"]
        for server in [*servers, *situation.external_ip["former_servers"]]
        if server["mac"]
    }
    if external_ip.router and (mac := situation.external_ip["router"]["mac"]):
        neighbours[external_ip.router] = mac
    flows = all_flows([external_ip], {external_ip.address: _role(situation)}, neighbours, situation.ports,
                      internal=_internal(situation))
    if situation.slice:
        flows += [*slice_flows(_sliced(external_ip, situation.slice)), router_flow(situation.sender)]
    if situation.entry:
        entry = _entry(situation.entry)
        inner = bool(entry.inner_hop)
        flows += [*entry_flows(entry, linger=0), hop_flow(checked_side(inner), entry.inner_hop or entry.next_hop)]
    return flows


def _sliced(external_ip: ExternalIp, view: dict[str, Any]) -> Sliced:
    """The service, as far as it is the one slice."""
    service = next(service for service in external_ip.services
                   if (service.protocol, service.port) == (view["protocol"], view["external_port"]))
    server = Endpoint(ip_address(view["server"]), view["server_port"])
    old = endpoint_of(view["old_server"]) if view["old_server"] else server
    state = SliceState(server, old, view["state"] != "plain", view["state"] in ("narrowed", "switched", "flipped"))
    nobody = SliceState(None, None)
    slices = (*[nobody] * view["slice"], state)
    return Sliced(external_ip.address, service, slices, frozenset({server, old}), external_ip.direct)


def _internal(situation: Situation) -> Internal:
    return Internal(tuple(map(ip_network, situation.load_balancer["internal_networks"])))


def _external_ip(view: dict[str, Any]) -> ExternalIp:
    services = tuple(
        Service(service["protocol"], service["port"], service["scheduler"], tuple(map(_server, service["servers"])),
                entries=service["entries"], affinity=service["affinity"])
        for service in view["services"]
    )
    former = tuple((ip_address(server["address"]), _hop(server)) for server in view["former_servers"])
    return ExternalIp(
        ip_address(view["address"]),
        view["load_balancer"],
        _optional(view["gateway"]),
        view["nat"],
        services,
        former,
        kind=view["kind"],
        internal_ips=tuple(map(ip_address, view["internal_ips"])),
        inside=tuple(map(ip_network, view["inside"])),
        router=_optional(view["router"] and view["router"]["address"]),
        filtering=view["filtering"] or FILTERINGS[0],
    )


def _server(view: dict[str, Any]) -> Server:
    return Server(
        ip_address(view["address"]), view["port"], view["weight"], _optional(view["next_hop"]), _hop(view).tunnel
    )


def _hop(view: dict[str, Any]) -> Hop:
    """Of a server, or a former one."""
    tunnel = view["tunnel"] and Tunnel(
        view["tunnel"]["transport"], ip_address(view["tunnel"]["remote"]), view["tunnel"]["key"], view["tunnel"]["mtu"]
    )
    return Hop(ip_address(view["next_hop"] or view["address"]), tunnel)


def _optional(text: str | None) -> Address | None:
    return ip_address(text) if text else None


def _role(situation: Situation) -> Role:
    if situation.mode is None:
        return ABSENT
    mode, move = TransferMode(situation.mode), situation.move
    hold_all = (mode is TransferMode.TRANSITION and move is not None and move["strategy"] == "buffered"
                and move["to"] == situation.load_balancer["name"])
    return Role(mode, hold_all, arp=True)


def _entry(view: dict[str, Any]) -> Entry:
    key = pack_key(PROTOCOL_NUMBERS[view["protocol"]], ip_address(view["client"]).packed, view["client_port"],
                   ip_address(view["external_ip"]).packed, view["external_port"])
    server = ip_address(view["server"]).packed, view["server_port"]
    reply = (
        full_reply(key, *server, (ip_address(view["internal_ip"]).packed, view["internal_port"]))
        if view["internal_ip"]
        else reply_key(key, *server)
    )
    return Entry(key, reply, parse_mac(view["next_hop"]), 0.0, inner_hop=parse_mac(view["inner_hop"] or ""))


def _packet(situation: Situation, packet: str) -> Fields:
    port = situation.port
    source, destination, name = situation.source, situation.destination, situation.protocol
    version = source.address.version
    flags = {"tcp_flags": FLAGS[packet]} if packet in FLAGS else {}
    return {
        "in_port": port.number,
        "eth_type": ETH_TYPES[version],
        "eth_src": situation.sender,
        "eth_dst": port.mac,
        "ip_proto": PROTOCOL_NUMBERS[name],
        "nw_ttl": TTL,
        f"ipv{version}_src": str(source.address),
        f"{name}_src": source.port,
        f"ipv{version}_dst": str(destination.address),
        f"{name}_dst": destination.port,
        **flags,
    }


def _outcome(situation: Situation, last: Hit, entry: dict[str, Any] | None) -> tuple[str, str]:
    """entry: that it goes by, if there is one."""
    lb = situation.load_balancer["name"]
    where = f"table {last.number} ({last.table}) of {lb}"
    external = situation.external_ip["address"]
    kind = known_kind(last.flow.cookie) if last.flow else None
    if kind is Kind.SERVER_MAC_UNKNOWN and entry:
        return "dropped", (
            f"dropped in {where}: the server {entry['server']} has not answered {lb}'s {asked_by(entry['server'])}; "
            f"is it up, and where the site file says? Counted as {kind.reason}"
        )
    outcome, answer = (
        ("reset", "a RST") if PROTOCOL_NUMBERS[situation.protocol] == TCP else ("unreachable", "ICMP port unreachable")
    )
    match kind:
        case Kind.DELIVER:
            assert entry is not None, "rules that deliver a packet are an entry's"
            return _delivered(situation, entry)
        case Kind.NEW:
            if situation.external_ip["inside"] and not (situation.entry or situation.outward):
                return "new", (
                    f"{where} shows it to the controller, which makes an entry if an inside host is mapped to that "
                    f"port and {_FILTERS[situation.external_ip['filtering']]}, and else answers with {answer}"
                )
            if situation.slice:
                return "new", f"{where} shows it to the controller, {_in_slice(situation.slice)}"
            if not (situation.entry or situation.outward or situation.taking and not situation.sliced):
                return outcome, (
                    f"{where} shows it to the controller, which answers with {answer}: no server takes connections "
                    "(`lbctl server list` says why)"
                )
            return "new", f"{where} shows it to the controller, {_new(situation)}"
        case Kind.STRAY:
            return outcome, f"{where} shows it to the controller, which answers with {answer}: there is no entry" + (
                f", and connections are opened from inside only: {external} is a NAT gateway"
                if situation.external_ip["inside"]
                else ""
                if situation.service
                else f", and no {situation.protocol} service on port {situation.destination.port}"
            )
        case Kind.HOLD:
            return "held", f"{where} has it held: {external} is being moved, it goes on when that is done"
        case Kind.UNASSIGNED:
            return "unreachable", (f"{where} shows it to the controller, which answers with ICMP host unreachable: "
                                   f"{external} is not assigned to {lb}")
    if kind is None or not kind.drops:
        return "dropped", f"dropped in {where}"
    reason, count = kind.reason, situation.load_balancer["counters"]["dropped"].get(kind.reason, 0)
    mend = f" ({DROPS[reason].mend})" if DROPS[reason].mend else ""
    return "dropped", f"dropped in {where}, as {DROPS[reason].subject}{mend}; counted as {reason}, {count} so far"


def _delivered(situation: Situation, entry: dict[str, Any]) -> tuple[str, str]:
    server = entry["old_server"] or output.endpoint(entry["server"], entry["server_port"])
    if entry["slice"] is not None:
        direct = ", which answers the client itself" if situation.external_ip["nat"] == "none" else ""
        return "server", f"goes to server {server} by slice {entry['slice']} ({clients(entry)}){direct}"
    if situation.outward:
        return "client", f"goes out by its entry, as {output.endpoint(entry['external_ip'], entry['external_port'])}"
    sent_as = f", as {output.endpoint(entry['internal_ip'], entry['internal_port'])}" if entry["internal_ip"] else ""
    kind = "inside host" if situation.external_ip["inside"] else "server"
    return "server", f"goes to {kind} {server} by its entry{sent_as}"


def clients(slice: dict[str, Any]) -> str:
    """Which ones are in it."""
    return f"client {slice['client']}" if slice["client_ports"] == "any" else f"client port {slice['client_ports']}"


def _in_slice(slice: dict[str, Any]) -> str:
    """What the controller does with what opens a connection while its slice changes hands."""
    server = output.endpoint(slice["server"], slice["server_port"])
    if slice["state"] == "narrowed":
        does = f"sends it to the old server {slice['old_server']}"
    else:
        does = f"makes an entry for it to server {server}"
    return f"which {does}: slice {slice['slice']} changes hands"


def _new(situation: Situation) -> str:
    if situation.entry:
        return "which lets a repeated SYN go on to the same server, and makes a new entry for a new connection"
    if situation.outward:
        router = situation.external_ip["router"]
        unknown = "" if router["mac"] else f"; not before the router {router['address']} has told its MAC"
        return f"which makes an entry with a port of {situation.external_ip['address']}{unknown}"
    assert situation.service is not None, "it has servers that take connections"
    seen_as = ""
    if situation.inside and situation.external_ip["nat"] == "destination":
        seen_as = f"; they see a port of the gateway {situation.external_ip['gateway']}"
    servers = ", ".join(output.endpoint(server["address"], server["port"]) for server in situation.taking)
    return f"which makes an entry for a server by {situation.service['scheduler']}, one of {servers}{seen_as}"
