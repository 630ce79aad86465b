"""A Ryu app for a bed: each LB's tables are looked at every second."""

from lbctl.failures import audits

audits.PERIOD = 1.0
