"""The OpenFlow tables of a load balancer: their declaration, and pure functions that return flows."""
