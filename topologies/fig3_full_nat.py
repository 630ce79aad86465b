"""Figure 3 of the seed in its second embodiment, full NAT: the same machines, and every server serves all three
external IPs.

By itself:         python topologies/fig3_full_nat.py
By Mininet's mn:   mn --custom topologies/fig3_full_nat.py --topo fig3_full_nat --controller lbctl

The servers have no route to any client: what they see is an internal IP (`s1 ss -tn`, `s1 ip route`, `lbctl table
lb-a`).
"""

from dataclasses import replace

from topologies import fig3
from topologies.controller import LabController
from topologies.plan import with_full_nat
from topologies.prompt import LabPrompt, main
from topologies.topo import LabTopo

PLAN = replace(
    fig3.PLAN,
    name="fig3_full_nat",
    title="two load balancers, three external IPs with full NAT, three servers that serve all of them",
    site=with_full_nat(fig3.PLAN.site, fig3.PLAN.servers),
)


class Fig3FullNatTopo(LabTopo):
    """For `mn --topo fig3_full_nat`."""

    plan = PLAN


class Fig3FullNatController(LabController):
    """For `mn --controller lbctl`."""

    plan = PLAN


topos = {"fig3_full_nat": Fig3FullNatTopo}
controllers = {"lbctl": Fig3FullNatController}
CLI = LabPrompt  # mn takes its prompt from here

if __name__ == "__main__":
    raise SystemExit(main(PLAN))
