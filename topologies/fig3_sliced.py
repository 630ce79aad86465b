"""Figure 3 of the seed with sliced services (docs/slices.md): two servers share one external IP.

By itself:         python topologies/fig3_sliced.py
By Mininet's mn:   mn --custom topologies/fig3_sliced.py --topo fig3_sliced --controller lbctl

A new connection shows the controller nothing, and adds nothing to the LB (`lbctl table lb-a`). Each server has a
keeper, which tells its sockets when slices change hands (`lbctl drain-server 10.0.0.11`); the control function is on
s3, where it reaches them.
"""

from dataclasses import replace

from topologies import fig3
from topologies.controller import LabController
from topologies.fig3 import S1, S2, S3
from topologies.plan import web_site, with_keepers
from topologies.prompt import LabPrompt, main
from topologies.topo import LabTopo

SITE = web_site(
    [("198.51.100.1", "lb-a", "10.0.0.1", (S1, S2)), ("198.51.100.3", "lb-b", "10.0.0.3", (S3,))], letters="ab"
)
PLAN = replace(
    fig3.PLAN,
    name="fig3_sliced",
    title="two load balancers, two external IPs with sliced services, the first one with two servers, keepers",
    site=with_keepers(SITE, fig3.PLAN.servers, [["sockets"], ["sockets"]]),
    seed_names={"198.51.100.1": "31a-IP-1", "198.51.100.3": "31b-IP-1"},
    control_server=S3,
).sliced()


class Fig3SlicedTopo(LabTopo):
    """For `mn --topo fig3_sliced`."""

    plan = PLAN


class Fig3SlicedController(LabController):
    """For `mn --controller lbctl`."""

    plan = PLAN


topos = {"fig3_sliced": Fig3SlicedTopo}
controllers = {"lbctl": Fig3SlicedController}
CLI = LabPrompt  # mn takes its prompt from here

if __name__ == "__main__":
    raise SystemExit(main(PLAN))
