"""A Ryu app for a bed: a frame with a tag goes the way of one without, as it is."""

from lbctl.openflow import rules

entrance = rules._entrance_flows
rules._entrance_flows = lambda ports, tunnels: (
    flow for flow in entrance(ports, tunnels) if "vlan_vid" not in dict(flow.match))
