"""Frames at the controller: decoding the ones that a switch sends, building the ones that it shall send.

Every packet that makes a connection passes through `decode`, so it is one or two `struct` calls and no
classes of headers. MAC addresses are 6 bytes, IP addresses 4 or 16 bytes (`.packed`). ICMP has a module of its own.

The decoders take any bytes. What they refuse they raise as `Malformed`, whose `reason` is one of a
few constant strings (a counter for each is safe), and they raise nothing else. Checksums are not
looked at: hosts with checksum offload hand over frames without one, and the receiver checks it anyway.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from lbctl.values.addresses import is_host
from lbctl.values.protocols import (
    ARP_REPLY,
    ARP_REQUEST,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    ETHERNET_HEADER,
    TCP,
    TTL,
    UDP,
)

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
OPENS_CONNECTION = (SYN, FIN | SYN | RST | ACK)
"""The flags of a segment that asks for a connection, and those that are looked at."""

BROADCAST_MAC = b"\xff" * 6

_ETHERNET = Struct("!6s6sH")
_ETHERNET_IPV4 = Struct("!6s6sHBBHHHBBH4s4s")
_ETHERNET_IPV6 = Struct("!6s6sHIHBB16s16s")
_PORTS = Struct("!HH")
_PSEUDO_IPV4, _PSEUDO_IPV6 = Struct("!HH"), Struct("!II")
"""Length and protocol; the order of words does not change the sum."""
_IPV4 = Struct("!BBHHHBBH4s4s")
_TCP = Struct("!HHIIBBHHH")
_TCP_START = Struct("!HHIIBB")
_UDP = Struct("!HHHH")
_ARP = Struct("!6s6sHHHBBH6s4s6s4s")

_DONT_FRAGMENT = 0x4000
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
SKIPPED_HEADERS = frozenset((0, 43, 60))
"""IPv6: hop-by-hop options, routing, destination options."""
FRAGMENT_HEADER = 44
"""IPv6: says that the packet is a fragment, or could be."""


class Malformed(ValueError):
    """A frame that cannot be decoded, or that no sane host sends."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Packet(NamedTuple):
    """A decoded IP packet. What its protocol does not have is None (ports) or 0."""

    eth_dst: bytes
    eth_src: bytes
    protocol: int
    src: bytes
    dst: bytes
    src_port: int | None
    dst_port: int | None
    tcp_flags: int
    seq: int
    ack: int
    payload_offset: int
    """Where in the frame the payload of TCP starts (of other protocols: the payload of IP)."""
    payload_length: int
    """Bytes of payload, without Ethernet padding."""
    ttl: int

    @property
    def asks_for_connection(self) -> bool:
        """Of TCP: is it a SYN that begins one?"""
        flags, mask = OPENS_CONNECTION
        return self.tcp_flags & mask == flags


class Arp(NamedTuple):
    """A decoded ARP packet; field names as in RFC 5227."""

    op: int
    sha: bytes
    spa: bytes
    tha: bytes
    tpa: bytes


def decode(frame: bytes) -> Packet:
    """Decode an untagged Ethernet frame with an IP packet. Raises Malformed, also for fragments."""
    if frame[12:14] == b"\x86\xdd":
        return _decode_ipv6(frame)
    if len(frame) < 34:
        raise Malformed("truncated")
    (eth_dst, eth_src, eth_type, version_ihl, _, total, _, fragment, ttl, protocol, _, src, dst) = (
        _ETHERNET_IPV4.unpack_from(frame)
    )
    if eth_type != ETH_TYPE_IPV4:
        raise Malformed("not IP")
    header = (version_ihl & 0x0F) * 4
    _check_ipv4(version_ihl, header, total, len(frame))
    if fragment & _MORE_FRAGMENTS_OR_OFFSET:
        raise Malformed("fragment")
    if eth_src[0] & 1 or not is_host(src):
        raise Malformed("source is not a host")
    return _transport(frame, eth_dst, eth_src, protocol, src, dst, ETHERNET_HEADER + header, total - header, ttl)


def _decode_ipv6(frame: bytes) -> Packet:
    """RFC 8200; extension headers that every node may skip are skipped."""
    if len(frame) < 54:
        raise Malformed("truncated")
    eth_dst, eth_src, _, first, length, protocol, ttl, src, dst = _ETHERNET_IPV6.unpack_from(frame)
    if first >> 28 != 6:
        raise Malformed("bad IP version")
    start, end = ETHERNET_HEADER + 40, ETHERNET_HEADER + 40 + length
    if end > len(frame):
        raise Malformed("truncated")
    if eth_src[0] & 1 or not is_host(src):
        raise Malformed("source is not a host")
    while protocol in SKIPPED_HEADERS:
        if start + 8 > end:
            raise Malformed("truncated")
        protocol, start = frame[start], start + 8 + frame[start + 1] * 8
    if protocol == FRAGMENT_HEADER:
        raise Malformed("fragment")
    if start > end:
        raise Malformed("truncated")
    return _transport(frame, eth_dst, eth_src, protocol, src, dst, start, end - start, ttl)


