"""SYNs that wait for the datapath's cache."""

from __future__ import annotations

import pytest

from lbctl.connections.held_back import AT_MOST, CACHE_FOLLOWS, HeldBack
from lbctl.ground.effects import ToSwitch
from lbctl.ground.tokens import Tokens
from lbctl.openflow.messages import Barrier, PacketOut

SYN = ToSwitch("lb-a", PacketOut(b"a SYN", 1, "access_in"))


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def held_back(tokens) -> HeldBack:
    return HeldBack(tokens)


@pytest.mark.parametrize(("confirmed", "sent"), [
    (100.0, 100.0 + CACHE_FOLLOWS),
    (100.1, 100.4 + CACHE_FOLLOWS),  # the switch is slow, so its revalidators are
    (100.6, 101.0),  # later its client would have sent another
    (None, 101.0),
])
def test_a_syn_waits_for_its_switch_and_the_cache(held_back, tokens, confirmed, sent) -> None:
    [barrier] = held_back.hold(SYN, 100.0)
    assert barrier == ToSwitch("lb-a", Barrier(barrier.message.token))
    if confirmed:
        assert tokens.confirmed(barrier.message.token, confirmed) == []
    assert held_back.tick(sent - 0.001) == []
    assert held_back.tick(sent + 0.001) == [SYN]
    assert held_back.tick(sent + 1.0) == [] and not len(tokens)


def test_no_more_wait_than_there_is_room_for(held_back, tokens) -> None:
    for _ in range(AT_MOST):
        held_back.hold(SYN, 100.0)
    assert held_back.hold(SYN, 100.0) == [SYN] and len(tokens) == AT_MOST
    assert held_back.tick(101.0) == [SYN] * AT_MOST and not len(tokens)
