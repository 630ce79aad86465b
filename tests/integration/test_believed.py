"""Nobody is believed for more than is theirs (docs/security.md): by the real OpenFlow and HTTP servers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.bed.bed import Bed
from tests.bed.sites import simple_site
from tests.integration.hands import eventually, metric
from tests.integration.moving import FIRST, Talks
from tests.integration.test_bad_input import shake_hands

PLAIN = simple_site(external_ips=1, servers=2, settings={"grace": 0.5, "linger": 1})
SITE = replace(PLAIN, load_balancers=tuple(
    replace(lb, management_address=ip_address(f"198.18.0.{11 + number}"))
    for number, lb in enumerate(PLAIN.load_balancers)))
BED = {"site": SITE}


def state(bed: Bed, lb: str) -> str:
    found: str = bed.rest("GET", f"/v1/load-balancers/{lb}").json["state"]
    return found


def leave(bed: Bed, lb: str) -> None:
    node = bed.lbs[lb]
    node.ovs.vsctl("del-controller", node.bridge)
    eventually(bed, lambda: state(bed, lb) == "disconnected", f"{lb} is gone")


def test_who_connects_from_elsewhere_is_not_the_lb(bed: Bed) -> None:
    """lb-b's host says that it is lb-a, which is away."""
    with Talks(bed.clients[0], FIRST, 3) as talks:
        leave(bed, "lb-a")
        refused = metric(bed, 'lbctl_controller_events_total{event="switches_refused"}')
        with shake_hands(bed, 0xAA) as stranger:
            stranger.settimeout(10)
            while stranger.recv(4096):
                pass  # until it is sent away
        assert state(bed, "lb-a") == "disconnected"
        assert metric(bed, 'lbctl_controller_events_total{event="switches_refused"}') == refused + 1
        assert talks.broken() == []


def test_without_an_address_it_is_believed(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.configure(PLAIN)
    quiet_bed.start_controller()
    leave(quiet_bed, "lb-a")
    with shake_hands(quiet_bed, 0xAA):
        eventually(quiet_bed, lambda: state(quiet_bed, "lb-a") != "disconnected", "it is believed")


@pytest.mark.parametrize(("headers", "status"), [
    ({"Origin": "http://evil.example"}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Content-Type": "text/plain"}, 415), ({"Host": "evil.example:8080"}, 421), ({}, 200)])
def test_a_web_page_gives_no_orders(live: Bed, headers: dict[str, str], status: int) -> None:
    """What a browser on the controller's host sends for a page of somebody else's."""
    answer = live.rest("POST", "/v1/load-balancers/lb-b/failover", headers=headers)
    assert answer.status == status, answer.text
