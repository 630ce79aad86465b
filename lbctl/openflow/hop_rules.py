"""The flows that notice a packet whose MAC is not the one that its entry answers to: a router has failed over, there is
another one, or a client has changed its MAC.

An entry writes the MAC that it answers to into the field metadata. One flow for each MAC in use compares it with the
packet's; Open vSwitch cannot compare two fields as such. What meets none of them is delivered all the same, and shown
to the controller. So nothing is lost while an entry, or such a flow, is not there yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from lbctl.openflow.cookies import Kind
from lbctl.openflow.flow import CONTROLLER, Flow, Match, MoveField, Resubmit, SetField, flow
from lbctl.openflow.meters import METER_HOP
from lbctl.values.side import EXTERNAL, Side

MAC_BITS = 48


def hop_flow(side: Side, mac: bytes) -> Flow:
    """What comes from that MAC (packed), by an entry that answers to it, goes on."""
    table, following = _tables(side)
    match: Match = {"metadata": int.from_bytes(mac), "eth_src": mac.hex(":")}
    return flow(Kind.PIPELINE, 0, table, 100, match, goto=following)


def changed_hop_flows() -> Iterator[Flow]:
    """What comes from another MAC is marked, delivered, and then shown, with the MAC that it came from: the meter drops
    all that is left to do with a packet."""
    for side in Side:
        table, following = _tables(side)
        yield flow(Kind.PIPELINE, 0, table, 0, {}, MoveField("eth_src", "metadata", MAC_BITS), SetField("reg3", 1),
                   goto=following)
        yield flow(Kind.PIPELINE, 0, following, 210, {"reg3": 1}, SetField("reg3", 0), Resubmit(following),
                   Resubmit("show_hop"))
    yield flow(Kind.HOP, 0, "show_hop", 0, {}, MoveField("metadata", "eth_src", MAC_BITS), CONTROLLER, meter=METER_HOP)


def _tables(side: Side) -> tuple[str, str]:
    """That looks at the MACs of what comes from that side, and the one after it."""
    return ("client_hop", "deliver_server") if side is EXTERNAL else ("inside_hop", "deliver_client")
