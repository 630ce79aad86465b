"""Sliced services: nothing is decided for a new connection, a move copies nothing, slices change hands under load."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from lbctl.openflow.slice_rules import ASKING_SECONDS
from lbctl.site.model import HealthCheck, Site
from tests.bed import faults
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.sites import EXTERNAL_NETWORKS, host, simple_site, with_keepers, with_slices
from tests.bed.traffic import request
from tests.integration.failing import begin, failover_of
from tests.integration.hands import counters, metric, syns_sent_again
from tests.integration.moving import FIRST, Talks, assert_unharmed, mixed_load
from tests.integration.test_field_layer2 import unplugged

SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 1.0}
SERVERS = "10.0.0.11", "10.0.0.12", "10.0.0.13"
DRAINED = f"{SERVERS[0]}:8080"
PORTS = range(20000, 20200)
LOSSY = """
table inet lossy {
    chain out {
        type filter hook output priority 0
        tcp flags & (syn | ack) == syn | ack numgen random mod 5 == 0 drop
    }
}
"""
SILENCE = 3.0
"""Seconds after which an old connection counts as over, where no keeper tells."""


def sliced(version: int = 4, router: bool = True, **plain: Any) -> Site:
    """Each external IP's service is sliced."""
    site = simple_site(settings=SETTINGS, version=version, **plain)
    return with_slices(site, router=host(EXTERNAL_NETWORKS[version], 254) if router else None)


BED = {"site": with_keepers(sliced(servers=3), "sockets")}


def of_services(site: Site, **changes: Any) -> Site:
    return replace(site, external_ips=tuple(
        replace(ip, services=tuple(replace(service, **changes) for service in ip.services))
        for ip in site.external_ips))


def service(bed: Bed) -> dict[str, Any]:
    return bed.rest("GET", f"/v1/external-ips/{FIRST}").json["services"][0]


def drain(bed: Bed, drained: bool, server: str = DRAINED) -> None:
    path = f"/v1/external-ips/{FIRST}/services/tcp/80/servers/{server}"
    reply = bed.rest("PATCH", path, {"drained": drained})
    assert reply.status == 200, reply.text


def slices_of(bed: Bed) -> dict[str, int]:
    return {server["address"]: server["slices"] for server in service(bed)["servers"]}


def divided(bed: Bed, *servers: str) -> bool:
    """Have these servers the slices, and has nobody to wait for anything any more?"""
    having = {server for server, slices in slices_of(bed).items() if slices}
    return having == set(servers) and not service(bed)["slice_changes"]


def wait_divided(bed: Bed, *servers: str, timeout: float = 15.0) -> None:
    bed.wait_until(lambda: divided(bed, *servers), timeout, f"the slices are those of {servers}")


def to_and_fro(bed: Bed) -> None:
    """A server goes, and comes back."""
    drain(bed, True)
    wait_divided(bed, *SERVERS[1:])
    drain(bed, False)
    wait_divided(bed, *SERVERS)


def shown_by(bed: Bed, lb: str = "lb-a") -> str:
    """What that LB has for slices."""
    node = bed.lbs[lb]
    return str(node.ovs.dump_flows(node.bridge, "table=11"))


def plain(bed: Bed) -> bool:
    """Do all slices' packets go by their slices alone, at every LB?"""
    return all(f"priority={priority}" not in shown_by(bed, lb) for lb in bed.lbs for priority in (130, 140))


# In the steady state

def test_slices_are_plain_from_the_beginning(bed: Bed) -> None:
    """What there is at first, while nobody knows which connections have entries, goes."""
    bed.wait_until(lambda: plain(bed), 5, "all slices are plain")
    bed.restart_controller()
    bed.wait_until(lambda: plain(bed), 5, "they are again")


def test_new_connections_are_not_shown_to_the_controller(bed: Bed) -> None:
    for space in (bed.clients[0], bed.remote):
        request(space, FIRST)
    before = counters(bed, "lb-a")["packet_ins"]
    for _ in range(20):
        for space in (bed.clients[0], bed.remote):
            assert request(space, FIRST)["server"]
    assert counters(bed, "lb-a")["packet_ins"] == before


