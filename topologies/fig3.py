"""Figure 3 of the seed: two load balancers, three external IPs that can move between them, a server for each.

By itself:         python topologies/fig3.py
By Mininet's mn:   mn --custom topologies/fig3.py --topo fig3 --controller lbctl

Clients c1 and c2 are on the external network, c3 and c4 on another one, behind a router.
"""

from topologies.controller import LabController
from topologies.plan import Plan, machine, web_site
from topologies.prompt import LabPrompt, main
from topologies.topo import LabTopo

S1, S2, S3 = machine("s1", "10.0.0.11"), machine("s2", "10.0.0.12"), machine("s3", "10.0.0.13")

PLAN = Plan(
    name="fig3",
    title="two load balancers, three external IPs, three servers, clients near and behind a router",
    site=web_site(
        [
            ("198.51.100.1", "lb-a", "10.0.0.1", (S1,)),
            ("198.51.100.2", "lb-a", "10.0.0.2", (S2,)),
            ("198.51.100.3", "lb-b", "10.0.0.3", (S3,)),
        ],
        letters="ab",
    ),
    servers=(S1, S2, S3),
    clients=(
        machine("c1", "198.51.100.101"),
        machine("c2", "198.51.100.102"),
        machine("c3", "203.0.113.103"),
        machine("c4", "203.0.113.104"),
    ),
    seed_names={"198.51.100.1": "31a-IP-1", "198.51.100.2": "31a-IP-2", "198.51.100.3": "31b-IP-1"},
)


class Fig3Topo(LabTopo):
    """For `mn --topo fig3`."""

    plan = PLAN


class Fig3Controller(LabController):
    """For `mn --controller lbctl`."""

    plan = PLAN


topos = {"fig3": Fig3Topo}
controllers = {"lbctl": Fig3Controller}
CLI = LabPrompt  # mn takes its prompt from here

if __name__ == "__main__":
    raise SystemExit(main(PLAN))
