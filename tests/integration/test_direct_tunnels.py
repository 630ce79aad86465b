"""Direct server return to servers behind tunnels: IPVS's "tunnelling", and Katran's way."""

from __future__ import annotations

import pytest

from lbctl.site.model import Site
from tests.bed.bed import Bed
from tests.bed.patience import limit
from tests.bed.sites import behind_tunnels, with_keepers
from tests.bed.traffic import request
from tests.integration.icmp_tools import REACHED, trace
from tests.integration.moving import FIRST, assert_unharmed, mixed_load
from tests.integration.test_direct import direct, prepare
from tests.integration.test_field_packets import LARGE, Plug
from tests.integration.test_icmp import MUCH
from tests.integration.test_slices import drain, wait_divided

SERVERS = "10.9.0.11", "10.9.0.12", "10.9.0.13"


def tunneled() -> Site:
    """The second external IP's servers are behind another kind of tunnel than the first one's."""
    return with_keepers(behind_tunnels(direct(), "vxlan", "geneve"), "sockets")


BED = {"site": tunneled()}
__all__ = ["prepare"]


@pytest.mark.parametrize("address", [FIRST, "198.51.100.2"])
def test_what_is_small_and_what_is_larger_than_the_tunnel(bed: Bed, address: str) -> None:
    for space in (bed.clients[0], bed.remote):
        assert len({request(space, address)["server"] for _ in range(20)}) == 3, "all servers"
        uploaded = request(space, address, method="POST", body=b"x" * MUCH, timeout=limit(3.0))
        assert uploaded["received"] == MUCH
        with Plug(space, address) as plug:
            assert plug.ask(10)
            assert plug.ask(LARGE), "in fragments"
    assert trace(bed.remote, "tcp", address, 80)[1:] == [address, REACHED]


def test_a_move_while_servers_come_and_go(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST)
    for drained, having, to in ((True, SERVERS[1:], "lb-b"), (False, SERVERS, "lb-a")):
        drain(bed, drained, f"{SERVERS[0]}:80")
        assert bed.move(FIRST, to)["state"] == "done"
        wait_divided(bed, *having)
    assert_unharmed(loads)
