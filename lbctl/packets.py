"""Frames at the controller: decoding the ones that a switch sends, building the ones that it shall send.

Every packet that makes a connection passes through `decode`, so it is one or two `struct` calls and no
classes of headers. MAC addresses are 6 bytes, IPv4 addresses 4 bytes (`IPv4Address.packed`).

The decoders take any bytes. What they refuse they raise as `Malformed`, whose `reason` is one of a
few constant strings (a counter for each is safe), and they raise nothing else. Checksums are not
looked at: hosts with checksum offload hand over frames without one, and the receiver checks it anyway.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

ETH_TYPE_IPV4 = 0x0800
ETH_TYPE_ARP = 0x0806

PROTOCOL_ICMP = 1
PROTOCOL_TCP = 6

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

ARP_REQUEST, ARP_REPLY = 1, 2

NET_UNREACHABLE, HOST_UNREACHABLE, PROTOCOL_UNREACHABLE, PORT_UNREACHABLE = 0, 1, 2, 3
"""Codes of ICMP destination unreachable (RFC 792)."""

BROADCAST_MAC = b"\xff" * 6

_ETHERNET = Struct("!6s6sH")
_ETHERNET_IPV4 = Struct("!6s6sHBBHHHBBH4s4s")
_IPV4 = Struct("!BBHHHBBH4s4s")
_TCP = Struct("!HHIIBBHHH")
_TCP_START = Struct("!HHIIBB")
_ICMP = Struct("!BBHI")
_ARP = Struct("!6s6sHHHBBH6s4s6s4s")

_IP = 14
"""Where the IPv4 header starts in a frame."""
_DONT_FRAGMENT = 0x4000
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
_FRAGMENT_OFFSET = 0x1FFF
_TTL = 64
_TOS_INTERNETWORK_CONTROL = 0xC0
_ICMP_UNREACHABLE = 3
_ICMP_QUERIES = frozenset((0, 8, 13, 14, 15, 16, 17, 18))
"""ICMP types that are no errors; a type that is not known might be one."""
_ICMP_ERROR_LIMIT = 576
"""Longest IPv4 packet that an ICMP error may be (RFC 1812 4.3.2.3)."""


class Malformed(ValueError):
    """A frame that cannot be decoded, or that no sane host sends."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Packet(NamedTuple):
    """A decoded IPv4 packet. What a protocol other than TCP does not have is None (ports) or 0."""

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
    """Where in the frame the transport's payload starts (the IPv4 payload, if not TCP)."""
    payload_length: int
    """Bytes of payload, without Ethernet padding."""
    ttl: int


class Arp(NamedTuple):
    """A decoded ARP packet; field names as in RFC 5227."""

    op: int
    sha: bytes
    spa: bytes
    tha: bytes
    tpa: bytes


def decode(frame: bytes) -> Packet:
    """Decode an untagged Ethernet frame with an IPv4 packet. Raises Malformed, also for fragments."""
    if len(frame) < 34:
        raise Malformed("truncated")
    (eth_dst, eth_src, eth_type, version_ihl, _, total, _, fragment, ttl, protocol, _, src, dst) = (
        _ETHERNET_IPV4.unpack_from(frame)
    )
    if eth_type != ETH_TYPE_IPV4:
        raise Malformed("not IPv4")
    header = (version_ihl & 0x0F) * 4
    _check_ipv4(version_ihl, header, total, len(frame))
    if fragment & _MORE_FRAGMENTS_OR_OFFSET:
        raise Malformed("fragment")
    if eth_src[0] & 1 or not _is_host(src):
        raise Malformed("source is not a host")
    start = _IP + header
    if protocol != PROTOCOL_TCP:
        return Packet(eth_dst, eth_src, protocol, src, dst, None, None, 0, 0, 0, start, total - header, ttl)
    if total - header < 20:
        raise Malformed("truncated TCP header")
    src_port, dst_port, seq, ack, offset, flags = _TCP_START.unpack_from(frame, start)
    tcp_header = (offset >> 4) * 4
    length = total - header - tcp_header
    if tcp_header < 20 or length < 0:
        raise Malformed("bad TCP header length")
    return Packet(
        eth_dst, eth_src, protocol, src, dst, src_port, dst_port, flags, seq, ack, start + tcp_header, length, ttl
    )


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
    ttl: int = _TTL,
) -> bytes:
    """A frame with one TCP segment without options, checksums included."""
    window = 0 if flags & RST else 0xFFFF
    length = 20 + len(payload)
    pseudo_header = src + dst + Struct("!HH").pack(PROTOCOL_TCP, length)
    head = _TCP.pack(src_port, dst_port, seq, ack, 5 << 4, flags, window, 0, 0)
    total = checksum(pseudo_header + head + payload)
    head = _TCP.pack(src_port, dst_port, seq, ack, 5 << 4, flags, window, total, 0)
    ip = _ipv4_header(PROTOCOL_TCP, src, dst, length, ttl=ttl)
    return _ETHERNET.pack(eth_dst, eth_src, ETH_TYPE_IPV4) + ip + head + payload