def _transport(frame: bytes, eth_dst: bytes, eth_src: bytes, protocol: int, src: bytes, dst: bytes, start: int,
               length: int, ttl: int) -> Packet:
    """length: of what IP carries, in bytes, from `start` in the frame."""
    if protocol == UDP:
        if length < 8:
            raise Malformed("truncated UDP header")
        src_port, dst_port = _PORTS.unpack_from(frame, start)
        return Packet(eth_dst, eth_src, protocol, src, dst, src_port, dst_port, 0, 0, 0, start, length, ttl)
    if protocol != TCP:
        return Packet(eth_dst, eth_src, protocol, src, dst, None, None, 0, 0, 0, start, length, ttl)
    if length < 20:
        raise Malformed("truncated TCP header")
    src_port, dst_port, seq, ack, offset, flags = _TCP_START.unpack_from(frame, start)
    tcp_header = (offset >> 4) * 4
    if tcp_header < 20 or length < tcp_header:
        raise Malformed("bad TCP header length")
    return Packet(eth_dst, eth_src, protocol, src, dst, src_port, dst_port, flags, seq, ack, start + tcp_header,
                  length - tcp_header, ttl)


def decode_arp(frame: bytes) -> Arp:
    """Decode an untagged ARP request or reply for IPv4 over Ethernet. Raises Malformed."""
    if len(frame) < 42:
        raise Malformed("truncated")
    _, _, eth_type, hardware, protocol, hardware_len, protocol_len, op, sha, spa, tha, tpa = _ARP.unpack_from(frame)
    if eth_type != ETH_TYPE_ARP:
        raise Malformed("not ARP")
    if (hardware, protocol, hardware_len, protocol_len) != (1, ETH_TYPE_IPV4, 6, 4):
        raise Malformed("ARP not for IPv4 over Ethernet")
    if op != ARP_REQUEST and op != ARP_REPLY:
        raise Malformed("unknown ARP operation")
    if sha[0] & 1:
        raise Malformed("source is not a host")
    return Arp(op, sha, spa, tha, tpa)


def tcp_segment(
    eth_dst: bytes,
    eth_src: bytes,
    src: bytes,
    src_port: int,
    dst: bytes,
    dst_port: int,
    *,
    flags: int,
    seq: int = 0,
    ack: int = 0,
    payload: bytes = b"",
    ttl: int = TTL,
) -> bytes:
    """A frame with one TCP segment without options, checksums included."""
    window = 0 if flags & RST else 0xFFFF
    head = _TCP.pack(src_port, dst_port, seq, ack, 5 << 4, flags, window, 0, 0)
    total = transport_checksum(TCP, src, dst, head + payload)
    head = _TCP.pack(src_port, dst_port, seq, ack, 5 << 4, flags, window, total, 0)
    return ip_frame(eth_dst, eth_src, src, dst, TCP, head + payload, ttl=ttl)


def udp_datagram(
    eth_dst: bytes,
    eth_src: bytes,
    src: bytes,
    src_port: int,
    dst: bytes,
    dst_port: int,
    payload: bytes,
    *,
    ttl: int = TTL,
) -> bytes:
    """A frame with one UDP datagram, checksums included (RFC 768: a checksum of 0 is sent as its complement)."""
    head = _UDP.pack(src_port, dst_port, 8 + len(payload), 0)
    total = transport_checksum(UDP, src, dst, head + payload) or 0xFFFF
    datagram = _UDP.pack(src_port, dst_port, 8 + len(payload), total) + payload
    return ip_frame(eth_dst, eth_src, src, dst, UDP, datagram, ttl=ttl)


