"""Frames made and read by hand, for tests: on purpose not by the product's own decoder, whose errors they must find."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
BROADCAST = "ff:ff:ff:ff:ff:ff"
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58


@dataclass(frozen=True)
class Frame:
    """What was read of a frame; fields that it does not have are 0, "" or None."""

    raw: bytes
    eth_src: str
    eth_dst: str
    ethertype: int
    src: IPv4Address | IPv6Address | None = None
    dst: IPv4Address | IPv6Address | None = None
    protocol: int = 0
    ttl: int = 0
    fragment: int = 0
    """Flags and offset as in the header, without "don't fragment"."""
    src_port: int = 0
    dst_port: int = 0
    flags: int = 0
    seq: int = 0
    ack: int = 0
    payload: bytes = b""
    """After the TCP or UDP header; of ICMP what follows the 8 bytes of its header."""
    checksums_right: bool = True
    icmp_type: int | None = None
    icmp_code: int | None = None
    arp_operation: int = 0
    """1 request, 2 reply; then src and dst are its protocol addresses."""
    arp_src_mac: str = ""
    arp_dst_mac: str = ""

    @property
    def answers_arp(self) -> bool:
        """An ARP reply to who has asked; announcements are replies to everybody."""
        return self.arp_operation == 2 and self.eth_dst != BROADCAST


def tagged(frame: bytes, tag: int) -> bytes:
    """With a VLAN tag (802.1Q): priority and VLAN."""
    return frame[:12] + b"\x81\x00" + tag.to_bytes(2) + frame[12:]


def tcp(
    eth: tuple[str, str],
    client: tuple[str, int],
    server: tuple[str, int],
    flags: int,
    *,
    seq: int = 0,
    ack: int = 0,
    payload: bytes = b"",
    ttl: int = 64,
    options: bytes = b"",
) -> bytes:
    """A TCP segment; `eth`, `client`, `server`: (source MAC, destination MAC), source and destination (address,
    port)."""
    words = (20 + len(options)) // 4
    head = struct.pack("!HHIIBBHHH", client[1], server[1], seq, ack, words << 4, flags, 65535, 0, 0) + options
    segment = _with_checksum(head + payload, 16, _pseudo(client[0], server[0], TCP, len(head) + len(payload)))
    return ip(eth, client[0], server[0], TCP, segment, ttl=ttl)


def udp(
    eth: tuple[str, str], client: tuple[str, int], server: tuple[str, int], payload: bytes = b"", *, ttl: int = 64
) -> bytes:
    """A UDP datagram; arguments as of tcp()."""
    datagram = struct.pack("!HHHH", client[1], server[1], 8 + len(payload), 0) + payload
    datagram = _with_checksum(datagram, 6, _pseudo(client[0], server[0], UDP, len(datagram)))
    return ip(eth, client[0], server[0], UDP, datagram, ttl=ttl)


def echo_request(eth: tuple[str, str], src: str, dst: str, *, number: int = 1) -> bytes:
    """An ICMP echo request."""
    return ipv4(eth, src, dst, ICMP, _with_checksum(struct.pack("!BBHHH", 8, 0, 0, 7, number) + b"abcdefgh", 2))


def icmp_error(
    eth: tuple[str, str], src: str, dst: str, kind: tuple[int, int], about: bytes, *, mtu: int = 0
) -> bytes:
    """An ICMP error; kind: type and code; about: the frame (its IP header of 20 bytes) that it quotes, with 8 bytes of
    what follows."""
    message = struct.pack("!BBHHH", *kind, 0, 0, mtu) + about[14:42]
    return ipv4(eth, src, dst, ICMP, _with_checksum(message, 2))


def icmpv6(eth: tuple[str, str], src: str, dst: str, kind: int, body: bytes, *, ttl: int = 64) -> bytes:
    """An ICMPv6 message of code 0; `body`: all after its checksum."""
    message = struct.pack("!BBH", kind, 0, 0) + body
    return ipv6(eth, src, dst, ICMPV6, _with_checksum(message, 2, _pseudo(src, dst, ICMPV6, len(message))), ttl=ttl)


def ip(eth: tuple[str, str], src: str, dst: str, protocol: int, body: bytes, *, ttl: int = 64) -> bytes:
    """An IPv4 or IPv6 packet, as the addresses are."""
    return (ipv6 if ":" in src else ipv4)(eth, src, dst, protocol, body, ttl=ttl)


def ipv6(eth: tuple[str, str], src: str, dst: str, protocol: int, body: bytes, *, ttl: int = 64) -> bytes:
    """An IPv6 packet; ttl: its hop limit."""
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, ttl) + IPv6Address(src).packed + IPv6Address(dst).packed
    return ethernet(eth, 0x86DD, head + body)


def ipv4(
    eth: tuple[str, str],
    src: str,
    dst: str,
    protocol: int,
    body: bytes,
    *,
    ttl: int = 64,
    fragment: int = 0,
    ident: int = 1,
) -> bytes:
    """An IPv4 packet; `fragment`: flags and offset as in the header."""
    fields = (
        0x45,
        0,
        20 + len(body),
        ident,
        fragment,
        ttl,
        protocol,
        0,
        IPv4Address(src).packed,
        IPv4Address(dst).packed,
    )
    return ethernet(eth, 0x0800, _with_checksum(struct.pack("!BBHHHBBH4s4s", *fields), 10) + body)


def fragments(frame: bytes, size: int = 8) -> list[bytes]:
    """An IPv4 frame (header of 20 bytes) cut into fragments with `size` bytes (a multiple of 8) of body each."""
    whole = read(frame)
    body = frame[34:]
    pieces = []
    for offset in range(0, len(body), size):
        more = 0x2000 if offset + size < len(body) else 0
        eth, ends = (whole.eth_src, whole.eth_dst), (str(whole.src), str(whole.dst))
        piece = body[offset : offset + size]
        pieces.append(ipv4(eth, *ends, whole.protocol, piece, ttl=whole.ttl, fragment=more | offset // 8, ident=77))
    return pieces


def arp(eth: tuple[str, str], operation: int, sender: tuple[str, str], target: tuple[str, str]) -> bytes:
    """An ARP packet: operation 1 (request) or 2 (reply); `sender` and `target`: (MAC, address)."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    for mac, address in (sender, target):
        body += _packed(mac) + IPv4Address(address).packed
    return ethernet(eth, 0x0806, body)


