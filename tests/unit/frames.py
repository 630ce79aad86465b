"""Frames for tests of what decodes and builds them: right ones, nearly right ones, and a checksum that is computed
otherwise."""

from __future__ import annotations

from ipaddress import IPv6Address

from hypothesis import strategies as st

from lbctl.frames import packets
from lbctl.frames.packets import SYN

CLIENT_MAC, LB_MAC = bytes.fromhex("02000000c001"), bytes.fromhex("020000000001")
CLIENT, EXTERNAL, GATEWAY = bytes([203, 0, 113, 7]), bytes([198, 51, 100, 1]), bytes([10, 0, 0, 1])
CLIENT_V6, EXTERNAL_V6, GATEWAY_V6 = (IPv6Address(text).packed for text in ("2001:db8:c::7", "2001:db8::1", "fd00::1"))

macs = st.binary(min_size=6, max_size=6)
host_macs = macs.filter(lambda mac: not mac[0] & 1)
hosts_v4 = st.builds(lambda first, rest: bytes([first]) + rest, st.sampled_from([1, 10, 126, 128, 223]),
                     st.binary(min_size=3, max_size=3))
hosts_v6 = st.builds(lambda first, rest: bytes([first]) + rest, st.sampled_from([0x20, 0xFD, 0xFE]),
                     st.binary(min_size=15, max_size=15))
ports = st.integers(0, 0xFFFF)
numbers = st.integers(0, 0xFFFFFFFF)


def segment(**fields) -> bytes:
    """A SYN of the client, IPv4."""
    fields = {"flags": SYN, "seq": 100} | fields
    return packets.tcp_segment(LB_MAC, CLIENT_MAC, CLIENT, 40000, EXTERNAL, 80, **fields)


def segment_v6(**fields) -> bytes:
    """A SYN of the client, IPv6."""
    fields = {"flags": SYN, "seq": 100} | fields
    return packets.tcp_segment(LB_MAC, CLIENT_MAC, CLIENT_V6, 40000, EXTERNAL_V6, 80, **fields)


def datagram(
    src: bytes = CLIENT,
    dst: bytes = EXTERNAL,
    src_port: int = 40000,
    dst_port: int = 53,
    payload: bytes = b"?",
    eth_dst: bytes = LB_MAC,
    eth_src: bytes = CLIENT_MAC,
    ttl: int = 64,
) -> bytes:
    """A UDP datagram of the client, IPv4 or IPv6 by the addresses."""
    return packets.udp_datagram(eth_dst, eth_src, src, src_port, dst, dst_port, payload, ttl=ttl)


def patched(frame: bytes, changes: dict[int, int]) -> bytes:
    """The frame with other bytes at some places."""
    changed = bytearray(frame)
    for position, value in changes.items():
        changed[position] = value
    return bytes(changed)


def with_extension(frame: bytes, kind: int, size: int = 8) -> bytes:
    """An IPv6 frame with one more extension header of `size` bytes (a multiple of 8) in front of all others."""
    header = bytes([frame[20], size // 8 - 1]) + bytes(size - 2)
    length = int.from_bytes(frame[18:20]) + size
    return frame[:18] + length.to_bytes(2) + bytes([kind]) + frame[21:54] + header + frame[54:]


@st.composite
def segments(draw, versions: tuple[int, ...] = (4, 6)):
    """TCP segments of any hosts."""
    hosts = hosts_v4 if draw(st.sampled_from(versions)) == 4 else hosts_v6
    return packets.tcp_segment(LB_MAC, draw(host_macs), draw(hosts), draw(ports), draw(hosts), draw(ports),
                               flags=draw(st.integers(0, 0xFF)), seq=draw(numbers), ack=draw(numbers),
                               payload=draw(st.binary(max_size=60)), ttl=draw(st.integers(0, 255)))


@st.composite
def datagrams(draw):
    """UDP datagrams of any hosts."""
    hosts = draw(st.sampled_from([hosts_v4, hosts_v6]))
    return datagram(draw(hosts), draw(hosts), draw(ports), draw(ports), draw(st.binary(max_size=60)))


@st.composite
def extended(draw):
    """IPv6 frames with extension headers, among them fragments."""
    frame = draw(segments(versions=(6,)))
    for _ in range(draw(st.integers(0, 3))):
        frame = with_extension(frame, draw(st.sampled_from([0, 43, 44, 60])), draw(st.sampled_from([8, 16, 24])))
    return frame


@st.composite
def mutated(draw):
    """Frames near the right ones: some bytes changed, then cut."""
    frame = bytearray(draw(st.one_of(segments(), datagrams(), extended())))
    for _ in range(draw(st.integers(0, 4))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame[: draw(st.integers(0, len(frame)))] if draw(st.booleans()) else frame)


any_frames = st.one_of(st.binary(max_size=120), mutated())


def ones_complement_sum(data: bytes) -> int:
    """RFC 1071 as it is written, for comparison."""
    total = 0
    for i in range(0, len(data), 2):
        total += (data[i] << 8) + (data[i + 1] if i + 1 < len(data) else 0)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksums_are_right(frame: bytes) -> bool:
    """Of a frame with an IP packet without options or extension headers: the header's, and that of what it carries."""
    packet = packets.decode(frame)
    if len(packet.src) == 4:
        if ones_complement_sum(frame[14:34]) != 0xFFFF:
            return False
        start, pseudo = 34, packet.src + packet.dst + bytes([0, packet.protocol]) + (len(frame) - 34).to_bytes(2)
        if packet.protocol == 1:
            pseudo = b""
    else:
        start, pseudo = 54, packet.src + packet.dst + (len(frame) - 54).to_bytes(4) + bytes([0, 0, 0, packet.protocol])
    return ones_complement_sum(pseudo + frame[start:]) == 0xFFFF
