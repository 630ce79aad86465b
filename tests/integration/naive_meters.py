"""A Ryu app for a bed: the packets that open connections share one meter, whosever they are."""

from lbctl.openflow import meters

meters.OWNERS = 1
