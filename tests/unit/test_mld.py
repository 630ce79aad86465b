"""Multicast listener reports, byte by byte (RFC 3810 5.2, RFC 2711), and queries."""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from ipaddress import IPv6Address
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.frames import mld
from lbctl.frames.discovery import link_local, multicast_mac, solicited_node
from lbctl.frames.packets import Malformed, transport_checksum
from lbctl.networks.queries import Queries
from lbctl.openflow.inbound import PacketIn
from lbctl.openflow.ports import Port, Ports
from lbctl.openflow.rules import SERVING
from tests.bed.sites import simple_site
from tests.unit.fake_ground import fake_ground

MAC, ADDRESS = bytes.fromhex("0200000000a1"), IPv6Address("2001:db8::1:2345").packed


def test_a_report_names_the_group_of_each_address() -> None:
    frame = mld.report(MAC, [ADDRESS, link_local(MAC)])
    assert frame[:14].hex() == "333300000016" + MAC.hex() + "86dd"
    assert (frame[20], frame[21]) == (0, 1), "a hop-by-hop header comes next; hop limit 1"
    assert int.from_bytes(frame[18:20]) == len(frame) - 54
    assert frame[54:62].hex() == "3a00050200000100", "router alert for MLD"
    body = frame[62:]
    assert body[:2].hex() == "8f00" and body[4:8].hex() == "00000002"
    assert body[8:28].hex() == "04000000" + "ff0200000000000000000001ff012345"
    assert body[28:].hex() == "04000000" + "ff0200000000000000000001ff0000a1"
    assert transport_checksum(58, frame[22:38], frame[38:54], body) == 0


# Queries, and what answers them.

GROUP = IPv6Address("ff02::1:ff01:2345").packed


def query(group: bytes = bytes(16), code: int = 1000, old: bool = False, **head: int) -> bytes:
    """A frame, from fe80::99; head: hop_limit, source (its first two bytes)."""
    source = IPv6Address("fe80::99").packed
    source = head.get("source", 0xFE80).to_bytes(2) + source[2:]
    to = group if any(group) else IPv6Address("ff02::1").packed
    message = struct.pack("!BBHHH", 130, 0, 0, code, 0) + group + (b"" if old else bytes(4))
    total = transport_checksum(58, source, to, message)
    body = bytes.fromhex("3a00050200000100") + message[:2] + total.to_bytes(2) + message[4:]
    head_ = struct.pack("!IHBB", 6 << 28, len(body), 0, head.get("hop_limit", 1)) + source + to
    return multicast_mac(to) + MAC + b"\x86\xdd" + head_ + body


def test_queries_are_read() -> None:
    assert mld.decode_query(query()) == (None, 1.0, False)
    assert mld.decode_query(query(GROUP, 10_000, old=True)) == (GROUP, 10.0, True)
    assert mld.decode_query(query(code=0x8000)).delay == 32.768
    assert mld.decode_query(query(code=0xFFFF)).delay == (0x1FFF << 10) / 1000, "RFC 3810 5.1.3"
    assert mld.decode_query(query(code=0xFFFF, old=True)).delay == 65.535


@pytest.mark.parametrize("frame", [query(hop_limit=64), query(source=0x2001), query()[:80], query()[:-5] + b"xxxxx",
                                   mld.report(MAC, [ADDRESS]), b""])
def test_what_is_no_query_of_this_network_is_refused(frame: bytes) -> None:
    with pytest.raises(Malformed):
        mld.decode_query(frame)


@given(st.binary(max_size=150), st.integers(0, 90))
def test_any_bytes_are_a_query_or_malformed(junk: bytes, keep: int) -> None:
    with contextlib.suppress(Malformed):
        mld.decode_query(query()[:keep] + junk)


def test_answers_fit_into_packets_and_old_queriers_get_old_reports() -> None:
    groups = [solicited_node(IPv6Address(number).packed) for number in range(200)]
    frames = list(mld.answers(MAC, groups, old=False))
    assert [int.from_bytes(frame[68:70]) for frame in frames] == [70, 70, 60]
    assert all(len(frame) <= 1514 and frame[62] == 143 and frame[70] == 2 for frame in frames)
    [old] = mld.answers(MAC, [GROUP], old=True)
    assert (old[:6], old[38:54], old[62], old[70:]) == (multicast_mac(GROUP), GROUP, 131, GROUP)
    assert transport_checksum(58, old[22:38], old[38:54], old[62:]) == 0


class World:
    """lb-a, with one IPv6 external IP and its gateway."""

    def __init__(self) -> None:
        ips = [SimpleNamespace(address=ip.address, config=ip, assigned=ip.load_balancer)
               for ip in simple_site(external_ips=2, servers=1, version=6).external_ips]
        self.switch = SimpleNamespace(
            lb=SimpleNamespace(name="lb-a"), ready=True, counters=Counter(), role=lambda address: SERVING,
            of_ports=Ports(Port(1, MAC.hex(":")), Port(2, "02:00:00:00:00:a2")))
        self.queries = Queries(fake_ground({"lb-a": self.switch}, ips))

    def ask(self, frame: bytes, now: float, port: int = 1) -> None:
        self.queries.asked(self.switch, PacketIn(0, 0, None, port, frame), now)

    def answers(self, until: float, begin: float = 0.0) -> list[tuple[float, set[str]]]:
        """When, and the groups that are named."""
        found = []
        for tick in range(int((until - begin) * 20)):
            now = begin + tick / 20
            for lb, message in self.queries.tick(now):
                assert lb == "lb-a"
                records = message.frame[70:]
                found.append((now, {str(IPv6Address(records[at + 4:at + 20])) for at in range(0, len(records), 20)}))
        return found


def test_a_query_is_answered_in_time_with_all_groups() -> None:
    for port, group in ((1, "ff02::1:ff00:1"), (2, "ff02::1:ff00:1")):
        world = World()
        world.ask(query(code=10_000), 0.0, port)
        [(at, groups)] = world.answers(10.0)
        assert at < 10.0 and group in groups and len(groups) == 2, "and its own link-local address's"
        assert "ff02::1:ff00:2" not in groups, "what is at the other LB"


def test_a_query_for_one_group_is_answered_if_it_is_ours() -> None:
    world = World()
    world.ask(query(IPv6Address("ff02::1:ff00:1").packed), 0.0)
    world.ask(query(IPv6Address("ff02::1:ff00:2").packed), 0.0)
    [(_, groups)] = world.answers(5.0)
    assert groups == {"ff02::1:ff00:1"}
    world.ask(query(IPv6Address("ff02::1:ff00:2").packed), 5.0)
    assert world.answers(9.0, 5.0) == []


def test_a_storm_of_queries_costs_an_answer_a_second() -> None:
    world = World()
    found = []
    for tick in range(400):
        for _ in range(20):
            world.ask(query(code=tick % 2), tick / 20)
        found += world.answers((tick + 1) / 20, tick / 20)
    assert 19 <= len(found) <= 21


def test_what_is_no_query_is_counted() -> None:
    world = World()
    before = world.switch.counters["dropped_malformed"]
    world.ask(query(hop_limit=2), 0.0)
    assert world.switch.counters["dropped_malformed"] == before + 1 and world.answers(12.0) == []
