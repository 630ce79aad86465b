"""An access-table entry as its two flows.

They are the same on every LB: addresses, ports and the client's next hop, never an LB's own MAC or port. The wire
form of these flows, for the hot paths, is in lbctl/openflow/entries.py and tested against this one.
"""

from __future__ import annotations

from lbctl.access_table import Entry
from lbctl.pipeline import flow as f
from lbctl.pipeline.cookies import Kind, entry_cookie
from lbctl.pipeline.flow import FinTimeout, Flow, SetField

ENTRY_PRIORITY = 100


def entry_flows(entry: Entry, linger: int) -> tuple[Flow, Flow]:
    """The flow from client to server and the one from server to client.

    linger: seconds that a direction's flow stays, unused, once it has seen FIN or RST.
    """
    protocol, client, external, server, next_hop = entry.connection
    owner = int(external.address)
    base = {"eth_type": f.ETH_IP, "ip_proto": protocol}
    inward = {**base, "ipv4_src": str(client.address), "tcp_src": client.port,
              "ipv4_dst": str(external.address), "tcp_dst": external.port}
    outward = {**base, "ipv4_src": str(server.address), "tcp_src": server.port,
               "ipv4_dst": str(client.address), "tcp_dst": client.port}
    return (
        Flow("access_in", ENTRY_PRIORITY, tuple(sorted(inward.items())),
             (FinTimeout(linger), SetField("ipv4_dst", str(server.address)), SetField("tcp_dst", server.port)),
             "deliver_server", cookie=entry_cookie(Kind.ENTRY_IN, owner, entry.bucket), send_removed=True),
        Flow("access_out", ENTRY_PRIORITY, tuple(sorted(outward.items())),
             (FinTimeout(linger), SetField("ipv4_src", str(external.address)), SetField("tcp_src", external.port),
              SetField("eth_dst", next_hop)),
             "deliver_client", cookie=entry_cookie(Kind.ENTRY_OUT, owner, entry.bucket), send_removed=True),
    )
