"""A Ryu app for a bed: what has only seen a SYN is an entry as any other."""

from lbctl.connections import pressure

pressure.full = lambda serving, protocol: None
pressure.half_open_timeout = lambda serving: 1e9
