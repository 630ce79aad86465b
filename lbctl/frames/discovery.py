"""Asking and telling who has an address on a segment: ARP for IPv4 (packets.py), neighbour discovery (RFC 4861) for
IPv6.

Frames in, frames out. MAC addresses are 6 bytes, IP addresses 4 or 16 bytes (`.packed`).
"""

from __future__ import annotations

from lbctl.frames import icmp, packets
from lbctl.frames.packets import Malformed
from lbctl.values.addresses import Address
from lbctl.values.protocols import ICMPV6

SOLICITATION, ADVERTISEMENT = 135, 136
"""ICMPv6 types."""
ROUTER, SOLICITED, OVERRIDE = 0x80000000, 0x40000000, 0x20000000
"""Flags of an advertisement."""
HOP_LIMIT = 255
"""Of every neighbour discovery packet: a router cannot have forwarded it."""
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
_SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")
_SOURCE_MAC, _TARGET_MAC = b"\1\1", b"\2\1"
"""Type and length (in 8 bytes) of the option that holds the sender's, or the target's, MAC."""


def asked_by(address: Address | str) -> str:
    """What asks for the MAC of an address: the protocol's name for people."""
    return "neighbour discovery" if ":" in str(address) else "ARP"


def probe(source_mac: bytes, target: bytes) -> bytes:
    """Asks for the MAC of `target`, and changes nobody's idea of who has which of the site's addresses.

    IPv4: without a sender address (RFC 5227). IPv6: from the link-local address of the port that asks.
    """
    if len(target) == 4:
        return packets.arp_probe(source_mac, target)
    group = solicited_node(target)
    return icmp.message(multicast_mac(group), source_mac, link_local(source_mac), group, SOLICITATION, 0, 0,
                        target + _SOURCE_MAC + source_mac, ttl=HOP_LIMIT)


def solicited_node(address: bytes) -> bytes:
    """The group that who asks for the MAC of that IPv6 address sends to (RFC 4291 2.7.1)."""
    return _SOLICITED_NODE + address[13:]


def announcements(source_mac: bytes, address: bytes, router: bool) -> list[bytes]:
    """Tells everyone that `address` is at `source_mac` now: gratuitous ARP, or an unsolicited advertisement (RFC 4861
    7.2.6). ARP in both forms, since there are devices that heed requests only, and others that heed replies only.

    router: packets for other addresses may be sent there too; ARP cannot say it.
    """
    if len(address) == 4:
        return [packets.arp_announcement(source_mac, address), told(source_mac, packets.BROADCAST_MAC, address, router)]
    return [told(source_mac, multicast_mac(ALL_NODES), address, router)]


def told(source_mac: bytes, to: bytes, address: bytes, router: bool) -> bytes:
    """The same, to the host with the MAC `to` alone: an ARP reply that was not asked for, or an advertisement."""
    if len(address) == 4:
        return packets.arp_reply(source_mac, to, address)
    return icmp.message(to, source_mac, address, ALL_NODES, ADVERTISEMENT, 0,
                        OVERRIDE | (ROUTER if router else 0), address + _TARGET_MAC + source_mac, ttl=HOP_LIMIT)


def decode(frame: bytes) -> tuple[bytes, bytes]:
    """Whose MAC a frame tells: (packed address, MAC). ARP of either operation, or a neighbour advertisement. Raises
    Malformed."""
    if frame[12:14] != b"\x86\xdd":
        arp = packets.decode_arp(frame)
        return arp.spa, arp.sha
    packet = packets.decode(frame)
    body = frame[packet.payload_offset:packet.payload_offset + packet.payload_length]
    if packet.protocol != ICMPV6 or packet.ttl != HOP_LIMIT or len(body) < 24 or body[:2] != bytes([ADVERTISEMENT, 0]):
        raise Malformed("not a neighbour advertisement")
    mac = _option(body[24:], _TARGET_MAC)
    if mac is None or mac[0] & 1:
        raise Malformed("neighbour advertisement without a MAC")
    return body[8:24], mac


def _option(options: bytes, wanted: bytes) -> bytes | None:
    """The 6 bytes of the option that begins so."""
    while len(options) >= 8 and options[1]:
        if options[:2] == wanted:
            return options[2:8]
        options = options[options[1] * 8:]
    return None


def link_local(mac: bytes) -> bytes:
    """The link-local address that a host with that MAC gives itself (RFC 4291 appendix A)."""
    return bytes.fromhex("fe80000000000000") + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]


def multicast_mac(group: bytes) -> bytes:
    """RFC 2464 7."""
    return b"\x33\x33" + group[12:]
