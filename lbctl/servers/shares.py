"""How many of a sliced service's slices each server is to have, and has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lbctl.site.model import Server, Service
from lbctl.values.addresses import Endpoint


class Share(NamedTuple):
    """Of one server: its slices; their part of all, and the part that its weight would give it (0 to 1)."""

    slices: int
    share: float
    ideal: float


def slice_weights(service: Service, takes: Callable[[Server], bool], heard: Callable[[Server], bool]
                  ) -> dict[Endpoint, int]:
    """Of the servers that slices are divided among: those that take connections. Those that do not tell the LB
    their MAC are passed over while others do."""
    taking = [server for server in service.servers if server.weight and takes(server)]
    weighted = service.scheduler == "weighted-round-robin"
    return {server.endpoint: server.weight if weighted else 1
            for server in [server for server in taking if heard(server)] or taking}


def shares(service: Service, owners: Sequence[Endpoint | None], weights: Mapping[Endpoint, int]
           ) -> dict[Endpoint, Share]:
    """Of each server of the service. owners: the server of each slice. weights: see slice_weights."""
    slices, total = Counter(owners), sum(weights.values())
    return {server.endpoint: Share(slices[server.endpoint], slices[server.endpoint] / len(owners),
                                   weights.get(server.endpoint, 0) / total if total else 0.0)
            for server in service.servers}
