"""Keeps every slice with a server that takes connections."""

from __future__ import annotations

from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.slice_rules import slice_flows
from lbctl.servers.slices import divided
from lbctl.site.model import Service
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import Place


class Slices:
    """Of all sliced services."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def tick(self, now: float) -> Outbox:
        """What other servers, weights and states of servers change."""
        out: Outbox = []
        for serving in self._ground.external_ips:
            for place in serving.slices:
                out += self._divide(serving, place)
        return out

    def _divide(self, serving: Serving, place: Place) -> Outbox:
        service, before = serving.services[place], serving.slices[place]
        owners = divided(before, self._weights(serving, place, service))
        if owners == before:
            return []
        old = {flow.identity: flow for flow in slice_flows(serving.sliced(place))}
        serving.slices[place] = owners
        new = {flow.identity: flow for flow in slice_flows(serving.sliced(place))}
        changed = sum(here != there for here, there in zip(before, owners, strict=True))
        name = f"{service.protocol}/{service.port}"
        self._ground.log("slices divided", external_ip=str(serving.address), service=name, changed=changed)
        return self._ground.change_alike(
            list(new.values()), [flow for identity, flow in old.items() if identity not in new]
        )

    def _weights(self, serving: Serving, place: Place, service: Service) -> dict[Endpoint, int]:
        """Of the servers that take connections. Those that have not told the LB their MAC are passed over while
        others have."""
        taking = [server for server in service.servers if server.weight and serving.servers.takes(place, server)]
        switch = self._ground.switches[serving.assigned]
        heard = [server for server in taking if switch.hears(server.hop.address)]
        return {server.endpoint: server.weight for server in heard or taking}
