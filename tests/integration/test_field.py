"""Faults that people who run load balancers reported of others (docs/field.md), each as an experiment."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.frames import ACK, RST, SYN
from tests.bed.namespaces import Namespace
from tests.bed.sites import simple_site
from tests.bed.traffic import RawPort, connect, request
from tests.integration.hands import (
    HandClient,
    counters,
    dropped,
    entries_of,
    entry_flows_of,
    eventually,
    external_mac,
    hand_client,
    internal_mac,
    metric,
    server_space,
    without,
)
from tests.integration.moving import Talks, start_with_errors

LINGER = 1
HALF_OPEN_TIMEOUT = 3.0
SETTINGS = {"linger": LINGER, "arp_interval": 1.0, "grace": 0.5, "half_open_timeout": HALF_OPEN_TIMEOUT}
BED = {"site": simple_site(servers=2, settings=SETTINGS)}
EXTERNAL = "198.51.100.1"
SERVERS = "10.0.0.11", "10.0.0.12"
FAR_OFF = 2**30
"""Added to a sequence number: no host takes such a segment for its peer's."""
DEAF = """
table netdev deaf {
    chain input {
        type filter hook ingress device eth0 priority 0;
        ether type arp ether daddr ff:ff:ff:ff:ff:ff drop;
    }
}
"""
"""Of nftables: no ARP frame for everybody comes in."""
TAGS = {"priority": 0xA000, "nothing": 0}
"""What a tag of VLAN 0 may say besides."""


# A RST that the hosts ignore (F3).

def forge_reset(bed: Bed, client: HandClient, to: str) -> None:
    """A RST with the connection's addresses and ports, by somebody who doesn't know its numbers; and the entry's flows
    have run out."""
    if to == "server":
        client.send(RST, seq=client.seq + FAR_OFF)
    else:
        [entry] = entries_of(bed, client.local)
        with RawPort(server_space(bed, entry["server"]), "eth0") as port:
            eth, server = (port.mac, internal_mac(bed, "lb-a")), (entry["server"], entry["server_port"])
            port.send(frames.tcp(eth, server, client.local, RST, seq=FAR_OFF))
    eventually(bed, lambda: not entry_flows_of(bed, client.local), "its flows have run out", 10.0)


@pytest.mark.parametrize("to", ["server", "client"])
def test_a_forged_reset_ends_no_connection(live: Bed, to: str) -> None:
    with hand_client(live) as client:
        client.open()
        forge_reset(live, client, to)
        said = client.say(b"still mine")
        [entry] = entries_of(live, client.local)
        assert said == f"{entry['server']} still mine\n".encode() and entry["state"] == "open"


