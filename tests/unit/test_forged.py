"""A packet alone ends nothing: forged segments between the packets of a live connection, and any pauses.

The hosts ignore the forged ones, by their numbers, which the control function does not know.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lbctl.connections.endings import REMEMBERED_SECONDS, Endings
from lbctl.frames import packets
from lbctl.frames.packets import ACK, FIN, RST, SYN
from tests.unit.fake_site import EXTERNAL, INTERNAL, ROUTER_MAC, Conversation, FakeSite, site

FAR = 2**24
LONGEST = 4.0
"""Seconds of silence, of five steps at most: what a RST has ended is remembered for longer."""
assert 5 * LONGEST < REMEMBERED_SECONDS

forged = st.tuples(st.integers(1, 0x3F).filter(lambda flags: flags & (SYN | FIN | RST)), st.integers(FAR, 2**32 - 1))
pauses = st.floats(0.1, LONGEST)
talk = st.just("talk")
steps = st.lists(st.one_of(forged, forged, pauses, talk), max_size=5)


class Attacked(FakeSite):
    """Whose hosts ignore what they did not expect."""

    def accept(self, packet: packets.Packet) -> None:
        if packet.seq < FAR:
            super().accept(packet)

    def forge(self, conversation: Conversation, flags: int, seq: int, inward: bool) -> None:
        """A segment with that connection's addresses and ports."""
        server, peer = conversation.server, conversation.peer
        assert server and peer
        source, target = (conversation.client, conversation.external) if inward else (server, peer)
        mac = ROUTER_MAC if inward else self.server_mac(server.address.packed)
        own = bytes.fromhex(self.switches["lb-a"].ports[0 if inward else 1].mac.replace(":", ""))
        frame = packets.tcp_segment(own, mac, source.address.packed, source.port, target.address.packed, target.port,
                                    flags=flags, seq=seq, ack=seq)
        self.inject("lb-a", frame, EXTERNAL if inward else INTERNAL)
        self.drain()

    def talk(self, conversation: Conversation) -> bool:
        """Both hosts send something. Does it arrive?"""
        before = len(self.data)
        self.from_client(conversation)
        self.drain()
        self.from_server(conversation)
        self.drain()
        return all(data.arrivals for data in self.data[before:])


def attacked(nat: str) -> tuple[Attacked, Conversation]:
    world = Attacked(site(ips=1, nat=nat))
    world.settle(1.0)
    conversation = world.open(0)
    world.drain()
    assert world.talk(conversation)
    return world, conversation


@pytest.mark.parametrize("nat", ["destination", "full"])
@settings(max_examples=50)
@example(inward=True, steps=[(SYN, FAR), 2.0, (SYN, FAR)])  # The second looks as if the server had not answered it.
@given(inward=st.booleans(), steps=steps)
def test_forged_segments_break_no_connection(nat: str, inward: bool, steps: list[object]) -> None:
    world, conversation = attacked(nat)
    for step in steps:
        match step:
            case "talk":
                assert world.talk(conversation)
            case float():
                world.settle(step, 0.1)
            case (flags, seq):
                world.forge(conversation, flags, seq, inward)
    assert world.talk(conversation) and not world.violations


@pytest.mark.parametrize("first", [RST, FIN | ACK])
def test_a_syn_after_another_forged_packet_takes_it_to_no_other_server(first: int) -> None:
    world, conversation = attacked("destination")
    world.forge(conversation, first, FAR, True)
    world.settle(3.0)
    world.forge(conversation, SYN, FAR + 1, True)
    assert world.talk(conversation) and not world.violations


def test_it_breaks_where_a_reset_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The naive twin."""
    monkeypatch.setattr(Endings, "remembered", lambda *_: None)
    world, conversation = attacked("destination")
    world.forge(conversation, RST, FAR, True)
    world.settle(3.0)
    world.talk(conversation)
    assert world.violations == ["the client of live connection 1 got a RST",
                                "the server of live connection 1 got a RST"]
