"""A Ryu app for a bed: a connection that has seen a FIN, and is silent for a while, is over."""

from lbctl.connections.endings import Endings

Endings.expire = Endings.end_all
