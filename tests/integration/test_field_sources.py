"""Packets from random addresses, as a flood sends them, share cached flows in the switch (docs/field.md). Each cached
flow more is a packet that is looked up in all tables, by the thread that forwards."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from lbctl.openflow import tries
from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.frames import ACK, SYN
from tests.bed.sites import simple_site, together
from tests.bed.traffic import RawPort, connect
from tests.integration.hands import eventually, external_mac, internal_mac, server_space

PACKETS = 400
SHARED = 60
"""At most so many cached flows are theirs: one for each length of prefix that tells them from the few addresses that
are in the tables, and one more near each of those."""
EXTERNAL = {4: "198.51.100.1", 6: "2001:db8:1::1"}
SERVER = {4: "10.0.0.11", 6: "2001:db8:2::11"}
KINDS = {"syn": SYN, "ack": ACK, "udp": None}
"""From outside: kind -> flags of TCP."""
BED = {"site": together(simple_site(1, 1, 1), simple_site(1, 1, 1, version=6)), "clients": 2}


def packets_from_outside(bed: Bed, version: int, kind: str) -> Iterator[bytes]:
    """Each from another address and port."""
    eth = bed.clients[1].mac("eth0"), external_mac(bed, "lb-a")
    for _ in range(PACKETS):
        sender, to, flags = (anywhere(version), random.randrange(1024, 65536)), (EXTERNAL[version], 80), KINDS[kind]
        yield frames.udp(eth, sender, to) if flags is None else frames.tcp(eth, sender, to, flags)


def packets_from_inside(bed: Bed, version: int) -> Iterator[bytes]:
    """A server's answers, each to another address."""
    eth = server_space(bed, SERVER[version]).mac("eth0"), internal_mac(bed, "lb-a")
    for _ in range(PACKETS):
        yield frames.tcp(eth, (SERVER[version], 8080), (anywhere(version), random.randrange(1024, 65536)), ACK)


def anywhere(version: int) -> str:
    """Far from the addresses that are in the tables, most of them."""
    return str(IPv4Address(random.randrange(1 << 31) | 1 << 30) if version == 4
               else IPv6Address(0x2 << 124 | random.getrandbits(124)))


def cached(bed: Bed, version: int, kind: str) -> list[str]:
    """The cached flows of such packets, which have no entry and so are for the controller."""
    lb = bed.lbs["lb-a"].lb
    flags = {"syn": r"tcp_flags\([^)]*\+syn-rst-ack", "ack": r"tcp_flags\([^)]*-syn-rst\+ack", "udp": r"udp\("}
    wanted = (rf"in_port\({lb.internal_port}\).*src={SERVER[version]}\b.*proto=6.*-rst" if kind == "inside"
              else rf"in_port\({lb.external_port}\).*dst={EXTERNAL[version]}\b.*{flags[kind]}")
    lines = bed.lbs["lb-a"].ovs.appctl("dpctl/dump-flows", "-m").splitlines()
    return [line for line in lines if re.search(wanted, line) and "userspace" in line]


def flooded(bed: Bed, version: int, kind: str) -> int:
    """Packets from, or to, random addresses: so many cached flows."""
    bed.lbs["lb-a"].ovs.purge()
    if kind == "inside":
        space, sent = server_space(bed, SERVER[version]), packets_from_inside(bed, version)
    else:
        space, sent = bed.clients[1], packets_from_outside(bed, version, kind)
    with RawPort(space, "eth0") as port:
        port.send(*sent)
    eventually(bed, lambda: sum(map(packets, cached(bed, version, kind))) >= PACKETS, "they have come", 10.0)
    return len(cached(bed, version, kind))


def packets(line: str) -> int:
    """Of that cached flow; the first one is not in its own count."""
    return 1 + int(re.search(r"packets:(\d+)", line)[1])


@pytest.mark.parametrize("version", EXTERNAL)
@pytest.mark.parametrize("kind", ["inside", "udp", "ack", "syn"])
def test_packets_from_random_addresses_share_cached_flows(live: Bed, version: int, kind: str) -> None:
    with connect(live.clients[0], EXTERNAL[version]):
        assert flooded(live, version, kind) < SHARED


@contextlib.contextmanager
def without_trees(bed: Bed) -> Iterator[None]:
    """Tables are as Open vSwitch 3.1 makes them. Changed while no packets pass: it may crash else."""
    ovs = bed.lbs["lb-a"].ovs
    tables = [f"flow_tables:{number}=@plain" for number in tries.FIELDS]
    ovs.vsctl("--id=@plain", "create", "Flow_Table", "prefixes=nw_dst,nw_src", "--", "set", "bridge", "lb-a", *tables)
    try:
        yield
    finally:
        bed.reset()
        ovs.vsctl(*tries.command("lb-a"))


@pytest.mark.parametrize("kind", ["inside", "udp", "ack", "syn"])
def test_without_prefix_trees_each_is_a_cached_flow(quiet_bed: Bed, kind: str) -> None:
    """The naive twin."""
    with without_trees(quiet_bed):
        quiet_bed.start_controller()
        with connect(quiet_bed.clients[0], EXTERNAL[6]):
            assert flooded(quiet_bed, 6, kind) > PACKETS / 2