def arp_request(mac: str, sender: str, target: str) -> bytes:
    """Who has `target`? Tell `sender` at `mac`."""
    return arp((mac, BROADCAST), 1, (mac, sender), ("00:00:00:00:00:00", target))


def ethernet(eth: tuple[str, str], ethertype: int, body: bytes) -> bytes:
    """An Ethernet frame, padded to 60 bytes; `eth`: (source MAC, destination MAC)."""
    return (_packed(eth[1]) + _packed(eth[0]) + struct.pack("!H", ethertype) + body).ljust(60, b"\0")


def read(raw: bytes) -> Frame:
    """Read a frame; fields beyond what it holds stay empty."""
    ethertype = struct.unpack_from("!H", raw, 12)[0] if len(raw) >= 14 else 0
    base = {"raw": raw, "eth_src": _mac(raw[6:12]), "eth_dst": _mac(raw[:6]), "ethertype": ethertype}
    if ethertype == 0x0806 and len(raw) >= 42:
        operation, sha, spa, tha, tpa = struct.unpack_from("!H6s4s6s4s", raw, 20)
        macs = {"arp_src_mac": _mac(sha), "arp_dst_mac": _mac(tha)}
        return Frame(**base, **macs, arp_operation=operation, src=IPv4Address(spa), dst=IPv4Address(tpa))
    if ethertype == 0x0800 and len(raw) >= 34:
        return Frame(**base, **_read_ipv4(raw[14:]))
    if ethertype == 0x86DD and len(raw) >= 54:
        return Frame(**base, **_read_ipv6(raw[14:]))
    return Frame(**base)


def _read_ipv4(packet: bytes) -> dict:
    header = (packet[0] & 15) * 4
    total, _, fragment, ttl, protocol, _, src, dst = struct.unpack_from("!HHHBBH4s4s", packet, 2)
    body = packet[header:total]
    fields = {"src": IPv4Address(src), "dst": IPv4Address(dst), "protocol": protocol, "ttl": ttl}
    fields |= {"fragment": fragment & 0x3FFF, "checksums_right": checksum(packet[:header]) == 0, "payload": body}
    return fields if fragment & 0x3FFF else _read_transport(fields, body)


def _read_ipv6(packet: bytes) -> dict:
    """Extension headers are not looked into."""
    length, protocol, ttl, src, dst = struct.unpack_from("!HBB16s16s", packet, 4)
    body = packet[40 : 40 + length]
    fields = {
        "src": IPv6Address(src),
        "dst": IPv6Address(dst),
        "protocol": protocol,
        "ttl": ttl,
        "payload": body,
        "checksums_right": True,
    }
    return _read_transport(fields, body)


def _read_transport(fields: dict, body: bytes) -> dict:
    protocol = fields["protocol"]
    pseudo = _pseudo(str(fields["src"]), str(fields["dst"]), protocol, len(body))
    if protocol == TCP and len(body) >= 20:
        names = ("src_port", "dst_port", "seq", "ack")
        fields |= dict(zip(names, struct.unpack_from("!HHII", body), strict=True))
        fields |= {"flags": body[13], "payload": body[(body[12] >> 4) * 4 :]}
        fields["checksums_right"] &= checksum(pseudo + body) == 0
    elif protocol == UDP and len(body) >= 8:
        fields |= dict(zip(("src_port", "dst_port"), struct.unpack_from("!HH", body), strict=True))
        fields["payload"] = body[8:]
        fields["checksums_right"] &= checksum(pseudo + body) == 0
    elif protocol in (ICMP, ICMPV6) and len(body) >= 8:
        fields |= {"icmp_type": body[0], "icmp_code": body[1], "payload": body[8:]}
        fields["checksums_right"] &= checksum(body if protocol == ICMP else pseudo + body) == 0
    return fields


def _pseudo(src: str, dst: str, protocol: int, length: int) -> bytes:
    addresses = ip_address(src).packed + ip_address(dst).packed
    return addresses + (
        struct.pack("!BBH", 0, protocol, length) if len(addresses) == 8 else struct.pack("!II", length, protocol)
    )


def _with_checksum(data: bytes, offset: int, pseudo: bytes = b"") -> bytes:
    return data[:offset] + struct.pack("!H", checksum(pseudo + data)) + data[offset + 2 :]


def checksum(data: bytes) -> int:
    """Internet checksum (RFC 1071): 0 over data that holds a right one. Pseudo headers have an even length."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _mac(packed: bytes) -> str:
    return packed.hex(":")