def test_a_move_copies_nothing_and_breaks_nothing(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST)
    for to in ("lb-b", "lb-a"):
        record = bed.move(FIRST, to)
        assert record["state"] == "done" and record["entries_copied"] == 0 and record["packets_held"] == 0, record
    assert_unharmed(loads)


def test_lb_controller_and_keepers_die_at_once(quiet_bed: Bed) -> None:
    """Nothing of a connection needs to be copied. By entries it does: see
    test_copies.py::test_they_die_together_and_nobody_has_a_copy."""
    bed = quiet_bed
    begin(bed)
    with Talks(bed.clients[0], FIRST, 20) as near, Talks(bed.remote, FIRST, 20) as far:
        assert all_die(bed)["entries_from"] == {}
        assert near.broken() == far.broken() == []


def all_die(bed: Bed) -> dict[str, Any]:
    """lb-a, the controller and the keepers at once; the record of the failover when there is a controller again."""
    for keeper in bed.keepers.values():
        keeper.kill()
    bed.controller.kill()
    faults.kill(bed, "lb-a")
    bed.controller.start()
    record: dict[str, Any] = failover_of(bed, timeout=30)
    return record


def test_a_new_controller_leaves_connections_alone(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST)
    bed.restart_controller()
    assert_unharmed(loads)


# Slices change hands

def test_servers_come_and_go_while_connections_run(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST, lines=30, requests=4)
    to_and_fro(bed)
    assert_unharmed(loads)
    bed.wait_until(lambda: plain(bed), 10, "all slices are plain again")


def test_servers_come_and_go_while_a_fifth_of_the_syn_acks_is_lost(bed: Bed) -> None:
    """A SYN that comes again is answered by the server that has answered it before."""
    for space in bed.servers:
        space.run("nft", LOSSY)
    try:
        loads = mixed_load(bed, FIRST, lines=10, requests=8)
        to_and_fro(bed)
        before = syns_sent_again(bed.remote)
        bed.wait_until(lambda: syns_sent_again(bed.remote) > before, 10, "SYNs come again")
        assert_unharmed(loads)
    finally:
        for space in bed.servers:
            space.run("nft", "delete table inet lossy")


def test_servers_come_and_go_while_ports_are_used_again_after_a_second(bed: Bed) -> None:
    with PortCycle(bed.clients[0], FIRST) as near, PortCycle(bed.remote, FIRST) as far:
        to_and_fro(bed)
    assert near.failures == far.failures == [] and min(near.opened, far.opened) > 2 * len(PORTS)


class PortCycle:
    """Connections that are reset by their client, from PORTS in turn. A context manager."""

    def __init__(self, space: Namespace, address: str) -> None:
        self.opened, self.failures = 0, list[str]()
        self._space, self._address = space, address
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(PORTS[part::4],), daemon=True) for part in range(4)]

    def _run(self, ports: Sequence[int]) -> None:
        for port in itertools.cycle(ports):
            if self._ended.is_set():
                return
            with self._space.call(socket.socket) as connection:
                try:
                    self._talk(connection, port)
                except OSError as error:
                    self.failures.append(f"port {port}: {error!r}")

    def _talk(self, connection: socket.socket, port: int) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.settimeout(limit(8.0))
        connection.bind(("", port))
        connection.connect((self._address, 80))
        for _ in range(2):
            connection.sendall(b"hello\n")
            assert connection.recv(100)
            time.sleep(0.01)
        self.opened += 1

    def __enter__(self) -> PortCycle:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_twin_slices_that_change_hands_at_once_break_connections(quiet_bed: Bed) -> None:
    bed = quiet_bed
    bed.controller.apps = ("tests/integration/naive_slices.py", *APPS)
    bed.start_controller()
    with Talks(bed.clients[0], FIRST, 30) as talks:
        drain(bed, True)
        bed.wait_until(lambda: talks.broken(1.0), 5, "connections break")


def test_without_keepers_silence_tells_that_old_connections_are_over(quiet_bed: Bed) -> None:
    """One that is not silent keeps the slice's old server, however long."""
    bed = quiet_bed
    begin(bed, of_services(replace(bed.site, keepers=replace(bed.site.keepers, each=()), external_ips=tuple(
        replace(ip, copies=("controller",)) for ip in bed.site.external_ips)), idle_timeout=SILENCE))
    loads = mixed_load(bed, FIRST, lines=15, requests=2)
    drain(bed, True)
    bed.wait_until(lambda: slices_of(bed)[SERVERS[0]] == 0, 5, "new connections go to others")
    time.sleep(2 * SILENCE)
    assert service(bed)["slice_changes"]
    assert_unharmed(loads)
    wait_divided(bed, *SERVERS[1:])


