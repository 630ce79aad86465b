"""ICMP echo (issue 3, point 3), of both IP versions: answered in the switch, translated by a NAT gateway, kept by
moves; fragments."""

from __future__ import annotations

import contextlib
import re
import signal
import struct
import subprocess
import threading
import time

import pytest

from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.traffic import LoadResult, RawPort
from tests.integration import icmp_site
from tests.integration.hands import counters, dropped, external_mac, internal_mac, server_space
from tests.integration.icmp_site import NETS, Net
from tests.integration.moving import STRATEGIES, assert_unharmed, harm, pinned, wait_reached

BED = icmp_site.BED
HEADERS = {4: 28, 6: 48}
"""Bytes of IP and ICMP before an echo's payload."""
ECHO = {4: (8, 0), 6: (128, 129)}
"""Types of request and reply."""


prepare = icmp_site.all_errors


@pytest.fixture(params=NETS.values(), ids=["ipv4", "ipv6"])
def net(request: pytest.FixtureRequest) -> Net:
    return request.param


def inside_hosts(bed: Bed, net: Net) -> list[Namespace]:
    return [space for space in bed.inside if space.name.removeprefix("inside-") in net.inside]


def ping(space: Namespace, address: str, count: int, *options: object) -> tuple[int, int]:
    """`count` requests, all at once: those sent, and replies that came and were right.

    So `ping` waits for the replies as long as it is told (-W). Had it read one while it still had requests to send, it
    would wait for the rest only twice as long as that one took: on a busy machine it would miss some.
    """
    words = ("ping", "-n", "-W", 10, "-c", count, "-l", count, *options, address, "; true")
    said = space.run("sh", "-c", " ".join(map(str, words)), timeout=limit(60))
    found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert found and "wrong" not in said and "DUP" not in said, said
    return int(found[1]), int(found[2])


def echo(net: Net, eth: tuple[str, str], src: str, dst: str, number: int, *, reply: bool = False) -> bytes:
    """An echo with the identifier 7."""
    kind, body = ECHO[net.version][reply], struct.pack("!HH", 7, number) + b"abcdefgh"
    if net.version == 6:
        return frames.icmpv6(eth, src, dst, kind, body)
    message = bytearray(struct.pack("!BBH", kind, 0, 0) + body)
    message[2:4] = frames.checksum(bytes(message)).to_bytes(2)
    return frames.ipv4(eth, src, dst, frames.ICMP, bytes(message))


def echo_numbers(net: Net, raw: bytes) -> tuple[int, int]:
    """Identifier and sequence number."""
    return struct.unpack_from("!HH", raw, 14 + HEADERS[net.version] - 4)


# In the switch.


@pytest.mark.parametrize("size", [0, 1, 777, None])
def test_ping_is_answered_in_the_switch(live: Bed, net: Net, size: int | None) -> None:
    """Of each size up to the largest that fits into one packet: outside, and by what servers know as their gateway or
    client."""
    options = "-s", 1500 - HEADERS[net.version] if size is None else size
    pings = [
        (live.remote, net.plain),
        (live.clients[0], net.full),
        (server_space(live, net.server(net.plain)), f"{net.internal}1"),
        (server_space(live, net.server(net.full)), net.internal_ip(net.full)),
    ]
    ping(*pings[0], 1)  # what was unfinished of another test is over
    before = counters(live)["packet_ins"]
    for space, address in pings:
        assert ping(space, address, 2, *options) == (2, 2)
    assert counters(live)["packet_ins"] == before


def test_ping_is_answered_without_a_controller(live: Bed, net: Net) -> None:
    live.controller.kill()
    assert ping(live.clients[0], net.plain, 3) == (3, 3)


def test_the_answer_to_a_ping_is_right_to_the_byte(live: Bed, net: Net) -> None:
    with RawPort(live.clients[0], "eth0") as port:
        port.send(echo(net, (port.mac, external_mac(live, "lb-a")), net.near_client, net.plain, 77))
        answer = port.receive(lambda frame: frame.icmp_type == ECHO[net.version][1])
        assert answer is not None and answer.checksums_right
        assert (answer.eth_src, answer.eth_dst) == (external_mac(live, "lb-a"), port.mac)
        assert (str(answer.src), str(answer.dst), answer.ttl) == (net.plain, net.near_client, 64)
        assert echo_numbers(net, answer.raw) == (7, 77) and answer.raw.rstrip(b"\0").endswith(b"abcdefgh")


def test_a_traceroute_by_echo_ends_at_the_lb(live: Bed, net: Net) -> None:
    """The LB is who answers: also a request whose TTL ends there."""
    assert ping(live.clients[0], net.plain, 1, "-t", 1) == (1, 1)
    assert ping(live.remote, net.plain, 1, "-t", 2) == (1, 1)


def test_ping_of_an_external_ip_elsewhere_gets_host_unreachable(live: Bed, net: Net) -> None:
    with RawPort(live.clients[0], "eth0") as port:
        port.send(echo(net, (port.mac, external_mac(live, "lb-b")), net.near_client, net.plain, 1))
        answer = port.receive(lambda frame: frame.icmp_type in (1, 3))
        assert answer is not None and (answer.icmp_type, answer.icmp_code) == ((3, 1) if net.version == 4 else (1, 3))


# Through a NAT gateway.


