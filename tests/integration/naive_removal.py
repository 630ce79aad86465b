"""A Ryu app for a bed: a server that is taken out of a service is forgotten at once, with the connections that it still
has."""

import lbctl.ground.in_use

lbctl.ground.in_use.servers_in_use = lambda serving: set()