def test_a_dead_servers_slices_go_to_others_at_once(quiet_bed: Bed) -> None:
    bed = quiet_bed
    check = HealthCheck("tcp", interval=0.5, timeout=0.5, rise=1, fall=2)
    begin(bed, of_services(bed.site, health_check=check))
    bed.wait_until(lambda: metric(bed, 'lbctl_health_checks_total{result="passed"}') > 10, 10, "all have passed checks")
    space = next(space for space in bed.servers if space.name == f"server-{SERVERS[0]}")
    bed.server_scripts[space.name].kill()
    wait_divided(bed, *SERVERS[1:])
    # What the datapath has cached follows.
    bed.wait_until(lambda: {request(bed.clients[0], FIRST)["server"] for _ in range(20)} == set(SERVERS[1:]), 2,
                   "the others serve")


def test_an_external_ip_moves_while_its_slices_change_hands(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST, lines=30, requests=4)
    drain(bed, True)
    assert bed.move(FIRST, "lb-b")["state"] == "done"
    wait_divided(bed, *SERVERS[1:])
    drain(bed, False)
    bed.wait_until(lambda: any(change["step"] == "flipped" for change in service(bed)["slice_changes"]), 10, "flipped")
    assert bed.move(FIRST, "lb-a")["state"] == "done"
    wait_divided(bed, *SERVERS)
    assert_unharmed(loads)


@pytest.mark.parametrize("step", ["narrowed", "switched", "flipped"])
def test_a_controller_that_dies_while_slices_change_hands(bed: Bed, step: str) -> None:
    loads = mixed_load(bed, FIRST, lines=30, requests=0)
    drain(bed, True)
    bed.wait_until(lambda: any(change["step"] == step for change in service(bed)["slice_changes"]), 10, step)
    bed.restart_controller()
    wait_divided(bed, *SERVERS[1:])
    drain(bed, False)
    wait_divided(bed, *SERVERS)
    assert_unharmed(loads, 0)


def test_without_a_controller_new_connections_go_to_the_old_server(bed: Bed) -> None:
    with Talks(bed.clients[0], FIRST, 30) as talks:
        drain(bed, True)
        bed.wait_until(lambda: service(bed)["slice_changes"], 5, "slices change hands")
        bed.controller.kill()
        bed.wait_until(lambda: "hard_timeout" not in shown_by(bed), 2 * ASKING_SECONDS, "SYNs are not shown any more")
        assert {request(bed.clients[0], FIRST)["server"] for _ in range(30)} == set(SERVERS)
        assert talks.broken() == []
        bed.controller.start()
        wait_divided(bed, *SERVERS[1:])
        assert talks.broken() == []


def test_a_service_is_sliced_while_connections_run(quiet_bed: Bed) -> None:
    bed = quiet_bed
    by_connection = of_services(bed.site, entries="connections")
    begin(bed, replace(by_connection, external_ips=tuple(
        replace(ip, router=None) for ip in by_connection.external_ips)))
    loads = mixed_load(bed, FIRST, lines=15, requests=2)
    bed.controller.reload(bed.site)
    bed.wait_until(lambda: service(bed)["entries"] == "slices", 5, "sliced")
    assert_unharmed(loads)

    def costs() -> int:
        """Packets that 20 new connections show to the controller."""
        before = counters(bed)["packet_ins"]
        assert {request(bed.clients[0], FIRST)["server"] for _ in range(20)} == set(SERVERS)
        return counters(bed)["packet_ins"] - before

    bed.wait_until(lambda: costs() == 0, 10, "no slice looks for connections that have entries")


def by_connection(site: Site) -> Site:
    plain = of_services(site, entries="connections", affinity="connection")
    return replace(plain, external_ips=tuple(replace(ip, router=None) for ip in plain.external_ips))


