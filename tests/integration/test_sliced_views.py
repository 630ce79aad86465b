"""What is shown of sliced services is what the switches do."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from dataclasses import replace
from typing import Any

import pytest

from lbctl.site.model import Site
from lbctl.values.slices import SLICES, slice_of_port
from tests.bed.bed import Bed
from tests.bed.traffic import connect
from tests.integration.test_lbctl_command import lbctl, traced_rule, worked_out_rule
from tests.integration.test_slices import sliced

FIRST, PLAIN = "198.51.100.1", "198.51.100.2"


def site() -> Site:
    """The first external IP's service is sliced, the second one's is not."""
    made = sliced(servers=3, external_ips=2)
    first, second = made.external_ips
    [service] = second.services
    plain = replace(second, router=None, services=(replace(service, entries="connections"),))
    return replace(made, external_ips=(first, plain))


BED = {"site": site()}


def where(bed: Bed, client: str, external: str = f"{FIRST}:80") -> dict[str, Any]:
    rundir = bed.lbs["lb-a"].ovs.rundir
    found: dict[str, Any] = json.loads(
        lbctl(bed, "where", client, external, "--trace", "--ovs-rundir", rundir, "--json"))
    return found


def slices_at_rest(bed: Bed) -> bool:
    """Else the flows may be others by the time of the trace."""
    page = json.loads(lbctl(bed, "table", "lb-a", "--all", "--json"))
    return {entry["state"] for entry in page["entries"]} == {"plain"}


def server_of(connection: socket.socket) -> str:
    """Who answers on it."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    response = http.client.HTTPResponse(connection)
    response.begin()
    answer: dict[str, Any] = json.loads(response.read())
    return str(answer["server"])


@pytest.mark.parametrize("port", [1, 40002, 65535])
def test_where_says_what_the_switch_says(bed: Bed, port: int) -> None:
    bed.wait_until(lambda: slices_at_rest(bed), 30, "slices that stay as they are")
    answer = where(bed, f"203.0.113.9:{port}")
    found = answer["verdicts"]["syn"]
    traced = [line for line in answer["trace"].splitlines() if "<- table" in line]
    assert [line.split("<- table ")[1].split(",")[0] for line in traced] == [step["name"] for step in found["path"]]
    assert [traced_rule(line) for line in traced] == [worked_out_rule(step["rule"]) for step in found["path"]]
    assert found["outcome"] == "server" and answer["slice"]["slice"] == slice_of_port(port)


def test_the_server_that_answers_is_the_one_that_is_shown(bed: Bed) -> None:
    for space in (bed.remote, bed.clients[0]):
        for _ in range(2):
            with connect(space, FIRST) as connection:
                address, port = connection.getsockname()
                shown = where(bed, f"{address}:{port}")
                assert server_of(connection) == shown["slice"]["server"]
                page = bed.rest("GET", f"/v1/load-balancers/lb-a/access-table?client={address}&client_port={port}").json
                assert [entry["slice"] for entry in page["entries"]] == [slice_of_port(port)]


def test_table_status_and_servers(bed: Bed) -> None:
    table = json.loads(lbctl(bed, "table", "lb-a", "--all", "--json"))
    assert len(table["entries"]) == table["total"] == SLICES
    servers = json.loads(lbctl(bed, "server", "list", "--external-ip", FIRST, "--json"))["servers"]
    assert sorted(server["slices"] for server in servers) == [85, 85, 86]
    assert {(server["connections"], server["ideal_share"]) for server in servers} == {(None, 0.3333)}
    assert "tcp/80 round-robin, sliced" in lbctl(bed, "status")


def test_what_a_slice_has_carried(bed: Bed) -> None:
    """At whatever LB. What a flow has counted since the last reading is lost when it goes, as some do at first."""
    for to in ("lb-b", "lb-a"):
        with connect(bed.remote, FIRST) as connection:
            server_of(connection)
            number = slice_of_port(connection.getsockname()[1])
            before = carried(bed, number)

            def sent_and_counted(connection=connection, number=number, before=before) -> bool:
                connection.sendall(b"x")
                return carried(bed, number) > before

            bed.wait_until(sent_and_counted, 25, "packets are counted")
            assert bed.move(FIRST, to)["state"] == "done"


def carried(bed: Bed, number: int) -> int:
    lb = bed.rest("GET", f"/v1/external-ips/{FIRST}").json["load_balancer"]
    found = bed.rest("GET", f"/v1/load-balancers/{lb}/access-table?external_ip={FIRST}&limit=1000").json["entries"]
    return next(int(entry["bytes"]) for entry in found if entry["slice"] == number)


def cached(bed: Bed, address: str) -> int:
    """Flows of the datapaths' caches for what clients send to that external IP."""
    lines = [line for lb in bed.lbs.values() for line in lb.ovs.appctl("dpctl/dump-flows").splitlines()]
    return sum(f"dst={address}," in line.partition("actions:")[0] and "tcp(" in line for line in lines)


@pytest.mark.parametrize(("address", "bounded"), [(FIRST, True), (PLAIN, False)])
def test_cached_flows_do_not_grow_with_connections(bed: Bed, address: str, bounded: bool) -> None:
    """At most one for each slice and MAC that clients' packets come from, which is the router's here. The twin: entries
    by connection have one for each connection at least."""
    with contextlib.ExitStack() as stack:
        for _ in range(SLICES + 50):
            server_of(stack.enter_context(connect(bed.remote, address)))
        found = cached(bed, address)
    assert found > 0 and (found <= SLICES) is bounded
