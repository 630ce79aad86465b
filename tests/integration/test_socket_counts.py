"""How many connections the servers of a sliced service have is what their sockets tell their keepers."""

from __future__ import annotations

from tests.bed.bed import Bed
from tests.integration.hands import metric
from tests.integration.moving import FIRST, Talks
from tests.integration.test_slices import BED, SERVERS, drain, service, wait_divided

__all__ = ["BED"]


def test_servers_sockets_tell_how_many_connections_there_are(bed: Bed) -> None:
    bed.wait_until(lambda: connections(bed) == 0, 15, "those of earlier tests have ended")
    with Talks(bed.clients[0], FIRST, 30), Talks(bed.remote, FIRST, 20):
        bed.wait_until(lambda: connections(bed) == 50, 15, "50 connections are shown")
        assert sum(server["connections"] for server in service(bed)["servers"]) == 50
        assert metric(bed, f'lbctl_connections{{dp_name="lb-a",external_ip="{FIRST}"}}') == 50
        drain(bed, True)
        assert connections(bed) is None, "some may have come since they were counted"
        wait_divided(bed, *SERVERS[1:])
        bed.wait_until(lambda: connections(bed) == 50, 15, "those of the drained server have entries")
        drain(bed, False)
    bed.wait_until(lambda: connections(bed) == 0, 15, "they have ended")


def connections(bed: Bed) -> int | None:
    shown: int | None = bed.rest("GET", f"/v1/external-ips/{FIRST}").json["connections"]
    return shown
