"""The flows that answer in the switch who asks for an address: ARP, neighbour solicitations, and ping."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address

from lbctl.frames.discovery import (
    ADVERTISEMENT,
    ALL_NODES,
    OVERRIDE,
    ROUTER,
    SOLICITATION,
    SOLICITED,
    multicast_mac,
)
from lbctl.openflow.cookies import Kind
from lbctl.openflow.flow import IN_PORT, Flow, FlowAction, Match, MoveField, SetField, SetTtl, flow
from lbctl.openflow.ports import Port
from lbctl.values.addresses import Address
from lbctl.values.protocols import (
    ARP_REPLY,
    ARP_REQUEST,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV6,
    ETH_TYPES,
    ICMP,
    ICMPV6,
    TTL,
)

ECHO_TYPES = {4: ("icmpv4_type", ICMP, 8, 0), 6: ("icmpv6_type", ICMPV6, 128, 129)}
"""By IP version: field, protocol, echo request, echo reply (RFC 792, RFC 4443)."""
TARGET_MAC = 2
"""The option of an advertisement that holds the MAC (RFC 4861 4.6.1)."""


def responder(owner: int, port: Port, address: Address, router: bool,
               back: Sequence[FlowAction] = ()) -> Iterator[Flow]:
    """What answers in the switch who asks for that address on that side. router: it forwards packets for others."""
    if isinstance(address, IPv6Address):
        yield from solicitation_flows(owner, port, address, router)
        return
    yield flow(Kind.ARP, owner, "arp", 100,
               {"in_port": port.number, "eth_type": ETH_TYPE_ARP, "arp_op": ARP_REQUEST, "arp_tpa": str(address)},
               MoveField("eth_src", "eth_dst", 48), SetField("eth_src", port.mac), SetField("arp_op", ARP_REPLY),
               MoveField("arp_sha", "arp_tha", 48), SetField("arp_sha", port.mac),
               MoveField("arp_spa", "arp_tpa", 32), SetField("arp_spa", str(address)), *back, IN_PORT)


def solicitation_flows(owner: int, port: Port, address: IPv6Address, router: bool) -> Iterator[Flow]:
    """Turn a neighbour solicitation into its advertisement (RFC 4861 7.2.4). Table advertise adds the MAC: Open vSwitch
    lets a flow set it only if the flow's match says that the packet is an advertisement, which it becomes here."""
    asked: Match = {"in_port": port.number, "eth_type": ETH_TYPE_IPV6, "ip_proto": ICMPV6, "icmpv6_type": SOLICITATION,
             "ipv6_nd_target": str(address)}
    flags = OVERRIDE | (ROUTER if router else 0)

    def answer(flags: int) -> tuple[FlowAction, ...]:
        return (SetField("eth_src", port.mac), SetField("ipv6_src", str(address)),
                SetField("icmpv6_type", ADVERTISEMENT), SetField("nd_options_type", TARGET_MAC),
                SetField("nd_reserved", flags))

    to_asker = (MoveField("eth_src", "eth_dst", 48), MoveField("ipv6_src", "ipv6_dst", 128))
    yield flow(Kind.ARP, owner, "arp", 100, asked, *to_asker, *answer(flags | SOLICITED), goto="advertise")
    # Who asks without an address is about to take this one (RFC 4862 5.4): everyone is told that it is taken.
    to_all = (SetField("eth_dst", multicast_mac(ALL_NODES).hex(":")), SetField("ipv6_dst", str(IPv6Address(ALL_NODES))))
    yield flow(Kind.ARP, owner, "arp", 105, {**asked, "ipv6_src": "::"}, *to_all, *answer(flags), goto="advertise")


def echo_responder(owner: int, port: Port, address: Address, back: Sequence[FlowAction] = ()) -> Flow:
    """Turns an ICMP echo request into its reply, in the switch (RFC 792, RFC 4443), also while in transition."""
    version = address.version
    field, protocol, request, reply = ECHO_TYPES[version]
    source, destination, bits = f"ipv{version}_src", f"ipv{version}_dst", 32 if version == 4 else 128
    return flow(Kind.ECHO, owner, "no_entry", 140, {
        "in_port": port.number, "eth_type": ETH_TYPES[version], "ip_proto": protocol, field: request,
        destination: str(address)},
        MoveField("eth_src", "eth_dst", 48), SetField("eth_src", port.mac), MoveField(source, destination, bits),
        SetField(source, str(address)), SetTtl(TTL), SetField(field, reply), *back, IN_PORT)
