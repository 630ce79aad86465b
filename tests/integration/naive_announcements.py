"""A Ryu app for a bed: all external IPs are announced at once, five times, and never again."""

from lbctl.networks import announcements

announcements.BURST = announcements.ALWAYS = announcements.ASTRAY = 1e9