def tcp_reset(packet: Packet, source_mac: bytes) -> bytes | None:
    """The frame with the RST that answers a segment for which there is no connection (RFC 9293 3.10.7.1).

    None where no answer is allowed: to a RST, to what is not TCP, to broadcast and multicast.
    """
    if packet.protocol != PROTOCOL_TCP or packet.tcp_flags & RST:
        return None
    if packet.eth_dst[0] & 1 or not _is_host(packet.dst):
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


def icmp_unreachable(frame: bytes, code: int, source_mac: bytes, source: bytes) -> bytes | None:
    """The frame with an ICMP destination unreachable from `source` that answers the IPv4 packet in `frame`.

    None where RFC 1122 3.2.2 forbids one: to an ICMP error, to broadcast and multicast, to a fragment
    other than the first, to a source that is not one host; and to a malformed frame.
    """
    answerable = _answerable(frame)
    if answerable is None:
        return None
    eth_src, src, quoted = answerable
    quoted = quoted[: _ICMP_ERROR_LIMIT - 20 - 8]
    total = checksum(_ICMP.pack(_ICMP_UNREACHABLE, code, 0, 0) + quoted)
    icmp = _ICMP.pack(_ICMP_UNREACHABLE, code, total, 0) + quoted
    ip = _ipv4_header(PROTOCOL_ICMP, source, src, len(icmp), tos=_TOS_INTERNETWORK_CONTROL)
    return _ETHERNET.pack(eth_src, source_mac, ETH_TYPE_IPV4) + ip + icmp


def arp_probe(source_mac: bytes, target: bytes) -> bytes:
    """A broadcast ARP request without a sender address (RFC 5227): asks for a MAC, changes no one's ARP cache."""
    return _arp(source_mac, ARP_REQUEST, bytes(4), target)


def arp_announcement(source_mac: bytes, address: bytes) -> bytes:
    """A gratuitous ARP request (RFC 5227): tells everyone that `address` is at `source_mac` now."""
    return _arp(source_mac, ARP_REQUEST, address, address)


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
    if _IP + total > frame_length:
        raise Malformed("truncated")


def _is_host(address: bytes) -> bool:
    """Whether the address can be one host's: not 0/8, loopback, multicast, reserved or broadcast."""
    return address[0] < 224 and address[0] != 0 and address[0] != 127


def _answerable(frame: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Source MAC, source address and IPv4 packet of a frame that may be answered with an ICMP error."""
    if len(frame) < 34:
        return None
    (eth_dst, eth_src, eth_type, version_ihl, _, total, _, fragment, _, protocol, _, src, dst) = (
        _ETHERNET_IPV4.unpack_from(frame)
    )
    header = (version_ihl & 0x0F) * 4
    try:
        _check_ipv4(version_ihl, header, total, len(frame))
    except Malformed:
        return None
    if eth_type != ETH_TYPE_IPV4 or fragment & _FRAGMENT_OFFSET:
        return None
    if (eth_dst[0] | eth_src[0]) & 1 or not _is_host(src) or not _is_host(dst):
        return None
    if protocol == PROTOCOL_ICMP and (total == header or frame[_IP + header] not in _ICMP_QUERIES):
        return None
    return eth_src, src, frame[_IP : _IP + total]


def _ipv4_header(protocol: int, src: bytes, dst: bytes, length: int, *, tos: int = 0, ttl: int = _TTL) -> bytes:
    header = _IPV4.pack(0x45, tos, 20 + length, 0, _DONT_FRAGMENT, ttl, protocol, 0, src, dst)
    return _IPV4.pack(0x45, tos, 20 + length, 0, _DONT_FRAGMENT, ttl, protocol, checksum(header), src, dst)


def _arp(source_mac: bytes, op: int, spa: bytes, tpa: bytes) -> bytes:
    return _ARP.pack(
        BROADCAST_MAC, source_mac, ETH_TYPE_ARP, 1, ETH_TYPE_IPV4, 6, 4, op, source_mac, spa, bytes(6), tpa
    )
