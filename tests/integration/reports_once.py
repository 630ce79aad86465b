"""A Ryu app for a bed: groups are reported when external IPs are announced, once, and not again by themselves."""

from lbctl.networks import announcements, neighbourhood

announcements.ALWAYS = neighbourhood.INTERVAL = 1e9
announcements.TIMES = 1
