"""A Ryu app for a bed: what is larger than the next link is dropped."""

from lbctl.connections.icmp_handler import IcmpHandler

IcmpHandler.too_big = lambda handler, arrival: []
