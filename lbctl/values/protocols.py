"""Numbers of protocols, and what all frames have in common."""

from __future__ import annotations

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
"""IANA protocol numbers."""
PROTOCOL_NUMBERS = {"tcp": TCP, "udp": UDP}
"""The protocols that a service may name."""
PROTOCOL_NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}
ETH_TYPE_IPV4, ETH_TYPE_ARP, ETH_TYPE_IPV6 = 0x0800, 0x0806, 0x86DD
ETH_TYPES = {4: ETH_TYPE_IPV4, 6: ETH_TYPE_IPV6}
"""By IP version."""
ETHERNET_HEADER = 14
"""Bytes before the IP header of a frame without VLAN tag."""
TTL = 64
"""Of packets that an LB or the controller makes (IPv6: hop limit)."""
ARP_REQUEST, ARP_REPLY = 1, 2
"""ARP operations."""
