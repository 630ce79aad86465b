"""A connection in words."""

from __future__ import annotations

from typing import NamedTuple

from lbctl.values.addresses import Endpoint


class Connection(NamedTuple):
    """The addresses of one access-table entry (seed figures 5 and 12, columns 901-905, 913, 914)."""

    protocol: int
    client: Endpoint
    external: Endpoint
    server: Endpoint
    next_hop: str
    """The MAC that the client's packets came from; answers go back to it."""
    internal: Endpoint | None = None
    """What the server sees in the client's place with full NAT (seed figure 12, columns 913 and 914)."""
