"""Faults that people who run load balancers reported of others (docs/field.md), each as an experiment."""

from __future__ import annotations

import pytest

from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.frames import ACK, RST, SYN
from tests.bed.sites import simple_site
from tests.bed.traffic import RawPort
from tests.integration.hands import (
    HandClient,
    entries_of,
    entry_flows_of,
    eventually,
    hand_client,
    internal_mac,
    server_space,
)

LINGER = 1
BED = {"site": simple_site(servers=1, settings={"linger": LINGER, "arp_interval": 1.0})}
SERVER = "10.0.0.11"
FAR_OFF = 2**30
"""Added to a sequence number: no host takes such a segment for its peer's."""
TAGS = {"priority": 0xA000, "nothing": 0}
"""What a tag of VLAN 0 may say besides."""


# A RST that the hosts ignore (F3).

def forge_reset(bed: Bed, client: HandClient, to: str) -> None:
    """A RST with the connection's addresses and ports, by somebody who doesn't know its numbers; and the entry's flows
    have run out."""
    if to == "server":
        client.send(RST, seq=client.seq + FAR_OFF)
    else:
        with RawPort(server_space(bed, SERVER), "eth0") as port:
            eth = (port.mac, internal_mac(bed, "lb-a"))
            port.send(frames.tcp(eth, (SERVER, 80), client.local, RST, seq=FAR_OFF))
    eventually(bed, lambda: not entry_flows_of(bed, client.local), "its flows have run out", 10.0)


@pytest.mark.parametrize("to", ["server", "client"])
def test_a_forged_reset_ends_no_connection(live: Bed, to: str) -> None:
    with hand_client(live) as client:
        client.open()
        forge_reset(live, client, to)
        assert client.say(b"still mine") == b"10.0.0.11 still mine\n"
        [entry] = entries_of(live, client.local)
        assert entry["state"] == "open"


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

def tagged(frame: bytes, tag: int) -> bytes:
    return frame[:12] + b"\x81\x00" + tag.to_bytes(2) + frame[12:]


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
def test_a_client_that_tags_with_vlan_0_is_served(live: Bed, tag: int) -> None:
    with hand_client(live) as client:
        client.port.send(tagged(client.frame(SYN), tag))
        answer = client.receive(SYN | ACK)
        assert answer is not None and answer.ack == client.seq + 1, "its SYN is answered"
        client.seq, client.ack = client.seq + 1, answer.seq + 1
        client.port.send(tagged(client.frame(ACK), tag), tagged(client.frame(ACK, b"tagged\n"), tag))
        answer = client.port.receive(lambda frame: client.mine(frame) and bool(frame.payload))
        assert answer is not None and answer.payload == b"10.0.0.11 tagged\n"


def test_what_belongs_to_a_vlan_is_nobodys(live: Bed) -> None:
    with hand_client(live) as client:
        client.port.send(tagged(client.frame(SYN), 5))
        assert client.receive(timeout=0.5) is None and not entries_of(live, client.local)
