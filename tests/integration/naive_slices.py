"""A Ryu app for a bed: a slice is its new server's at once, with all connections that it has."""

from lbctl.servers.slicing import Slicing

divide, leave = Slicing.divide, Slicing.leave
Slicing.divide = lambda slicing, weights, gone, silent, now: divide(slicing, weights, lambda server: True, silent, now)
Slicing.leave = lambda slicing, gone, now: leave(slicing, lambda server: True, now)
