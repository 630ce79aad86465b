"""Where a packet goes, worked out from the rules that an LB should hold: what the switch does, without the switch.

A packet is here its fields: a mapping from field, as lbctl.openflow names them, to value. Registers that are not named
are 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from lbctl.openflow.flow import FinTimeout, Flow, MatchValue, Resubmit, SetField
from lbctl.openflow.tables import TABLES, number

FIRST_TABLE = "classify"

Fields = dict[str, str | int]


class Hit(NamedTuple):
    """The rule that a packet meets in a table; None: no rule matches, so the packet is dropped there."""

    table: str
    flow: Flow | None

    @property
    def number(self) -> int:
        return number(self.table)

    @property
    def purpose(self) -> str:
        return TABLES[self.table].purpose

    def text(self) -> str:
        """The rule as ovs-ofctl prints it, without what says nothing about this packet."""
        if self.flow is None:
            return "no rule matches: drop"
        actions = tuple(action for action in self.flow.actions if not isinstance(action, FinTimeout))
        text = replace(self.flow, actions=actions, send_removed=False).text(with_cookie=False)
        return text.removeprefix(f"table={self.number}, ")


def walk(flows: Iterable[Flow], packet: Fields) -> list[Hit]:
    """The rules that the packet meets, in order. Ends: the declaration of the pipeline has no loops."""
    by_table: dict[str, list[Flow]] = {}
    for flow in sorted(flows, key=lambda flow: -flow.priority):
        by_table.setdefault(flow.table, []).append(flow)
    hits: list[Hit] = []
    _walk_table(by_table, dict(packet), FIRST_TABLE, hits)
    return hits


def _walk_table(by_table: dict[str, list[Flow]], packet: Fields, table: str | None, hits: list[Hit]) -> None:
    while table is not None:
        flow = next((flow for flow in by_table.get(table, ()) if _matches(flow, packet)), None)
        hits.append(Hit(table, flow))
        if flow is None:
            return
        for action in flow.actions:
            if isinstance(action, SetField):
                packet[action.field] = action.value
            elif isinstance(action, Resubmit):
                _walk_table(by_table, packet, action.table, hits)
        table = flow.goto


def _matches(flow: Flow, packet: Fields) -> bool:
    return all(_field_matches(packet.get(field, 0), value) for field, value in flow.match)


def _field_matches(held: str | int, wanted: MatchValue) -> bool:
    if isinstance(wanted, tuple):
        value, mask = wanted
        return isinstance(held, int) and held & mask == value
    if isinstance(wanted, str) and "/" in wanted:
        base, _, bits = wanted.partition("/")
        if bits.isdigit():
            return ip_address(held) in ip_network(wanted)
        return int(ip_address(held)) & int(ip_address(bits)) == int(ip_address(base))
    return held == wanted