def test_a_forged_reset_ends_it_where_a_reset_is_believed(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_reset.py", *APPS)
    quiet_bed.start_controller()
    with hand_client(quiet_bed) as client:
        client.open()
        forge_reset(quiet_bed, client, "server")
        client.send(ACK, b"still mine\n")
        answer = client.receive(RST)
        assert answer is not None, "the next segment is answered with a RST"


# Tags (F12).

@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
def test_a_client_that_tags_with_vlan_0_is_served(live: Bed, tag: int) -> None:
    with hand_client(live) as client:
        client.port.send(frames.tagged(client.frame(SYN), tag))
        answer = client.receive(SYN | ACK)
        assert answer is not None and answer.ack == client.seq + 1, "its SYN is answered"
        client.seq, client.ack = client.seq + 1, answer.seq + 1
        client.port.send(frames.tagged(client.frame(ACK), tag), frames.tagged(client.frame(ACK, b"tagged\n"), tag))
        answer = client.port.receive(lambda frame: client.mine(frame) and bool(frame.payload))
        assert answer is not None and answer.payload.endswith(b" tagged\n")


def test_it_gets_no_answer_where_a_tag_is_left_on(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_tags.py", *APPS)
    quiet_bed.start_controller()
    with hand_client(quiet_bed) as client:
        client.port.send(frames.tagged(client.frame(SYN), TAGS["priority"]))
        eventually(quiet_bed, lambda: dropped(quiet_bed, "malformed"), "it has come")
        assert client.receive(timeout=0.5) is None and not entries_of(quiet_bed, client.local)
        assert client.open().say(b"without").endswith(b" without\n")


def test_what_belongs_to_a_vlan_is_nobodys(live: Bed) -> None:
    with hand_client(live) as client:
        client.port.send(frames.tagged(client.frame(SYN), 5))
        assert client.receive(timeout=0.5) is None and not entries_of(live, client.local)


# A server that has lost its power (F1).

def unresolved(bed: Bed) -> float:
    return metric(bed, f'lbctl_unresolved_servers{{dp_name="lb-a",external_ip="{EXTERNAL}"}}')


def served_by(bed: Bed, requests: int) -> set[str]:
    return {request(bed.clients[0], EXTERNAL)["server"] for _ in range(requests)}


def test_a_server_that_is_away_gets_no_new_connections(live: Bed) -> None:
    """Without any health check."""
    with without(live, SERVERS[0]):
        eventually(live, lambda: unresolved(live) == 1, "it is missed", 15.0)
        assert served_by(live, 8) == {SERVERS[1]}
    eventually(live, lambda: unresolved(live) == 0, "it is heard again", 15.0)
    assert served_by(live, 8) == set(SERVERS)


def test_after_a_restart_and_a_move_it_gets_none_either(fresh: Bed) -> None:
    with without(fresh, SERVERS[0]):
        eventually(fresh, lambda: unresolved(fresh) == 1, "it is missed", 15.0)
        fresh.controller.kill()
        fresh.controller.start()
        eventually(fresh, lambda: unresolved(fresh) == 1, "it is missed by the new controller", 30.0)
        assert served_by(fresh, 8) == {SERVERS[1]}
        assert fresh.move(EXTERNAL, "lb-b")["state"] == "done"
        assert served_by(fresh, 8) == {SERVERS[1]}


def repeated_syn(bed: Bed, server: str) -> bool:
    """A client meets that server, which has just gone, and repeats its SYN as Linux does. Is it answered?"""
    with without(bed, server), hand_client(bed) as client:
        for _ in SERVERS:
            client.send(SYN)
            if client.receive(SYN | ACK, timeout=0.5) is None:
                break
            client.number += 10_000  # it was the other one's turn
        for pause in (1.0, 2.0, 4.0):
            time.sleep(pause)
            client.send(SYN)
            if client.receive(SYN | ACK, timeout=0.5):
                return True
    return False


def test_a_syn_that_nobody_answers_goes_to_another_server(live: Bed) -> None:
    assert repeated_syn(live, SERVERS[0])


def test_where_a_mac_is_believed_for_ever_it_goes_on_in_vain(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_neighbours.py", *APPS)
    quiet_bed.start_controller()
    with hand_client(quiet_bed, address="198.51.100.202") as never:
        never.send(SYN)
        assert never.receive(SYN | ACK)
        assert not repeated_syn(quiet_bed, SERVERS[0])
        assert entries_of(quiet_bed, never.local), "nor does an entry end that has seen a SYN alone, all that time"


# Half-open connections (F2).

def test_what_never_opened_ends_soon_and_what_is_open_and_silent_stays(live: Bed) -> None:
    with hand_client(live) as never, hand_client(live, address="198.51.100.202") as silent:
        never.send(SYN)
        assert never.receive(SYN | ACK)
        silent.open()
        eventually(live, lambda: not entries_of(live, never.local), "it ends", 5 * HALF_OPEN_TIMEOUT)
        time.sleep(2 * HALF_OPEN_TIMEOUT)
        assert silent.say(b"still here").endswith(b" still here\n")
        assert not entry_flows_of(live, never.local)


# A neighbour that missed, or ignores, the announcements (F5).

@contextlib.contextmanager
def deaf(bed: Bed, nud: str) -> Iterator[Namespace]:
    """A client that believes that the external IP is at lb-a, and hears no announcement. nud: of its neighbour entry;
    permanent: it believes nobody else either."""
    client = bed.clients[0]
    client.run("nft", DEAF)
    client.ip("neigh", "replace", EXTERNAL, "lladdr", external_mac(bed, "lb-a"), "dev", "eth0", "nud", nud)
    try:
        yield client
    finally:
        client.run("nft", "delete table netdev deaf")
        client.ip("neigh", "flush", "all", "nud", nud)


def moved_beyond_grace(bed: Bed) -> None:
    """The external IP is at lb-b, and lb-a has nothing of it any more."""
    assert bed.move(EXTERNAL, "lb-b")["state"] == "done"


def no_route(client: Namespace) -> bool:
    try:
        connect(client, EXTERNAL).close()
    except OSError as error:
        return "No route to host" in str(error)
    return False


def test_a_neighbour_that_missed_the_announcements_is_told(fresh: Bed) -> None:
    """By the first packet that it sends after the move."""
    with deaf(fresh, "reachable") as client, Talks(client, EXTERNAL, 3) as talks:
        moved_beyond_grace(fresh)
        assert talks.broken() == [] and request(client, EXTERNAL)
        now_at = external_mac(fresh, "lb-b")
        eventually(fresh, lambda: now_at in client.ip("neigh", "show", EXTERNAL), "it is told", 5.0)
        assert counters(fresh)["other"]["passed_on"] > 0


def test_a_deaf_neighbour_notices_no_move(fresh: Bed) -> None:
    """Whatever it is told: its packets go on to come to lb-a."""
    with deaf(fresh, "permanent") as client, Talks(client, EXTERNAL, 3) as talks:
        moved_beyond_grace(fresh)
        for _ in range(3):
            assert talks.broken() == [] and request(client, EXTERNAL)
        assert external_mac(fresh, "lb-a") in client.ip("neigh", "show", EXTERNAL)


def test_a_deaf_neighbour_loses_all_where_it_is_answered_with_an_error(quiet_bed: Bed) -> None:
    """The naive twin."""
    start_with_errors(quiet_bed)
    with deaf(quiet_bed, "permanent") as client, Talks(client, EXTERNAL, 3) as talks:
        moved_beyond_grace(quiet_bed)
        eventually(quiet_bed, lambda: no_route(client), "lb-a answers with an error, once it has no flows for it left")
        assert len(talks.broken(timeout=2.0)) == 3
