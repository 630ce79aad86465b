"""The pipeline, declared once: what each table may match, write, and go to.

`Flow` (flow.py) enforces this declaration when a flow is built, and docs/pipeline.md is printed from it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """One OpenFlow table. `matches` and `writes` name OXM fields as Ryu spells them; `next` names tables."""

    number: int
    name: str
    purpose: str
    matches: frozenset[str]
    writes: frozenset[str]
    next: tuple[str, ...]


def _table(number: int, name: str, purpose: str, matches: str = "", writes: str = "", next: str = "") -> Table:
    return Table(number, name, purpose, frozenset(matches.split()), frozenset(writes.split()), tuple(next.split()))


_ADDRESSES = "ipv4_src ipv4_dst ipv6_src ipv6_dst"
_TUNNEL = "tunnel_id tun_ipv4_src"
_PORTS = "tcp_src tcp_dst udp_src udp_dst"

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        _table(0, "classify", "Lets in what is addressed to this LB: ARP, IPv6 neighbour discovery, and IP "
               "packets to its own MAC, fragments apart; through a tunnel, from its other end only.",
               f"in_port {_TUNNEL} vlan_vid eth_type eth_dst ip_frag ip_proto icmpv4_type icmpv6_type nw_ttl arp_op "
               "arp_spa arp_tha", "eth_src eth_dst arp_op arp_sha arp_tha", "classify arp sources"),
        _table(1, "arp", "Answers ARP and neighbour solicitations for external IPs and internal addresses; shows the "
               "servers' to the controller.",
               f"in_port {_TUNNEL} eth_type arp_op arp_spa arp_tpa arp_tha eth_dst ip_proto icmpv6_type ipv6_src "
               "ipv6_nd_target",
               "eth_src eth_dst arp_op arp_sha arp_tha arp_spa arp_tpa tun_ipv4_dst ipv6_src ipv6_dst icmpv6_type "
               "nd_options_type nd_reserved", "advertise"),
        _table(2, "advertise", "Adds the LB's own MAC to the advertisement that table arp has made of a solicitation, "
               "and sends it back.",
               "in_port eth_type ip_proto icmpv6_type", "ipv6_nd_tll tun_ipv4_dst"),
        _table(5, "sources", "Has the packet come in by the side that its source is on?",
               f"in_port eth_type {_ADDRESSES}", "", "transfer_mode wrong_side"),
        _table(10, "transfer_mode", "The transfer mode of the packet's external IP (seed figure 7).",
               f"in_port {_TUNNEL} eth_type ip_proto {_ADDRESSES} {_PORTS}", "reg0",
               "slices_in slices_out inbound_flags outbound_flags no_entry"),
        _table(11, "slices_in", "The access table of sliced services, from the external network: an entry for each "
               "slice of the clients.",
               f"eth_type ip_proto {_ADDRESSES} {_PORTS}", f"{_ADDRESSES} {_PORTS}",
               "slice_hop deliver_server inbound_flags access_in"),
        _table(12, "slices_out", "What servers of sliced services answer: one flow for each server.",
               f"eth_type ip_proto {_ADDRESSES} {_PORTS}", f"{_ADDRESSES} {_PORTS}", "way_back outbound_flags"),
        _table(15, "inbound_flags", "From clients: a connection request goes past the access table, a RST is marked.",
               "eth_type ip_proto tcp_flags", "reg1", "access_in no_entry"),
        _table(16, "outbound_flags", "From servers: a RST is marked.",
               "eth_type ip_proto tcp_flags", "reg1", "access_out"),
        _table(20, "access_in", "The access table, from the external network: one entry for each connection.",
               f"eth_type ip_proto {_ADDRESSES} {_PORTS}", f"{_ADDRESSES} {_PORTS} eth_dst metadata",
               "client_hop slice_hop deliver_server deliver_inside no_entry"),
        _table(21, "access_out", "The access table, from the internal network: the same entries, inverse.",
               f"eth_type ip_proto {_ADDRESSES} {_PORTS}", f"{_ADDRESSES} {_PORTS} eth_dst metadata",
               "inside_hop way_back deliver_client no_entry"),
        _table(22, "client_hop", "Does the client's packet come from the MAC that its entry answers to?",
               "metadata eth_src", "metadata reg3", "deliver_server"),
        _table(23, "inside_hop", "The same of what a NAT gateway's inside host sends.",
               "metadata eth_src", "metadata reg3", "deliver_client"),
        _table(24, "slice_hop", "Does a sliced service's client come from the MAC that it is answered to?",
               "eth_type eth_src ipv4_src ipv6_src", "metadata reg3", "deliver_server"),
        _table(25, "way_back", "The next hop of a sliced service's client.",
               f"eth_type {_ADDRESSES}", "eth_dst", "deliver_client"),
        _table(30, "no_entry", "What has no entry: a new connection, an echo request, an error, or held while in "
               "transition.",
               f"in_port eth_type ip_proto {_ADDRESSES} tcp_dst udp_dst tcp_flags icmpv4_type icmpv6_type reg0",
               f"{_ADDRESSES} icmpv4_type icmpv6_type eth_src eth_dst tun_ipv4_dst"),
        _table(40, "deliver_server", "Adds the LB's own MAC and the server's, and sends to the internal network; or "
               "measures for a tunnel, or a small MTU.",
               "eth_type ipv4_dst ipv6_dst nw_ttl reg1 reg3", "eth_src eth_dst ipv4_dst ipv6_dst reg1 reg2 reg3",
               "deliver_server deliver_tunnel show_reset show_hop send_inside"),
        _table(41, "deliver_client", "Adds the LB's own MAC, and sends to the external network; or to a client inside, "
               "by table deliver_inside.",
               "eth_type ipv4_dst ipv6_dst nw_ttl reg1 reg3", "eth_src reg1 reg2 reg3",
               "deliver_client deliver_inside show_reset show_hop send_outside"),
        _table(42, "deliver_inside", "Adds the LB's own MAC, and sends to the internal network, where the entry knows "
               "the next hop: to a NAT gateway's hosts, and clients inside.",
               "eth_type nw_ttl reg1", "eth_src reg1 reg2", "deliver_inside show_reset send_inside"),
        _table(43, "show_reset", "Shows a RST that has been delivered to the controller."),
        _table(44, "deliver_tunnel", "The same through the server's tunnel; what is too large for it is shown to the "
               "controller.",
               "eth_type ipv4_dst ipv6_dst reg2", "eth_src eth_dst ipv4_dst ipv6_dst tunnel_id tun_ipv4_dst"),
        _table(45, "send_outside", "Where the external network's MTU is the smaller one: sends there; what is too "
               "large is shown to the controller.", "eth_type reg2", "eth_src"),
        _table(46, "send_inside", "The same for the internal network.", "eth_type ipv4_dst ipv6_dst reg2",
               "eth_src ipv4_dst ipv6_dst"),
        _table(47, "show_hop", "Shows a packet that has been delivered, and came from another MAC than its entry "
               "answers to, to the controller.", "", "eth_src"),
        _table(50, "wrong_side", "Drops, and counts, what has not."),
    )
}

REGISTERS = {
    "reg0": "transfer mode of the packet's external IP: 1 normal, 2 transition",
    "reg1": "1: a RST that has found its entry is to be shown to the controller",
    "reg2": "1: the packet is larger than the network or tunnel takes that it goes to",
    "reg3": "1: the packet came from another MAC than its entry answers to, and is to be shown to the controller",
    "metadata": "the MAC that its entry answers to; once that is found to be another, the one that it came from",
}

REG_MODE_NORMAL = 1
REG_MODE_TRANSITION = 2


def number(name: str) -> int:
    """The table's OpenFlow number. Raises KeyError for a name that is not declared."""
    return TABLES[name].number


def name_of(number: int) -> str:
    """The name of the table with that OpenFlow number, or the number as text if it is none of ours."""
    return next((table.name for table in TABLES.values() if table.number == number), str(number))
