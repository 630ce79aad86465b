"""An access-table entry as its two flows.

They are the same on every LB: addresses, ports and next hops, never an LB's own MAC or port. The wire
form of these flows, for the hot paths, is in lbctl/openflow/outbound.py and tested against this one.
"""

from __future__ import annotations

from lbctl.entries.access_table import Entry
from lbctl.openflow.cookies import entry_cookie
from lbctl.openflow.flow import FinTimeout, Flow, FlowAction, Match, SetField
from lbctl.values.owners import owner_of
from lbctl.values.protocols import ETH_TYPES, PROTOCOL_NAMES, TCP
from lbctl.values.side import EXTERNAL, INTERNAL, Side

ENTRY_PRIORITY = 100


def deliver_table(side: Side, inner_hop: bool) -> str:
    """Where an entry's packets from that side go on. inner_hop: the entry knows the next hop on the internal
    network."""
    if side is INTERNAL:
        return "deliver_client"
    return "deliver_inside" if inner_hop else "deliver_server"


def checked_side(inner_hop: bool) -> Side:
    """Whose packets are looked at whether they come from the MAC that the entry answers to: those of who has opened the
    connection. The others' MACs are asked for."""
    return INTERNAL if inner_hop else EXTERNAL


def next_table(side: Side, inner_hop: bool) -> str:
    """Where an entry's flow for packets from that side leads."""
    if side is not checked_side(inner_hop):
        return deliver_table(side, inner_hop)
    return "inside_hop" if inner_hop else "client_hop"


def entry_flows(entry: Entry, linger: int) -> tuple[Flow, Flow]:
    """The flow from the external network and the one from the internal network.

    linger: seconds that a direction's flow stays, unused, once it has seen FIN or RST.
    """
    protocol, client, external, server, next_hop, internal = entry.connection
    version, transport = client.address.version, PROTOCOL_NAMES[protocol]
    source, destination = f"ipv{version}_src", f"ipv{version}_dst"
    source_port, destination_port = f"{transport}_src", f"{transport}_dst"
    base: Match = {"eth_type": ETH_TYPES[version], "ip_proto": protocol}
    at_server = internal or client
    from_client: Match = {
        **base, source: str(client.address), source_port: client.port,
              destination: str(external.address), destination_port: external.port}
    from_server: Match = {
        **base, source: str(server.address), source_port: server.port,
               destination: str(at_server.address), destination_port: at_server.port}
    head: tuple[FlowAction, ...] = (FinTimeout(linger),) if protocol == TCP else ()
    set_in = [SetField(destination, str(server.address)), SetField(destination_port, server.port)]
    set_out = [SetField(source, str(external.address)), SetField(source_port, external.port)]
    if internal:
        set_in += [SetField(source, str(internal.address)), SetField(source_port, internal.port)]
        set_out += [SetField(destination, str(client.address)), SetField(destination_port, client.port)]
    if entry.inner_hop:
        set_in.append(SetField("eth_dst", entry.inner_hop.hex(":")))
    set_out.append(SetField("eth_dst", next_hop))
    if entry.inner_hop:
        set_out.append(SetField("metadata", int.from_bytes(entry.inner_hop)))
    else:
        set_in.append(SetField("metadata", int.from_bytes(entry.next_hop)))
    owner, bucket = owner_of(external.address.packed), entry.bucket

    def flow(side: Side, match: Match, fields: list[SetField]) -> Flow:
        goto = next_table(side, bool(entry.inner_hop))
        return Flow(side.access_table, ENTRY_PRIORITY, tuple(sorted(match.items())), (*head, *fields), goto,
                    cookie=entry_cookie(side, owner, bucket), send_removed=True)

    return flow(EXTERNAL, from_client, set_in), flow(INTERNAL, from_server, set_out)
