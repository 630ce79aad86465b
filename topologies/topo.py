"""The Mininet topology of a plan.

    clients -- remote -- router --\\
                       clients -- external -- LBs -- internal -- servers
                   name server --/             |
                                            management -- controller (outside)

Where the control function runs on a server, there is no management network: the LBs' control connections go over the
internal network, by devices of their own.
"""

from __future__ import annotations

from topologies import plan
from topologies.emulator import Topo
from topologies.nodes import (
    Client,
    LoadBalancerSwitch,
    ManagementSegment,
    NameServer,
    Router,
    Routes,
    Segment,
    WebServer,
)
from topologies.plan import Plan

EXTERNAL, INTERNAL, REMOTE, MANAGEMENT = "external", "internal", "remote", "management"


class LabTopo(Topo):
    """A lab as Mininet builds it; a figure's file sets `plan`, or it is given."""

    plan: Plan

    def build(self, plan: Plan | None = None) -> None:  # noqa: A002
        self.plan = plan or self.plan
        for segment in (EXTERNAL, INTERNAL):
            self.addSwitch(segment, cls=Segment)
        if self.plan.control_server is None:
            self.addSwitch(MANAGEMENT, cls=ManagementSegment)
        self._add_load_balancers()
        self._add_servers()
        if self.plan.remote_clients:
            self._add_router()
        self._add_clients()

    def _add_load_balancers(self) -> None:
        for number, lb in enumerate(self.plan.site.load_balancers):
            self.addSwitch(
                lb.name,
                cls=LoadBalancerSwitch,
                dpid=f"{lb.dpid:016x}",
                external_port=lb.external_port,
                internal_port=lb.internal_port,
                controller=self.plan.controller,
                control_address=self.plan.control_address(number),
            )
            self._link(lb.name, EXTERNAL, lb.external_port)
            self._link(lb.name, INTERNAL, lb.internal_port)
            self._link(lb.name, INTERNAL if self.plan.control_server else MANAGEMENT, f"{lb.name}-mgmt")

    def _add_servers(self) -> None:
        for server in self.plan.servers:
            gateway = self.plan.gateway_of(server)
            routes: Routes = [("default", gateway)] if gateway else []
            keeper = next((keeper for keeper in self.plan.site.keepers.each if keeper.server == server.address), None)
            self.addHost(server.name, cls=WebServer, addresses=[server.address], routes=routes, keeper=keeper)
            self._link(server.name, INTERNAL)
        answers = [external_ip.address for external_ip in self.plan.site.external_ips]
        self.addHost(
            "dns",
            cls=NameServer,
            addresses=[plan.NAME_SERVER],
            site_name=plan.SITE_NAME,
            answers=answers,
            routes=self._way_to_remote(),
        )
        self._link("dns", EXTERNAL)

    def _add_router(self) -> None:
        self.addSwitch(REMOTE, cls=Segment)
        self.addHost("router", cls=Router, addresses=[plan.ROUTER_EXTERNAL, plan.ROUTER_REMOTE])
        self._link("router", EXTERNAL, "router-ext")
        self._link("router", REMOTE, "router-remote")

    def _add_clients(self) -> None:
        for client in self.plan.clients:
            remote = client in self.plan.remote_clients
            self.addHost(
                client.name,
                cls=Client,
                addresses=[client.address],
                name_server=plan.NAME_SERVER,
                routes=[("default", plan.ROUTER_REMOTE)] if remote else self._way_to_remote(),
            )
            self._link(client.name, REMOTE if remote else EXTERNAL)

    def _way_to_remote(self) -> Routes:
        return [(str(plan.REMOTE_NETWORK), plan.ROUTER_EXTERNAL)] if self.plan.remote_clients else []

    def _link(self, node: str, segment: str, interface: str | None = None) -> None:
        name = interface or f"{node}-eth0"
        # Told apart by the segment: Linux takes 15 characters for a name.
        self.addLink(node, segment, intfName1=name, intfName2=f"to-{name}"[:15])
