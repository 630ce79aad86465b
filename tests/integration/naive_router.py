"""A Ryu app for a bed: what a NAT gateway's connections send goes for ever to where its router was first."""

from lbctl.networks.neighbourhood import Neighbourhood

Neighbourhood._follow_router = lambda neighbourhood, switch, router, mac: []
