"""The MACs that clients of sliced services are answered to, where that is not what their router says."""

from __future__ import annotations

from lbctl.openflow.flow import Flow
from lbctl.openflow.slice_rules import client_flows, router_flow
from lbctl.values.addresses import Address

MOST = 4096
"""Clients, and as many routers' MACs. The one that was met last but longest ago makes room."""


class ClientHops:
    """The same for all LBs, so that a move has nothing to tell. MACs are text."""

    def __init__(self) -> None:
        self._clients: dict[Address, str] = {}
        self._routers: dict[str, None] = {}

    def of(self, client: Address) -> str | None:
        """The MAC of a client that is known by itself."""
        return self._clients.get(client)

    def flows(self) -> list[Flow]:
        """All that every LB should hold."""
        clients = [flow for client, mac in self._clients.items() for flow in client_flows(client, mac)]
        return [*clients, *map(router_flow, self._routers)]

    def met(self, client: Address, mac: str) -> tuple[list[Flow], list[Flow]]:
        """That client sends from there. Returns the flows that come and that go by this."""
        before = self._clients.pop(client, None)
        gone = list(client_flows(client, before)) if before not in (None, mac) else []
        if before is None and len(self._clients) >= MOST:
            oldest = next(iter(self._clients))
            gone += client_flows(oldest, self._clients.pop(oldest))
        self._clients[client] = mac
        return list(client_flows(client, mac)), gone

    def met_router(self, mac: str) -> tuple[list[Flow], list[Flow]]:
        """A router sends from there, not the one that clients are answered by. Returns the same."""
        if mac in self._routers:
            return [], []
        gone = [router_flow(self._routers_oldest())] if len(self._routers) >= MOST else []
        self._routers[mac] = None
        return [router_flow(mac)], gone

    def _routers_oldest(self) -> str:
        oldest = next(iter(self._routers))
        del self._routers[oldest]
        return oldest
