"""What operators reported of NAT gateways (docs/field.md), each as an experiment: one port towards all outside hosts
(RFC 4787), and records of who had which port (RFC 6888)."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from lbctl.site.model import Site
from tests.bed.bed import Bed
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.sites import simple_site, with_nat_gateway
from tests.integration.hands import eventually, metric
from tests.integration.moving import STRATEGIES

GATEWAY = "198.51.100.200"
INSIDE = ("10.0.0.201", "10.0.0.202")
OUTSIDE = ("203.0.113.1", "203.0.113.2", "203.0.113.3")
PORT = 3478
SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 2.0, "time_wait": 2.0}
PLAIN = simple_site(external_ips=1, settings=SETTINGS)
DEPENDENT = with_nat_gateway(PLAIN)


def independent(filtering: str = "endpoint-independent", **changes: object) -> Site:
    return with_nat_gateway(PLAIN, mapping="endpoint-independent", filtering=filtering, **changes)


BED = {"site": independent(), "inside": INSIDE, "remote_addresses": len(OUTSIDE)}


@dataclass
class Host:
    """A UDP socket of one host."""

    socket: socket.socket

    def send(self, text: bytes, to: tuple[str, int]) -> None:
        self.socket.sendto(text, to)

    def receive(self, timeout: float = limit(3.0)) -> tuple[bytes, tuple[str, int]]:
        """The datagram and who has sent it. Raises TimeoutError, or ConnectionRefusedError after an ICMP error."""
        self.socket.settimeout(timeout)
        return self.socket.recvfrom(100)

    def hears_nothing(self) -> bool:
        try:
            self.receive(0.5)
        except TimeoutError:
            return True
        return False


@contextlib.contextmanager
def host(space: Namespace, address: str, port: int) -> Iterator[Host]:
    with space.call(lambda: socket.socket(type=socket.SOCK_DGRAM)) as opened:
        opened.bind((address, port))
        yield Host(opened)


@contextlib.contextmanager
def outside(bed: Bed, port: int = PORT) -> Iterator[list[Host]]:
    """Three hosts there."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(host(bed.remote, address, port)) for address in OUTSIDE]


def seen_by(inside: Host, outside_host: Host, address: str, port: int = PORT) -> tuple[str, int]:
    """Who the outside host says that the inside host is (STUN, RFC 8489)."""
    inside.send(b"who am I?", (address, port))
    text, sender = outside_host.receive()
    assert text == b"who am I?"
    return sender


def use(bed: Bed, site: Site) -> None:
    """Another site file, at once."""
    before = bed.controller.logged("site applied")
    bed.controller.reload(site)
    eventually(bed, lambda: bed.controller.logged("site applied") > before, "the site file is applied")
    bed.wait_ready()


# One port towards all (F20).

def test_all_outside_hosts_see_one_port_and_a_third_may_answer_to_it(live: Bed) -> None:
    with outside(live) as (one, two, three), host(live.inside[0], INSIDE[0], 5000) as inside:
        place = seen_by(inside, one, OUTSIDE[0])
        assert place == (GATEWAY, 5000), "the inside port is kept"
        assert seen_by(inside, two, OUTSIDE[1]) == place
        three.send(b"hello from a third", place)
        assert inside.receive() == (b"hello from a third", (OUTSIDE[2], PORT))
        inside.send(b"hello", (OUTSIDE[2], PORT))
        assert three.receive() == (b"hello", place)


def test_by_default_each_destination_sees_another_port_and_a_third_is_refused(fresh: Bed) -> None:
    """The twin: what NAT gateways do that nobody has asked for more."""
    use(fresh, DEPENDENT)
    with outside(fresh) as (one, two, three), host(fresh.inside[0], INSIDE[0], 5001) as inside:
        place = seen_by(inside, one, OUTSIDE[0])
        assert seen_by(inside, two, OUTSIDE[1]) != place
        three.send(b"hello from a third", place)
        assert inside.hears_nothing()


