"""An LB of a bed."""

from __future__ import annotations

from dataclasses import dataclass

from lbctl.site.model import LoadBalancer
from tests.bed import tunnels
from tests.bed.namespaces import Namespace
from tests.bed.ovs import OvsError, PrivateOvs, wait_crashed


@dataclass
class BalancerNode:
    """One LB of a bed: its namespace, and its Open vSwitch with one bridge that has the LB's name."""

    lb: LoadBalancer
    number: int
    """Among its site's, from 0."""
    space: Namespace
    ovs: PrivateOvs

    @property
    def bridge(self) -> str:
        return self.lb.name

    def start_vswitchd(self) -> None:
        """Start its ovs-vswitchd again, which was killed."""
        self.ovs.start_vswitchd()
        if self.lb.tunnel_ports:
            tunnels.address_bridge(self.space, self.number)

    def reset(self) -> None:
        """Back to the state after building: no controller, no flow."""
        for device in (self.lb.external_port, self.lb.internal_port, "eth0"):
            self.space.set_link(device, True)
        self.ovs.vsctl("--no-wait", "del-controller", self.bridge)
        if self.ovs.vswitchd_pid is not None:
            try:
                for command in ("del-flows", "del-groups", "del-meters"):
                    self.ovs.ofctl(command, self.bridge)
                self.ovs.purge()
                return
            except OvsError:
                # Open vSwitch 3.1 may crash when flows are deleted whose FINs it has yet to account
                # (docs/performance.md).
                if not wait_crashed(self.ovs):
                    raise
        self.start_vswitchd()

    def dump_flows(self) -> str:
        return self.ovs.dump_flows(self.bridge)

    def tables_hash(self) -> str:
        return self.ovs.tables_hash(self.bridge)
