"""A Ryu app for a bed: answers go for ever to the MAC that a connection's first packet came from."""

from lbctl.connections.last_hops import LastHops

LastHops.arrived = lambda hops, arrival: []
