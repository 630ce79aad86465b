"""An LB of a bed."""

from __future__ import annotations

from dataclasses import dataclass

from lbctl.site.model import LoadBalancer
from tests.bed.namespaces import Namespace
from tests.bed.ovs import PrivateOvs


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

    def dump_flows(self) -> str:
        return self.ovs.dump_flows(self.bridge)

    def tables_hash(self) -> str:
        return self.ovs.tables_hash(self.bridge)
