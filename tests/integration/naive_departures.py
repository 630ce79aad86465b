"""A Ryu app for a bed: a UDP flow stays with its server, wherever that has gone."""

from lbctl.connections.departures import Departures

Departures.tick = lambda departures, now: []
