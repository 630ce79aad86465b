"""The experiment: a load that shifts between external IPs, with a static assignment and with automatic rebalancing."""
