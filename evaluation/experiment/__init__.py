"""The experiment: a load that shifts between external IPs, with the assignment as it was and with rebalancing by measured loads."""
