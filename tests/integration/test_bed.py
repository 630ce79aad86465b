"""The test bed itself, without the product: what other tests take for granted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bed import frames
from tests.bed.bed import Bed, NotInTime
from tests.bed.namespaces import NAMED, remove_leftovers
from tests.bed.ovs import OvsError
from tests.bed.processes import CommandFailed, is_alive
from tests.bed.traffic import RawPort, TrafficError, request
from tests.integration.hands import connections_refused
from topologies import programs

CHECKOUT = Path(__file__).resolve().parents[2]
SERVER = "10.0.0.11"
NEIGHBOUR = 1
"""Index of a server in the same segment as SERVER, that can be its client without any LB."""


def ping(space, address: str) -> bool:
    try:
        space.run("ping", "-c", 1, "-W", 1, address)
    except CommandFailed:
        return False
    return True


def test_segments_connect_what_is_on_them_and_nothing_else(quiet_bed: Bed) -> None:
    client, remote, server = quiet_bed.clients[0], quiet_bed.remote, quiet_bed.servers[0]
    assert ping(client, "198.51.100.102")
    assert ping(remote, "198.51.100.102"), "the router does not forward"
    assert ping(server, "10.0.0.21")
    assert ping(quiet_bed.controller.space, "198.18.0.11")
    assert not ping(client, SERVER), "clients reach servers without a load balancer"
    assert not ping(client, "198.51.100.1"), "someone answers for an external IP"


def test_each_lb_has_its_own_switch(quiet_bed: Bed) -> None:
    one, other = quiet_bed.lbs.values()
    one.ovs.ofctl("add-flow", one.bridge, "table=3,tcp,actions=drop")
    assert "table=3, tcp" in one.dump_flows()
    assert other.dump_flows() == ""
    assert one.tables_hash() != other.tables_hash()
    assert one.ovs.vsctl("get", "bridge", one.bridge, "datapath_id").strip() == '"00000000000000aa"'


def test_a_switch_that_is_killed_comes_back_empty_and_the_other_does_not_notice(quiet_bed: Bed) -> None:
    one, other = quiet_bed.lbs.values()
    for node in (one, other):
        node.ovs.ofctl("add-flow", node.bridge, "actions=normal")
    assert ping(quiet_bed.clients[0], "198.51.100.102")
    one.ovs.kill()
    assert one.ovs.vswitchd_pid is None
    with pytest.raises(OvsError, match=one.lb.name):
        one.dump_flows()
    assert "NORMAL" in other.dump_flows()
    one.ovs.start_vswitchd()
    assert one.dump_flows() == ""


def test_hash_counts_rules_and_meters_and_not_packets(quiet_bed: Bed) -> None:
    node = quiet_bed.lbs["lb-a"]
    node.ovs.ofctl("add-flow", node.bridge, "actions=normal")
    node.ovs.ofctl("add-meter", node.bridge, "meter=1 pktps bands=type=drop rate=10")
    before = node.tables_hash()
    ping(quiet_bed.clients[0], "198.51.100.77")  # its ARP requests are counted by the rule
    counted = node.ovs.ofctl("dump-flows", node.bridge)
    assert "n_packets=0" not in counted
    assert node.tables_hash() == before
    node.ovs.ofctl("mod-meter", node.bridge, "meter=1 pktps bands=type=drop rate=11")
    assert node.tables_hash() != before


def test_the_datapath_carries_tcp(quiet_bed: Bed) -> None:
    node = quiet_bed.lbs["lb-a"]
    node.ovs.ofctl("add-flow", node.bridge, "actions=normal")  # makes one segment of the two
    quiet_bed.clients[0].ip("route", "add", "10.0.0.0/24", "dev", "eth0")
    quiet_bed.servers[0].ip("route", "add", "198.51.100.0/24", "dev", "eth0")
    try:
        answer = request(quiet_bed.clients[0], SERVER, 8080, method="POST", body=b"x" * 1_000_000)
        assert answer["received"] == 1_000_000
        assert answer["client"][0] == "198.51.100.101"
    finally:
        quiet_bed.clients[0].ip("route", "del", "10.0.0.0/24")
        quiet_bed.servers[0].ip("route", "del", "198.51.100.0/24")


def test_load_says_who_answered_and_what_broke(quiet_bed: Bed) -> None:
    begun = time.monotonic()
    load = quiet_bed.load(quiet_bed.servers[NEIGHBOUR], SERVER, 8080, lines=2, requests=1, at_least=4)
    time.sleep(0.3)
    saw = load.stop()
    took = time.monotonic() - begun
    assert [connection.server for connection in saw.long] == [SERVER, SERVER]
    assert saw.broken == [] and saw.failures == ()
    assert saw.servers == {SERVER: saw.succeeded} and saw.succeeded > 3
    assert 0 < saw.longest_gap < took

    client = quiet_bed.servers[NEIGHBOUR]
    load = quiet_bed.load(client, SERVER, 8080, lines=1, requests=1)
    refused = connections_refused(client)
    quiet_bed.server_scripts[f"server-{SERVER}"].kill()
    quiet_bed.wait_until(lambda: connections_refused(client) > refused, 5, "a request is refused")
    saw = load.stop()
    assert [connection.error for connection in saw.broken] in (["closed"], ["reset"])
    assert "refused" in saw.failures


def test_load_that_cannot_start_says_why(quiet_bed: Bed) -> None:
    with pytest.raises(TrafficError, match="(?s)load.py in client1.*invalid float value"):
        quiet_bed.load(quiet_bed.clients[0], SERVER, interval="soon")


def test_raw_frames_are_sent_and_read(quiet_bed: Bed) -> None:
    server = quiet_bed.servers[0]
    with RawPort(quiet_bed.servers[NEIGHBOUR], "eth0") as port:
        mac, spare = "02:00:00:00:00:01", "10.0.0.201"
        port.send(frames.arp_request(mac, spare, SERVER))
        reply = port.receive(lambda frame: frame.answers_arp)
        assert reply is not None and reply.arp_src_mac == server.mac("eth0") and str(reply.src) == SERVER

        eth = (mac, reply.arp_src_mac)
        port.send(frames.tcp(eth, (spare, 1234), (SERVER, 8080), frames.SYN, seq=7))
        port.send(frames.arp((mac, reply.arp_src_mac), 2, (mac, spare), (reply.arp_src_mac, SERVER)))
        answer = port.receive(lambda frame: frame.src_port == 8080 and frame.dst_port == 1234)
        assert answer is not None and answer.checksums_right
        assert answer.flags == frames.SYN | frames.ACK and answer.ack == 8 and answer.ttl == 64

        whole = frames.tcp(eth, (spare, 1235), (SERVER, 8080), frames.SYN, payload=b"x" * 20)
        port.send(*frames.fragments(whole, 16))
        answer = port.receive(lambda frame: frame.dst_port == 1235)
        assert answer is not None and answer.flags == frames.SYN | frames.ACK, "fragments are not put together again"

        port.send(frames.udp(eth, (spare, 1), (SERVER, 9)))
        error = port.receive(lambda frame: frame.icmp_type == 3)
        assert error is not None and error.icmp_code == 3 and error.checksums_right

        port.send(frames.echo_request(eth, spare, SERVER))
        assert port.receive(lambda frame: frame.icmp_type == 0) is not None


def test_what_does_not_come_in_time_is_told_with_diagnostics(quiet_bed: Bed) -> None:
    with pytest.raises(NotInTime, match="(?s)the moon.*flows of lb-a.*flows of lb-b"):
        quiet_bed.wait_until(lambda: False, 0.1, "the moon")


def test_reset_mends_everything(quiet_bed: Bed) -> None:
    one, other = quiet_bed.lbs.values()
    one.ovs.kill()
    other.ovs.ofctl("add-flow", other.bridge, "actions=drop")
    other.space.set_link(other.lb.internal_port, False)
    quiet_bed.server_scripts[f"server-{SERVER}"].kill()
    quiet_bed.reset()
    assert one.dump_flows() == other.dump_flows() == ""
    assert request(quiet_bed.servers[NEIGHBOUR], SERVER, 8080)["server"] == SERVER
    assert "state UP" in other.space.ip("link", "show", other.lb.internal_port)


def test_building_leaves_nothing() -> None:
    with Bed(lbs=2, external_ips=3, servers=2) as bed:
        directory, mine = bed.directory, bed.switch.full_name.removesuffix("segments")
        assert directory.exists() and list(NAMED.glob(f"{mine}*"))
    assert not directory.exists()
    assert not list(NAMED.glob(f"{mine}*"))


def test_what_a_killed_owner_leaves_is_removed_by_the_next() -> None:
    code = """
import time
from tests.bed.bed import Bed
with Bed() as bed:
    pids = [node.ovs.vswitchd_pid for node in bed.lbs.values()] + [s.process.pid for s in bed.server_scripts.values()]
    print(bed.directory, bed.switch.full_name, *pids, flush=True)
    time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    owner = programs.popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert owner.stdout is not None
    directory, space, *pids = owner.stdout.readline().split()
    remove_leftovers()
    assert (NAMED / space).exists(), "a living owner's namespaces were removed"
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    assert any(is_alive(int(pid)) for pid in pids)
    remove_leftovers()
    assert not any(is_alive(int(pid)) for pid in pids)
    assert not Path(directory).exists()
    assert not list(NAMED.glob(space.removesuffix("segments") + "*"))