def wait_by_connection(bed: Bed, *external_ips: str) -> None:
    """Nothing of slices is left (of these, or of all), and so connections are counted."""
    addresses = external_ips or [str(ip.address) for ip in bed.site.external_ips]
    for address in addresses:
        bed.wait_until(lambda address=address: bed.rest(
            "GET", f"/v1/external-ips/{address}").json["connections"] is not None, 15, "entries by connection")
        bed.wait_until(lambda address=address: all(f"_dst={address}," not in shown_by(bed, lb) for lb in bed.lbs), 5,
                       "no slice is left")


def test_a_service_gets_entries_by_connection_while_connections_run(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST, lines=30, requests=4)
    bed.controller.reload(by_connection(bed.site))
    wait_by_connection(bed)
    bed.controller.reload(bed.site)
    wait_divided(bed, *SERVERS)
    bed.controller.reload(of_services(bed.site, affinity="client"))
    bed.wait_until(lambda: service(bed)["affinity"] == "client" and divided(bed, *SERVERS), 20, "other slices")
    assert_unharmed(loads)


def test_entries_are_ordered_at_run_time(bed: Bed) -> None:
    """The order lasts over a restart; what it says is shown beside what the site file says."""
    loads = mixed_load(bed, FIRST, lines=20, requests=4)
    said = bed.controller.cli("entries", FIRST, "tcp/80", "connections").stdout
    assert "until the site file says something else than slices" in said
    wait_by_connection(bed, FIRST)
    bed.restart_controller()
    assert (service(bed)["entries"], service(bed)["site_file_entries"]) == ("connections", "slices")
    reply = bed.rest("PATCH", f"/v1/external-ips/{FIRST}/services/tcp/80", {"entries": "slices"})
    assert reply.status == 200 and reply.json["entries"] == "slices", reply.text
    wait_divided(bed, *SERVERS)
    assert_unharmed(loads)


def test_connections_of_a_service_that_is_taken_out_live_on(bed: Bed) -> None:
    """As with entries by connection; also with a new controller."""
    with Talks(bed.clients[0], FIRST, 20) as near, Talks(bed.remote, FIRST, 20) as far:
        other = of_services(by_connection(bed.site), port=81)
        bed.controller.reload(replace(other, external_ips=tuple(replace(ip, services=tuple(
            replace(service, servers=tuple(replace(server, port=8081) for server in service.servers))
            for service in ip.services)) for ip in other.external_ips)))
        bed.wait_until(lambda: service(bed)["port"] == 81, 5, "port 80 is not served any more")
        bed.restart_controller()
        wait_by_connection(bed)
        with pytest.raises(ConnectionError):
            request(bed.clients[0], FIRST)
        assert near.broken() == far.broken() == []


@pytest.mark.parametrize("step", ["narrowed", "switched"])
def test_a_controller_that_dies_while_slices_go(bed: Bed, step: str) -> None:
    loads = mixed_load(bed, FIRST, lines=30, requests=0)
    bed.controller.reload(by_connection(bed.site))
    bed.wait_until(lambda: any(change["step"] == step for change in service(bed)["slice_changes"]), 10, step)
    bed.restart_controller()
    wait_by_connection(bed)
    assert_unharmed(loads, 0)


def test_twin_slices_that_are_gone_at_once_break_connections(quiet_bed: Bed) -> None:
    bed = quiet_bed
    bed.controller.apps = ("tests/integration/naive_slices.py", *APPS)
    bed.start_controller()
    with Talks(bed.clients[0], FIRST, 30) as talks:
        bed.controller.reload(by_connection(bed.site))
        bed.wait_until(lambda: talks.broken(1.0), 10, "connections break")


def test_a_silent_server_gets_no_new_connections(bed: Bed) -> None:
    """It answers no ARP; there is no health check. What it has may go on when it is there again."""
    with unplugged(bed, f"server-{SERVERS[0]}"):
        bed.wait_until(lambda: slices_of(bed)[SERVERS[0]] == 0, 20, "new connections go to others")
        bed.wait_until(lambda: service(bed)["slice_changes"][0]["step"] == "switched", 5, "in force")
        time.sleep(0.5)  # and the datapath's cache has followed
        assert {request(bed.clients[0], FIRST)["server"] for _ in range(30)} == set(SERVERS[1:])
    wait_divided(bed, *SERVERS, timeout=40)