def tcp_reset(packet: Packet, source_mac: bytes) -> bytes | None:
    """The frame with the RST that answers a segment for which there is no connection (RFC 9293 3.10.7.1).

    None where no answer is allowed: to a RST, to what is not TCP, to broadcast and multicast.
    """
    if packet.protocol != TCP or packet.tcp_flags & RST:
        return None
    if packet.eth_dst[0] & 1 or not is_host(packet.dst):
        return None
    if packet.tcp_flags & ACK:
        seq, ack, flags = packet.ack, 0, RST
    else:
        length = packet.payload_length + bool(packet.tcp_flags & SYN) + bool(packet.tcp_flags & FIN)
        seq, ack, flags = 0, (packet.seq + length) & 0xFFFFFFFF, RST | ACK
    assert packet.src_port is not None and packet.dst_port is not None
    return tcp_segment(
        packet.eth_src,
        source_mac,
        packet.dst,
        packet.dst_port,
        packet.src,
        packet.src_port,
        flags=flags,
        seq=seq,
        ack=ack,
    )


def ip_frame(eth_dst: bytes, eth_src: bytes, src: bytes, dst: bytes, protocol: int, payload: bytes, *, ttl: int = TTL,
             tos: int = 0) -> bytes:
    """A frame with an IP packet without options; IPv4 or IPv6 by the length of the addresses."""
    if len(src) == 16:
        first_word = 6 << 28 | tos << 20
        head = _ETHERNET_IPV6.pack(eth_dst, eth_src, ETH_TYPE_IPV6, first_word, len(payload), protocol, ttl, src, dst)
        return head + payload
    head = _IPV4.pack(0x45, tos, 20 + len(payload), 0, _DONT_FRAGMENT, ttl, protocol, 0, src, dst)
    head = head[:10] + checksum(head).to_bytes(2) + head[12:]
    return _ETHERNET.pack(eth_dst, eth_src, ETH_TYPE_IPV4) + head + payload


def transport_checksum(protocol: int, src: bytes, dst: bytes, data: bytes) -> int:
    """The checksum over the pseudo header (RFC 9293 3.1, RFC 8200 8.1) and `data`, whose own checksum field must be
    0."""
    pseudo = _PSEUDO_IPV6 if len(src) == 16 else _PSEUDO_IPV4
    return checksum(src + dst + pseudo.pack(len(data), protocol) + data)


def arp_probe(source_mac: bytes, target: bytes) -> bytes:
    """A broadcast ARP request without a sender address (RFC 5227): asks for a MAC, changes no one's ARP cache."""
    return arp_question(source_mac, BROADCAST_MAC, bytes(4), bytes(6), target)


def arp_announcement(source_mac: bytes, address: bytes) -> bytes:
    """A gratuitous ARP request (RFC 5227): tells everyone that `address` is at `source_mac` now."""
    return arp_question(source_mac, BROADCAST_MAC, address, bytes(6), address)


def arp_reply(source_mac: bytes, to: bytes, address: bytes) -> bytes:
    """An ARP reply that was not asked for: tells the host with the MAC `to` that `address` is at `source_mac`."""
    what = 1, ETH_TYPE_IPV4, 6, 4, ARP_REPLY
    return _ARP.pack(to, source_mac, ETH_TYPE_ARP, *what, source_mac, address, to, address)


def may_not_be_fragmented(frame: bytes) -> bool:
    """Of a frame with an IP packet: no router may cut it up (IPv4: don't fragment; IPv6: always)."""
    return frame[12:14] == b"\x86\xdd" or bool(frame[ETHERNET_HEADER + 6] & 0x40)


def with_eth_dst(frame: bytes, mac: bytes) -> bytes:
    """The frame, sent to `mac` instead."""
    return mac + frame[6:]


def checksum(data: bytes) -> int:
    """The Internet checksum of RFC 1071; 0 for data that carries its own right checksum."""
    if len(data) & 1:
        data += b"\0"
    # 2**16 is 1 modulo 0xffff, so the remainder of the whole number is the ones' complement sum of its words.
    total = int.from_bytes(data) % 0xFFFF
    if total == 0 and any(data):
        return 0
    return 0xFFFF - total


def _check_ipv4(version_ihl: int, header: int, total: int, frame_length: int) -> None:
    if version_ihl >> 4 != 4:
        raise Malformed("bad IP version")
    if header < 20 or total < header:
        raise Malformed("bad IPv4 header length")
    if ETHERNET_HEADER + total > frame_length:
        raise Malformed("truncated")


@lru_cache(maxsize=10_000)
def parse_mac(text: str) -> bytes:
    """A MAC as switches and people write it, packed."""
    return bytes.fromhex(text.replace(":", ""))


def arp_question(source_mac: bytes, destination_mac: bytes, spa: bytes, tha: bytes, tpa: bytes) -> bytes:
    """An ARP request with any contents."""
    what = 1, ETH_TYPE_IPV4, 6, 4, ARP_REQUEST
    return _ARP.pack(destination_mac, source_mac, ETH_TYPE_ARP, *what, source_mac, spa, tha, tpa)
