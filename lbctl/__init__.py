"""lbctl: Open vSwitch bridges as active/active load balancers whose external IPs move without losing connections."""

__version__ = "0.1.0"