def test_address_dependent_filtering_lets_in_whom_the_inside_host_has_asked(fresh: Bed) -> None:
    use(fresh, independent("address-dependent"))
    with (
        outside(fresh) as (one, _, three),
        host(fresh.remote, OUTSIDE[0], 9999) as other_port,
        host(fresh.inside[0], INSIDE[0], 5002) as inside,
    ):
        place = seen_by(inside, one, OUTSIDE[0])
        three.send(b"stranger", place)
        assert inside.hears_nothing()
        other_port.send(b"friend", place)
        assert inside.receive() == (b"friend", (OUTSIDE[0], 9999))


def test_a_port_that_is_taken_is_not_given_twice(live: Bed) -> None:
    """Two inside hosts with the same port: the second gets another, and each gets what is sent to its own."""
    with (
        outside(live) as (one, two, _),
        host(live.inside[0], INSIDE[0], 5003) as first,
        host(live.inside[1], INSIDE[1], 5003) as second,
    ):
        place, other = seen_by(first, one, OUTSIDE[0]), seen_by(second, one, OUTSIDE[0])
        assert place == (GATEWAY, 5003) and other[0] == GATEWAY and other[1] != 5003
        assert (seen_by(first, two, OUTSIDE[1]), seen_by(second, two, OUTSIDE[1])) == (place, other)
        two.send(b"for the second", other)
        assert second.receive()[0] == b"for the second" and first.hears_nothing()


def test_nobody_reaches_a_port_that_is_not_mapped(live: Bed) -> None:
    with outside(live) as (one, _, _), pytest.raises(ConnectionRefusedError):
        one.socket.connect((GATEWAY, 5999))
        one.socket.send(b"anybody?")
        one.receive()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_mapping_moves_with_its_entries(live: Bed, strategy: str) -> None:
    with outside(live) as (one, two, three), host(live.inside[0], INSIDE[0], 5010) as inside:
        place = seen_by(inside, one, OUTSIDE[0])
        for target in ("lb-b", "lb-a"):
            assert live.move(GATEWAY, target, strategy)["state"] == "done"
            assert seen_by(inside, two, OUTSIDE[1]) == place
            three.send(b"still there?", place)
            assert inside.receive()[0] == b"still there?"


def test_a_mapping_survives_the_controller_and_the_lb(fresh: Bed) -> None:
    with (
        outside(fresh) as (one, two, three),
        host(fresh.inside[0], INSIDE[0], 5020) as inside,
        host(fresh.inside[1], INSIDE[1], 5020) as rival,
    ):
        place, other = seen_by(inside, one, OUTSIDE[0]), seen_by(rival, one, OUTSIDE[0])
        fresh.restart_controller()
        assert seen_by(inside, two, OUTSIDE[1]) == place and seen_by(rival, two, OUTSIDE[1]) == other
        assert fresh.rest("POST", "/v1/load-balancers/lb-a/failover").status == 202
        eventually(fresh, lambda: fresh.rest("GET", f"/v1/external-ips/{GATEWAY}").json["load_balancer"] == "lb-b",
                   "lb-b has taken it over", 15.0)
        three.send(b"still there?", place)
        assert inside.receive()[0] == b"still there?"
        assert seen_by(rival, three, OUTSIDE[2]) == other


def test_tcp_has_one_port_towards_all_too(live: Bed) -> None:
    """RFC 5382 REQ-1."""
    with contextlib.ExitStack() as stack:
        peers = []
        for address in OUTSIDE[:2]:
            server = stack.enter_context(live.remote.call(lambda: socket.create_server((address, 8000))))  # noqa: B023
            client = stack.enter_context(live.inside[0].call(lambda: socket.socket()))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            client.bind((INSIDE[0], 5030))
            client.settimeout(limit(3.0)), server.settimeout(limit(3.0))
            client.connect((address, 8000))
            accepted, peer = server.accept()
            stack.enter_context(accepted)
            peers.append(peer)
        assert peers == [(GATEWAY, 5030)] * 2


# Records (F22).

def records(bed: Bed) -> list[dict[str, str]]:
    file = bed.controller.directory / "nat.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def of(bed: Bed, inside: str) -> list[str]:
    """What is recorded of that inside address and port."""
    return [record["event"] for record in records(bed) if record["inside"] == inside]


