"""A Ryu app for a bed: who sends a RST with a connection's addresses and ports ends it."""

from lbctl.connections.endings import Endings

Endings.revived = lambda endings, arrival, serving, key: None
