"""Figure 1 of the seed: one load balancer, and all that depends on it.

By itself:         python topologies/fig1.py
By Mininet's mn:   mn --custom topologies/fig1.py --topo fig1 --controller lbctl
"""

from topologies.controller import LabController
from topologies.plan import Plan, machine, web_site
from topologies.prompt import LabPrompt, main
from topologies.topo import LabTopo

S1, S2, S3 = machine("s1", "10.0.0.11"), machine("s2", "10.0.0.12"), machine("s3", "10.0.0.13")

PLAN = Plan(
    name="fig1",
    title="one load balancer, three servers, three clients",
    site=web_site([("198.51.100.1", "lb-a", "10.0.0.1", (S1, S2, S3))], letters="a"),
    servers=(S1, S2, S3),
    clients=tuple(machine(f"c{n}", f"198.51.100.{100 + n}") for n in (1, 2, 3)),
)


class Fig1Topo(LabTopo):
    """For `mn --topo fig1`."""

    plan = PLAN


class Fig1Controller(LabController):
    """For `mn --controller lbctl`."""

    plan = PLAN


topos = {"fig1": Fig1Topo}
controllers = {"lbctl": Fig1Controller}
CLI = LabPrompt  # mn takes its prompt from here

if __name__ == "__main__":
    raise SystemExit(main(PLAN))
