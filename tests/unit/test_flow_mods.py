"""Flow-mods: the bytes that the switch library would make of the same flows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from lbctl.openflow.flow import Flow
from lbctl.openflow.flow_mods import added, deleted
from lbctl.openflow.hop_rules import hop_flow
from lbctl.openflow.probe_rules import Watched
from lbctl.openflow.rules import Role, all_flows
from lbctl.openflow.slice_rules import Sliced, SliceState, asking_flows, slice_flows
from lbctl.values.addresses import Endpoint
from lbctl.values.side import Side
from lbctl.values.transfer import TransferMode
from ryu_apps.library.names import ofp
from tests.unit import kinds
from tests.unit.library_flows import flow_mod


def same_as_the_library(flows: Iterable[Flow]) -> None:
    for flow in flows:
        assert added(flow, 7) == flow_mod(flow, ofp.OFPFC_ADD, 7), flow.text()
        assert deleted(flow, 8) == flow_mod(flow, ofp.OFPFC_DELETE_STRICT, 8), flow.text()


@pytest.mark.parametrize("role", [Role(TransferMode.NORMAL, arp=True), Role(TransferMode.TRANSITION),
                                  Role(TransferMode.TRANSITION, hold_all=True), Role()])
def test_flows_are_encoded_as_the_library_does_it(role) -> None:
    external_ips = kinds.EXTERNAL_IPS.values()
    watched = Watched("02:00:00:00:00:aa", "10.1.2.3")
    ports = replace(kinds.PORTS, external=replace(kinds.PORTS.external, limit=1400))
    same_as_the_library(all_flows(external_ips, {ip.address: role for ip in external_ips}, kinds.NEIGHBOURS, ports,
                                  watched))
    same_as_the_library([hop_flow(side, bytes.fromhex("020000000001")) for side in Side])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("affinity", ["connection", "client"])
def test_slices_are_encoded_as_the_library_does_it(version: int, affinity: str) -> None:
    old, new = Endpoint(ip_address("10.0.0.11" if version == 4 else "fd00::11"), 80), None
    states = (SliceState(old, old), SliceState(new, old, True, True), SliceState(old, old, True)) * 85
    service = replace(kinds.SLICED[version].services[0], affinity=affinity)
    sliced = Sliced(kinds.SLICED[version].address, service, states, frozenset({old}))
    same_as_the_library([*slice_flows(sliced), *asking_flows(sliced)])


def test_what_has_no_action_in_openflow_is_refused() -> None:
    with pytest.raises(TypeError, match="no OpenFlow action"):
        added(Flow("arp", 1, (), ("nothing",)), 0)
