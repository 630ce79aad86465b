"""A Ryu app for a bed: a packet with a connection's addresses and ports is believed. A RST ends it, so does a FIN of
either side, and a SYN opens another one in its place."""

from ipaddress import ip_address

from lbctl.connections import endings
from lbctl.connections.endings import Endings
from lbctl.connections.new_connections import NewConnections
from lbctl.entries.access_table import FIN_IN, FIN_OUT
from lbctl.values.addresses import Endpoint

opened = NewConnections._open


def open_another(parts, arrival, serving, key, entry, avoided=None):
    if entry is None or entry.isn == arrival.packet.seq:
        return opened(parts, arrival, serving, key, entry, avoided)
    address, port = entry.server
    ended = parts._endings.end_all(serving, [entry], arrival.now)
    return ended + opened(parts, arrival, serving, key, None, Endpoint(ip_address(address), port))


Endings.revived = lambda *_: None
endings._has_finished = lambda entry, now: bool(entry.flags & (FIN_IN | FIN_OUT))
NewConnections._open = open_another
