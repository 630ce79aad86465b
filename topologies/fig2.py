"""Figure 2 of the seed: two load balancers side by side, each with an external IP and servers of its own.

By itself:         python topologies/fig2.py
By Mininet's mn:   mn --custom topologies/fig2.py --topo fig2 --controller lbctl
"""

from topologies.controller import LabController
from topologies.plan import Plan, machine, web_site
from topologies.prompt import LabPrompt, main
from topologies.topo import LabTopo

S1, S2, S3, S4 = (machine(f"s{n}", f"10.0.0.{10 + n}") for n in (1, 2, 3, 4))

PLAN = Plan(
    name="fig2",
    title="two load balancers side by side, four servers, three clients",
    site=web_site(
        [("198.51.100.1", "lb-a", "10.0.0.1", (S1, S2)), ("198.51.100.2", "lb-b", "10.0.0.2", (S3, S4))], letters="ab"
    ),
    servers=(S1, S2, S3, S4),
    clients=tuple(machine(f"c{n}", f"198.51.100.{100 + n}") for n in (1, 2, 3)),
)


class Fig2Topo(LabTopo):
    """For `mn --topo fig2`."""

    plan = PLAN


class Fig2Controller(LabController):
    """For `mn --controller lbctl`."""

    plan = PLAN


topos = {"fig2": Fig2Topo}
controllers = {"lbctl": Fig2Controller}
CLI = LabPrompt  # mn takes its prompt from here

if __name__ == "__main__":
    raise SystemExit(main(PLAN))