def who_had(bed: Bed, place: tuple[str, int], at: str) -> list[str]:
    file = bed.controller.directory / "nat.jsonl"
    asked = bed.controller.cli("nat-log", f"{place[0]}:{place[1]}", file, "--at", at, "--json")
    assert asked.returncode == 0, asked.stderr
    return [tenure["who"] for tenure in json.loads(asked.stdout)]


def now() -> str:
    return datetime.now(UTC).isoformat()


def test_who_was_it(fresh: Bed) -> None:
    """Two inside hosts, a connection each, closed. Later: who had that port then?"""
    use(fresh, replace(DEPENDENT, nat_log="nat.jsonl", settings=replace(PLAIN.settings, udp_idle_timeout=1.0)))
    with outside(fresh) as (one, _, _):
        with host(fresh.inside[0], INSIDE[0], 5040) as first, host(fresh.inside[1], INSIDE[1], 5040) as second:
            places = [seen_by(each, one, OUTSIDE[0]) for each in (first, second)]
            during = now()
        eventually(fresh, lambda: [of(fresh, f"{address}:5040") for address in INSIDE] == [["opened", "ended"]] * 2,
                   "both ends are recorded", 20.0)
    assert [who_had(fresh, place, during) for place in places] == [[f"{address}:5040"] for address in INSIDE]
    assert [who_had(fresh, place, now()) for place in places] == [[], []]
    [opened, ended] = [record for record in records(fresh) if record["inside"] == f"{INSIDE[0]}:5040"]
    assert opened == {**ended, "event": "opened", "time": opened["time"]} and opened["since"] == ended["since"]
    assert (opened["protocol"], opened["translated"], opened["outside"]) == (
        "udp", f"{GATEWAY}:{places[0][1]}", f"{OUTSIDE[0]}:{PORT}")


def test_moves_and_restarts_tell_nothing_twice_and_a_renamed_file_is_left(fresh: Bed) -> None:
    use(fresh, replace(independent(), nat_log="nat.jsonl"))
    file = fresh.controller.directory / "nat.jsonl"
    with outside(fresh) as (one, two, _), host(fresh.inside[0], INSIDE[0], 5050) as inside:
        seen_by(inside, one, OUTSIDE[0])
        eventually(fresh, lambda: of(fresh, f"{INSIDE[0]}:5050") == ["opened"], "it is recorded")
        assert fresh.move(GATEWAY, "lb-b")["state"] == "done"
        assert fresh.rest("POST", "/v1/load-balancers/lb-b/failover").status == 202
        eventually(fresh, lambda: fresh.rest("GET", f"/v1/external-ips/{GATEWAY}").json["load_balancer"] == "lb-a",
                   "lb-a has taken it over", 15.0)
        file.rename(file.with_suffix(".1"))
        seen_by(inside, two, OUTSIDE[1])
        eventually(fresh, lambda: of(fresh, f"{INSIDE[0]}:5050") == ["opened"], "the second one is in a new file")
        assert records(fresh)[0]["outside"] == f"{OUTSIDE[1]}:{PORT}"
        assert file.stat().st_mode & 0o077 == 0, "nobody else's business"
        fresh.controller.kill()
        fresh.controller.start()
        fresh.wait_ready()
        eventually(fresh, lambda: of(fresh, f"{INSIDE[0]}:5050") == ["opened", "found", "found"], "found again")


def test_a_file_that_cannot_be_written_keeps_nobody_waiting_and_is_counted(fresh: Bed) -> None:
    use(fresh, replace(independent(), nat_log="no-such-directory/nat.jsonl"))
    with outside(fresh) as (one, _, _), host(fresh.inside[0], INSIDE[0], 5060) as inside:
        assert seen_by(inside, one, OUTSIDE[0])[0] == GATEWAY
    name = 'lbctl_controller_events_total{event="dropped_nat_record_not_written"}'
    eventually(fresh, lambda: metric(fresh, name) >= 1, "it is counted")
    assert fresh.controller.wait_log(lambda log: "NAT records lost" in log)
    told = json.loads(fresh.controller.cli("doctor", "--json").stdout)["findings"]
    assert [each["mend"] for each in told if "(nat_record_not_written), each a record of NAT" in each["what"]]