def test_inside_hosts_ping_the_outside(live: Bed, net: Net) -> None:
    for size in (0, 56, 1500 - HEADERS[net.version]):
        for host in inside_hosts(live, net):
            assert ping(host, net.client, 3, "-s", size) == (3, 3)


def test_a_traceroute_by_echo_goes_through_the_nat_gateway(live: Bed, net: Net) -> None:
    host = inside_hosts(live, net)[0]
    said = [host.run("sh", "-c", f"ping -n -c 1 -W 10 -t {ttl} {net.client}; true") for ttl in (1, 2, 3)]
    senders = [re.search(r"From (\S+) .*(Time to live exceeded|Hop limit)", text) for text in said[:2]]
    assert [found and found[1] for found in senders] == [net.gateway_inside, net.lbs_router]
    assert "1 received" in said[2]


def test_two_inside_hosts_with_one_identifier_are_kept_apart(live: Bed, net: Net) -> None:
    """Raw requests with the same identifier at the same time: each host gets its own replies."""
    with contextlib.ExitStack() as stack:
        hosts = [(number, stack.enter_context(RawPort(space, "eth0")), address)
                 for number, (space, address) in enumerate(zip(inside_hosts(live, net), net.inside, strict=True), 1)]
        for number, port, address in hosts:
            port.send(echo(net, (port.mac, internal_mac(live, "lb-a")), address, net.client, number))
        for number, port, address in hosts:
            answer = port.receive(lambda frame: frame.icmp_type == ECHO[net.version][1])
            assert answer is not None and answer.checksums_right and str(answer.dst) == address
            assert echo_numbers(net, answer.raw) == (7, number)


def test_a_reply_that_nobody_asked_for_is_dropped(live: Bed, net: Net) -> None:
    before = dropped(live, "icmp_no_echo")
    with RawPort(live.clients[0], "eth0") as port:
        port.send(echo(net, (port.mac, external_mac(live, "lb-a")), net.near_client, net.gateway, 1, reply=True))
        live.wait_until(lambda: dropped(live, "icmp_no_echo") == before + 1, 3, "it is counted")


# Moves.


class Ping:
    """A request every 10 ms until stop(), as a load."""

    def __init__(self, space: Namespace, address: str) -> None:
        self._process = space.popen("ping", "-n", "-i", "0.01", address, stdout=subprocess.PIPE)
        self._lines: list[str] = []
        self._reader = threading.Thread(target=lambda: self._lines.extend(self._process.stdout))
        self._reader.start()
        self.lost: set[int] = set()

    @property
    def replies(self) -> int:
        """So far."""
        return len(self._lines)

    def stop(self) -> LoadResult:
        """A failure is a request without a reply, while a later one had its own.

        There are 20 replies more before it stops, however long they take: so what was sent until now has been decided.
        """
        enough, deadline = len(self._lines) + 20, time.monotonic() + limit(10)
        while len(self._lines) < enough and time.monotonic() < deadline:
            time.sleep(0.01)
        self._process.send_signal(signal.SIGINT)
        self._process.wait(limit(10))
        self._reader.join()
        text = "".join(self._lines)
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) .*time=", text)}
        decided = max(answered) if len(self._lines) >= enough else int(re.search(r"(\d+) packets transmitted", text)[1])
        self.lost = set(range(1, decided + 1)) - answered
        return LoadResult((), len(answered), tuple(f"request {number}" for number in sorted(self.lost)), {}, 0.0)


def pings(bed: Bed, net: Net, address: str) -> list[Ping]:
    """To an external IP, or from two inside hosts through the NAT gateway."""
    pinging = inside_hosts(bed, net) if address == net.gateway else [bed.clients[0], bed.remote]
    running = [Ping(space, net.client if address == net.gateway else address) for space in pinging]
    bed.wait_until(lambda: all(ping.replies > 3 for ping in running), 5, "replies")
    return running


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_ping_is_lost_while_its_external_ip_moves(live: Bed, net: Net, strategy: str) -> None:
    wait_reached(live)
    running = pings(live, net, net.plain) + pings(live, net, net.gateway)
    for target in ("lb-b", "lb-a"):
        for address in (net.plain, net.gateway):
            assert live.move(address, target, strategy)["state"] == "done"
    assert_unharmed(running, succeeded=50)


def test_twin_the_route_alone_loses_pings(live: Bed, net: Net) -> None:
    """A client that goes to the new LB before it has the external IP. (A naive order of steps is not enough: an echo
    needs no entry.)"""
    [ping_, _] = running = pings(live, net, net.plain)
    with pinned(live.clients[0], net.plain, external_mac(live, "lb-b")):
        time.sleep(0.3)
    harm(running)
    assert len(ping_.lost) >= 10


# Fragments.


def test_pings_larger_than_a_packet_are_answered(live: Bed, net: Net) -> None:
    """Outside, inside, and through the NAT gateway: the controller translates fragments."""
    [host, *_] = inside_hosts(live, net)
    for space, address in ((live.remote, net.plain), (live.clients[0], net.full),
                           (server_space(live, net.server(net.plain)), f"{net.internal}1"),
                           (server_space(live, net.server(net.full)), net.internal_ip(net.full)),
                           (host, net.client)):
        assert ping(space, address, 2, "-s", 3000) == (2, 2)
