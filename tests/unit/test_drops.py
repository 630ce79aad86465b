"""Every drop is counted by a reason that is described once, and told."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from lbctl.connections.answers import drop
from lbctl.openflow.cookies import COOKIE_DROPS, MARK, MASK_DROPS, Kind, flow_cookie
from lbctl.openflow.flow import DEC_TTL, PipelineError, flow
from lbctl.openflow.inbound import decode_meter_stats
from lbctl.openflow.meters import METER_ERROR, meters, over
from lbctl.openflow.rules import DROPPING_TABLES, SERVING, all_flows
from lbctl.openflow.tables import TABLES
from lbctl.site.model import Settings
from lbctl.values.drops import DROPS
from tests.unit.fake_site import FakeSite

ROOT = Path(__file__).parents[2]
ADDING = "describe it in lbctl/values/drops.py"
CALLS = (re.compile(r'\bdrop\(\s*[^",]+,\s*"(\w+)"'), re.compile(r'\bRefusal\("(\w+)"'),
         re.compile(r'counters\["dropped_(\w+)"\]'))
"""How the code names most reasons. Of those in a variable, tests/unit/conftest.py tells in any test that counts
one."""


def sources() -> list[str]:
    return [path.read_text() for room in ("lbctl", "ryu_apps") for path in (ROOT / room).rglob("*.py")
            if path.name != "drops.py"]


def of(*places: str) -> set[str]:
    return {reason for reason, drop in DROPS.items() if drop.where in places}


def test_every_reason_is_described_and_every_description_is_of_a_reason() -> None:
    named = {reason for source in sources() for call in CALLS for reason in call.findall(source)}
    assert len(named) > 20, "the patterns find nothing any more"
    assert named <= of("controller", "records"), ADDING
    words = {word for source in sources() for word in re.findall(r'"(?:dropped_)?(\w+)"', source)}
    assert of("controller", "records", "limit") <= words, "these are counted nowhere"
    assert of("switch") == {kind.reason for kind in Kind if kind.drops}, ADDING


def test_every_meter_has_a_reason_of_its_own() -> None:
    reasons = {over(order.number) for order in meters(Settings(), 2, [1, 2])}
    assert reasons <= of("limit") - {"over_other_rate"}, "name it in lbctl/openflow/meters.py"


def test_what_is_not_described_is_noticed_by_any_test_that_counts_it(world) -> None:
    with pytest.raises(AssertionError, match="drops.py"):
        drop(world.control.ground.switches["lb-a"], "whatever")


def test_no_flow_drops_without_a_kind_that_is_counted() -> None:
    with pytest.raises(PipelineError, match="a kind of its own"):
        flow(Kind.PIPELINE, 0, "no_entry", 1, {})
    with pytest.raises(PipelineError, match="is one"):
        flow(Kind.VLAN, 0, "deliver_client", 1, {"eth_type": 0x0800}, DEC_TTL)


def test_what_falls_through_a_table_is_counted_too(world) -> None:
    """But where it can't happen (docs/generate_pipeline.py, MISSES)."""
    ports = world.control.ground.switches["lb-a"].of_ports
    flows = all_flows(world.site.external_ips, {ip.address: SERVING for ip in world.site.external_ips}, {}, ports)
    assert {each.table for each in flows if Kind(each.cookie >> 48 & 0xFF).drops} == set(DROPPING_TABLES)
    with_a_miss = {each.table for each in flows if not each.match}
    assert TABLES.keys() - with_a_miss == {
        "advertise", "deliver_client", "deliver_inside", "deliver_tunnel", "send_outside", "send_inside"}


def test_one_mask_finds_what_drops_and_nothing_else() -> None:
    for kind in Kind:
        assert (flow_cookie(kind, 0xFFFFFFFF, "text") & MASK_DROPS == COOKIE_DROPS) == kind.drops
    assert (MARK + 1) << 56 & MASK_DROPS != COOKIE_DROPS


@pytest.mark.parametrize("reason", DROPS)
def test_a_description_is_the_rest_of_a_sentence(reason: str) -> None:
    drop = DROPS[reason]
    for text in filter(None, (drop.what, drop.mend)):
        assert text[-1] not in ".:;," and "\n" not in text and "|" not in text and "  " not in text


# What the switches count.

def dropped(world: FakeSite, reason: str) -> int:
    return world.control.ground.switches["lb-a"].counters[f"dropped_{reason}"]


def count(world: FakeSite, packets: int) -> None:
    """So many frames of a VLAN."""
    [item] = [item for item in world.switches["lb-a"].flows()
              if item.flow.table == "classify" and item.flow.priority == 390]
    item.packets += packets


def test_what_a_switch_drops_is_counted(world) -> None:
    count(world, 3)
    world.switches["lb-a"].limited[METER_ERROR] = 5
    world.settle(11.0)
    assert (dropped(world, "vlan"), dropped(world, "over_error_rate")) == (3, 5)
    count(world, 4)
    world.settle(11.0)
    assert (dropped(world, "vlan"), dropped(world, "over_error_rate")) == (7, 5)


def test_a_new_controller_counts_what_comes_from_now_on(world) -> None:
    count(world, 3)
    world.settle(11.0)
    world.restart_control()
    for name in world.switches:
        world.connect(name)
    world.settle(2.0)
    count(world, 2)
    world.settle(11.0)
    assert dropped(world, "vlan") == 2


def test_a_switch_that_was_restarted_counts_from_zero(world) -> None:
    count(world, 5)
    world.settle(11.0)
    world.disconnect("lb-a", lose_tables=True)
    world.connect("lb-a")
    world.settle(2.0)
    count(world, 2)
    world.settle(11.0)
    assert dropped(world, "vlan") == 7


def test_cut_off_statistics_are_no_harm() -> None:
    record = struct.pack("!IH6xIQQIIQQ", 2, 56, 0, 0, 0, 0, 0, 9, 0)
    assert decode_meter_stats(record) == {2: 9}
    for end in range(len(record)):
        assert decode_meter_stats(record[:end]) == {}
    assert decode_meter_stats(bytes(56)) == {}
