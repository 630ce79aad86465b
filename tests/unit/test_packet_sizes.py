"""Packets larger than the network takes that they go to (field report F13): frames in at a switch, frames out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lbctl.frames import packets
from lbctl.frames.packets import ACK
from lbctl.openflow.flow import CheckLarger
from lbctl.site.model import Settings
from lbctl.values.side import EXTERNAL as OUTSIDE
from lbctl.values.side import INTERNAL as INSIDE
from tests.unit.effects import use_file
from tests.unit.fake_site import EXTERNAL, INTERNAL, ROUTER_MAC, site
from tests.unit.test_opening import ADDRESS, World, from_client, key_of

JUMBO = 9000


@pytest.mark.parametrize("external, internal, outside, inside", [
    (1500, 1500, None, None), (1500, 9000, 1500, None), (9000, 1500, None, 1500)])
def test_the_smaller_network_is_a_limit(external, internal, outside, inside) -> None:
    settings = Settings(external_mtu=external, internal_mtu=internal)
    assert (settings.limit(OUTSIDE), settings.limit(INSIDE)) == (outside, inside)


def measured(world: World) -> set[str]:
    """The tables where packets are measured."""
    held = world.control.ground.switches["lb-a"].held.flows()
    return {flow.table for flow in held if any(isinstance(action, CheckLarger) for action in flow.actions)}


def test_nothing_is_measured_where_the_networks_are_alike() -> None:
    assert measured(World(site())) == set()
    assert measured(World(site(internal_mtu=JUMBO))) == {"deliver_client"}
    assert measured(World(site(external_mtu=JUMBO))) == {"deliver_server", "deliver_inside"}


def test_another_site_file_measures() -> None:
    world = World(site())
    wanted = replace(world.site, settings=replace(world.site.settings, internal_mtu=JUMBO))
    world.post(use_file(world.control, wanted, world.now))
    assert measured(world) == {"deliver_client"}


def large(world: World, side: int, may_be_cut: bool, size: int = 3000) -> bytes:
    """A client's segment to its server, or the server's to it."""
    [to_server] = world.send(from_client(), EXTERNAL)
    protocol, src, src_port, dst, dst_port = (packets.decode(to_server.frame)[at] for at in (2, 3, 5, 4, 6))
    assert protocol == 6
    ends = (src, src_port, dst, dst_port) if side == EXTERNAL else (dst, dst_port, src, src_port)
    if side == EXTERNAL:
        ends = (*ends[:2], ADDRESS, 80)
    eth_dst = bytes.fromhex(world.switches["lb-a"].ports[side - 1].mac.replace(":", ""))
    frame = packets.tcp_segment(eth_dst, ROUTER_MAC, *ends, flags=ACK, payload=bytes(range(256)) * (size // 256))
    if may_be_cut:
        frame = frame[:20] + bytes(2) + frame[22:24] + bytes(2) + frame[26:]
        frame = frame[:24] + packets.checksum(frame[14:34]).to_bytes(2) + frame[26:]
    return frame


SIDES = pytest.mark.parametrize(
    "side, mtus", [(INTERNAL, {"internal_mtu": JUMBO}), (EXTERNAL, {"external_mtu": JUMBO})]
)


@SIDES
def test_what_may_be_cut_up_is_cut_up(side, mtus) -> None:
    world = World(site(**mtus))
    frame = large(world, side, may_be_cut=True)
    sent = world.through(frame, side)
    assert len(sent) == 2 and all(len(item.frame) <= 1514 and item.port != side for item in sent)
    body = b"".join(item.frame[34:] for item in sent)
    assert len(body) == len(frame) - 34 and body[20:] == frame[54:]
    assert {item.frame[22] for item in sent} == {63} and world.counter("packets_cut") == 1


@SIDES
def test_who_sends_what_may_not_is_told(side, mtus) -> None:
    world = World(site(**mtus))
    frame = large(world, side, may_be_cut=False)
    [told] = world.through(frame, side)
    assert told.port == side and told.frame[34:36] == b"\3\4" and told.frame[40:42] == (1500).to_bytes(2)
    assert told.frame[42 + 12:42 + 24] == frame[14 + 12:14 + 24], "the addresses and ports are quoted as they were"


@SIDES
def test_what_fits_goes_through_the_switch(side, mtus) -> None:
    world = World(site(**mtus))
    frame = large(world, side, may_be_cut=False, size=1280)
    ins = world.counter("packet_ins")
    [sent] = world.through(frame, side)
    assert sent.port != side and world.counter("packet_ins") == ins and key_of(sent)
