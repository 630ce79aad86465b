"""Sliced services in the REST API, in metrics, and as the command shows them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.api import openapi
from lbctl.api.views import servers_of
from lbctl.cli.doctor.servers import check_limit, check_servers
from lbctl.servers.shares import Share, shares, slice_weights
from lbctl.servers.slices import NOBODYS, divided
from lbctl.servers.slicing import Slicing, Step
from lbctl.servers.states import ServerState
from lbctl.site.model import SchedulerName, Server, Service
from lbctl.values.addresses import Endpoint
from lbctl.values.slices import SLICES, Count, slice_of_port
from tests.unit.api_fakes import IP_1, IP_2, ROUTER, SERVER_1, SERVER_2, START, Api, entry, sliced_site
from tests.unit.cli_harness import Command, serving

TABLE = "/v1/load-balancers/lb-a/access-table"
SERVERS = f"/v1/external-ips/{IP_1}/services/tcp/80/servers"
PLACE = (6, 80)
FIRST, SECOND = Endpoint(SERVER_1, 80), Endpoint(SERVER_2, 8080)
CLIENT = "203.0.113.9"


@pytest.fixture
def api() -> Api:
    found = Api(of_site=sliced_site())
    found.control.switches["lb-a"].neighbours[SERVER_2] = "02:00:00:00:00:12"
    return found


@pytest.fixture
def lbctl(capsys, monkeypatch):
    command = Command(capsys, monkeypatch, sliced_site())
    command.control.switches["lb-a"].neighbours.update({SERVER_2: "02:00:00:00:00:12", ROUTER: "02:00:00:00:00:fd"})
    monkeypatch.delenv("LBCTL_TOKEN", raising=False)
    with serving(command) as url:
        monkeypatch.setenv("LBCTL_URL", url)
        yield command


def pages(api: Api, **query) -> list[dict]:
    """All entries, page by page."""
    found, after = [], {}
    while True:
        answer = api.get(TABLE, **query, **after)
        found += answer["entries"]
        if answer["next"] is None:
            return found
        after = {"after": answer["next"]}


def test_a_slice_is_an_entry_with_a_mask(api) -> None:
    owner = api.control.slices[IP_1][PLACE].owners[77]
    [found] = api.get(TABLE, client=CLIENT, client_port=77 << 1 | 0x8001)["entries"]
    assert found == {
        "protocol": "tcp", "client": "any", "client_port": None, "client_ports": "0x009a/0x01fe", "slice": 77,
        "external_ip": "198.51.100.1", "external_port": 80, "server": str(owner.address), "server_port": owner.port,
        "next_hop": None, "inner_hop": None, "state": "plain", "old_server": None,
        "internal_ip": None, "internal_port": None, "packets": 0,
        "bytes": 0, "delta": 0, "created": None, "last_seen": None}
    assert set(openapi.document()["components"]["schemas"]["EntryView"]["properties"]) == set(found)


@given(st.integers(1, 0xFFFF))
def test_a_port_finds_the_slice_that_it_is_in(port) -> None:
    [found] = Api(of_site=sliced_site()).get(TABLE, client_port=port)["entries"]
    assert found["slice"] == slice_of_port(port)


@given(st.sampled_from([40, 100, 256, 300]), st.sets(st.integers(1, 0xFFFF), max_size=20), st.integers(0, SLICES - 1))
def test_pages_hold_slices_in_order_and_then_connections(limit, ports, without) -> None:
    api = Api(of_site=sliced_site())
    api.control.table[IP_1] = [entry(CLIENT, port) for port in ports]
    api.control.slices[IP_1][PLACE].owners[without] = None
    found = pages(api, limit=limit)
    assert [item["slice"] for item in found] == [n for n in range(SLICES) if n != without] + [None] * len(ports)
    assert [item["client_port"] for item in found[SLICES - 1:]] == sorted(ports)
    assert api.get(TABLE, limit=1)["total"] == len(found)


def test_filters(api) -> None:
    api.control.table[IP_1] = [entry(CLIENT, 1000)]
    owners = api.control.slices[IP_1][PLACE].owners
    assert {item["slice"] for item in pages(api, server=SERVER_2)} == {
        number for number, owner in enumerate(owners) if owner == SECOND}
    assert [item["slice"] for item in pages(api, client=CLIENT, client_port=1000)] == [slice_of_port(1000), None]
    assert [item["slice"] for item in pages(api, state="open")] == [None]
    assert pages(api, protocol="udp") == pages(api, client="2001:db8::1") == pages(api, external_ip=IP_2) == []


def test_what_nobody_counts_is_not_shown_as_0(api) -> None:
    api.control.table[IP_1] = [entry(CLIENT, 1000)]
    [first, second] = api.get("/v1/external-ips")["external_ips"]
    assert (first["connections"], second["connections"]) == (None, 0)
    assert [lb["connections"] for lb in api.get("/v1/load-balancers")["load_balancers"]] == [None, 0]
    assert {server["connections"] for server in api.get(SERVERS)["servers"]} == {None}
    text = api.call("GET", "/metrics").body.decode()
    assert "lbctl_server_connections{" not in text
    assert f'lbctl_connections{{dp_name="lb-b",external_ip="{IP_2}"}} 0.0' in text
    assert f'lbctl_connections{{dp_name="lb-a",external_ip="{IP_1}"}}' not in text
    labels = f'{{external_ip="{IP_1}",server="10.0.0.12:8080",service="tcp/80"}}'
    assert f"lbctl_server_slices{labels} 171.0" in text


def test_what_sockets_tell_is_shown(api) -> None:
    """Of the 100 at the first server one has an entry."""
    api.control.table[IP_1] = [entry(CLIENT, 1000)]
    slicing = api.control.slices[IP_1][PLACE]
    slicing.connections = {FIRST: Count(100, START), SECOND: Count(20, START)}
    assert [server["connections"] for server in api.get(SERVERS)["servers"]] == [100, 20]
    assert api.get(f"/v1/external-ips/{IP_1}")["connections"] == 120
    assert api.get("/v1/load-balancers/lb-a")["connections"] == 120
    text = api.call("GET", "/metrics").body.decode()
    assert f'lbctl_connections{{dp_name="lb-a",external_ip="{IP_1}"}} 120.0' in text
    removed(api.control, Step.NARROWED)
    assert [server["connections"] for server in api.get(SERVERS)["servers"]] == [100, None]
    assert api.get(f"/v1/external-ips/{IP_1}")["connections"] is None


def test_shares_beside_the_ideal(api) -> None:
    [service] = api.get(f"/v1/external-ips/{IP_1}")["services"]
    assert service["entries"] == "slices"
    assert [(server["slices"], server["share"], server["ideal_share"]) for server in service["servers"]] == [
        (85, 0.332, 0.3333), (171, 0.668, 0.6667)]
    assert api.get(f"{SERVERS}/{FIRST}") == service["servers"][0]
    api.control.services.states[IP_1, SECOND] = ServerState("down", 0, "refused", START)
    assert [server["ideal_share"] for server in api.get(SERVERS)["servers"]] == [1.0, 0.0]
    api.control.slices[IP_1][PLACE] = Slicing()
    assert [(server["slices"], server["connections"]) for server in api.get(SERVERS)["servers"]] == [(0, 0)] * 2


def test_servers_of_a_service_by_connections_have_no_shares() -> None:
    control = Api().control
    service = control.site.external_ips[0].services[0]
    for view in servers_of(control.shown, control.site.external_ips[0], service, service.servers):
        assert (view.slices, view.share, view.ideal_share, view.connections) == (None, None, None, 0)


@pytest.mark.parametrize(("scheduler", "wanted"), [("round-robin", (1, 1)), ("weighted-round-robin", (5, 2))])
def test_weights_count_with_the_scheduler_that_has_them(scheduler: SchedulerName, wanted) -> None:
    one, two, none = (Server(IPv4Address(f"10.0.0.{n}"), 80, weight) for n, weight in ((1, 5), (2, 2), (3, 0)))
    service = Service("tcp", 80, scheduler, (one, two, none), entries="slices")

    def weights(takes=lambda _: True, heard=lambda _: True) -> dict[Endpoint, int]:
        return slice_weights(service, takes, heard)

    assert weights() == dict(zip((one.endpoint, two.endpoint), wanted, strict=True))
    assert weights(takes=lambda server: server is not one) == {two.endpoint: wanted[1]}
    assert weights(heard=lambda server: server is one) == {one.endpoint: wanted[0]}
    assert len(weights(heard=lambda _: False)) == 2, "if nobody's MAC is known, that says nothing"
    assert weights(takes=lambda _: False) == {}
    owners = divided(NOBODYS, weights())
    found = shares(service, owners, weights())
    assert found[none.endpoint] == Share(0, 0.0, 0.0)
    assert all(abs(share.share - share.ideal) < 1 / SLICES for share in found.values())


def removed(control, step: Step, at: float = START) -> Slicing:
    """The second server's slices go to the first, which is so far."""
    slicing = control.slices[IP_1][PLACE]
    slicing.divide({FIRST: 1}, lambda _: False, lambda _: False, at)
    [change] = slicing.changes
    change.step = step
    return slicing


@pytest.mark.parametrize(("step", "old"), [(Step.NARROWED, "10.0.0.12:8080"), (Step.SWITCHED, "10.0.0.12:8080"),
                                           (Step.FLIPPED, None), (Step.SETTLING, None)])
def test_slices_that_change_hands(api, step, old) -> None:
    slicing = removed(api.control, step)
    kept = set(range(SLICES)) - slicing.changes[0].before.keys()
    slicing.mixed.add(min(kept))
    entries = pages(api)
    assert {(item["slice"] in kept, item["server"], item["state"], item["old_server"]) for item in entries} == {
        (True, "10.0.0.11", "plain", None), (True, "10.0.0.11", "mixed", None), (False, "10.0.0.11", step.value, old)}
    [service] = api.get(f"/v1/external-ips/{IP_1}")["services"]
    assert service["slice_changes"] == [{"slices": 171, "step": step.value, "since": "2023-11-14T22:13:20.000Z",
                                         "why": "their server takes no connections", "old_servers": ["10.0.0.12:8080"]}]


def test_a_slice_whose_last_server_leaves_is_shown_while_it_has_connections(api) -> None:
    slicing = api.control.slices[IP_1][PLACE]
    slicing.divide({}, lambda _: False, lambda _: False, 0.0)
    assert len(pages(api)) == SLICES == api.get(TABLE, limit=1)["total"]
    assert api.get(f"/v1/external-ips/{IP_1}")["services"][0]["slice_changes"][0]["since"] is None


# The command.


def test_table_shows_slices(lbctl) -> None:
    lbctl.control.table[IP_1] = [entry(CLIENT, 1000)]
    lines = lbctl("table", "lb-a", "--client", CLIENT, "--client-port", "1000").out.splitlines()
    assert lines[0].split()[:3] == ["slice", "proto", "client"] and len(lines) == 3
    assert lines[1].split()[:5] == ["244", "tcp", "any:0x01e8/0x01fe", "198.51.100.1:80", "10.0.0.12:8080"]
    assert lines[2].split()[:3] == ["-", "tcp", "203.0.113.9:1000"]
    found = lbctl("table", "lb-a", "--all", "--json").json
    assert found["total"] == len(found["entries"]) == SLICES + 1


def test_status_and_server_list_show_them(lbctl) -> None:
    out = lbctl("status").out
    assert "tcp/80 weighted-round-robin, sliced" in out and "router 198.51.100.254" in out
    lines = lbctl("server", "list").out.splitlines()
    assert "slices" in lines[0]
    assert " - " in lines[1] and "85 (33.2%, by weight 33.3%)" in lines[1]
    assert "171 (66.8%, by weight 66.7%)" in lines[2]
    assert lbctl("server", "list", "--json").json["servers"][1]["slices"] == 171


def test_status_shows_slices_that_change_hands(lbctl) -> None:
    removed(lbctl.control, Step.NARROWED)
    assert "198.51.100.1 tcp/80: 171 slices of 10.0.0.12:8080 change hands since" in lbctl("status").out
    assert "step narrowed." in lbctl("status").out


def test_draining_does_not_claim_to_know(lbctl) -> None:
    assert "is drained, its open connections go on." in lbctl("drain-server", "10.0.0.11").out
    run = lbctl("drain-server", "10.0.0.11", "--wait", "--timeout", "0")
    assert run.status == 1 and "still has connections that are not counted yet" in " ".join(run.err.split())
    assert lbctl.control.shown.server_state(lbctl.control.site.external_ips[0],
                                            lbctl.control.site.external_ips[0].services[0],
                                            lbctl.control.site.external_ips[0].services[0].servers[0]
                                            ).state == "drained"


def test_doctor_knows_what_a_sliced_service_needs() -> None:
    site = sliced_site()
    first, *rest = site.external_ips
    [service] = first.services
    heavy = replace(service, servers=(service.servers[0], replace(service.servers[1], weight=1000)))
    api = Api(of_site=replace(site, external_ips=(replace(first, services=(heavy,)), *rest)))
    api.control.switches["lb-a"].neighbours[SERVER_2] = "02:00:00:00:00:12"
    slices, router = [finding.what for finding in check_servers(api.get(f"/v1/external-ips/{IP_1}")) if finding.mend]
    assert "10.0.0.11 port 80 of 198.51.100.1 (tcp/80) gets no connections: its share by weight, 0.10%" in slices
    assert "router 198.51.100.254 of the sliced external IP 198.51.100.1 does not" in router
    assert "clients that are not on the external network get no answers" in router
    api.control.switches["lb-a"].neighbours[ROUTER] = "02:00:00:00:00:fd"
    api.control.slices[IP_1][PLACE].divide({FIRST: 1, SECOND: 1}, lambda _: True, lambda _: False, 0.0)
    assert not [finding for finding in check_servers(api.get(f"/v1/external-ips/{IP_1}")) if finding.mend]


def test_doctor_does_not_claim_to_know_how_many_are_open() -> None:
    api = Api(of_site=sliced_site())
    api.control.limits[IP_1] = 300.0
    [found] = check_limit(api.get(f"/v1/external-ips/{IP_1}"))
    assert "(0 entries are half-open)" in found.what


WAY = ["classify", "sources", "transfer_mode", "slices_in"]


def where(lbctl, *arguments: str) -> dict[str, tuple[str, list[str]]]:
    answer = lbctl("where", *arguments, "--json").json
    return {packet: (found["outcome"], [step["name"] for step in found["path"]])
            for packet, found in answer["verdicts"].items()}


def test_where_a_packet_of_a_slice_goes(lbctl) -> None:
    to_server = ("server", [*WAY, "slice_hop", "deliver_server"])
    assert where(lbctl, f"{CLIENT}:1000", f"{IP_1}:80") == {"syn": to_server, "segment": to_server}
    told = " ".join(lbctl("where", f"{CLIENT}:1000", f"{IP_1}:80").out.split())
    assert "tcp 203.0.113.9:1000 -> 198.51.100.1:80 is in slice 244 (client port 0x01e8/0x01fe) of a sliced" in told
    assert "A SYN: goes to server 10.0.0.12:8080 by slice 244 (client port 0x01e8/0x01fe)." in told
    assert "has no entry" not in told
    answer = lbctl("where", f"{CLIENT}:1000", f"{IP_1}:80", "--json").json
    assert answer["slice"]["slice"] == 244 and answer["entry"] is None


BY_ENTRY = [*WAY, "access_in", "slice_hop", "deliver_server"]


@pytest.mark.parametrize(("step", "syn", "segment", "server"), [
    (Step.NARROWED, ("new", [*WAY, "inbound_flags", "no_entry"]),
     ("server", [*WAY, "inbound_flags", *BY_ENTRY[4:]]), "10.0.0.12:8080"),
    (Step.SWITCHED, ("new", [*WAY, "inbound_flags", "no_entry"]),
     ("server", [*WAY, "inbound_flags", *BY_ENTRY[4:]]), "10.0.0.12:8080"),
    (Step.FLIPPED, ("new", [*WAY, "inbound_flags", "no_entry"]),
     ("server", [*WAY, "inbound_flags", *BY_ENTRY[4:]]), "10.0.0.11:80"),
    (Step.SETTLING, ("server", BY_ENTRY), ("server", BY_ENTRY), "10.0.0.11:80"),
])
def test_where_it_goes_while_its_slice_changes_hands(lbctl, step, syn, segment, server) -> None:
    removed(lbctl.control, step)
    assert where(lbctl, f"{CLIENT}:1000", f"{IP_1}:80") == {"syn": syn, "segment": segment}
    told = " ".join(lbctl("where", f"{CLIENT}:1000", f"{IP_1}:80").out.split())
    assert f"goes to server {server} by slice 244" in told
    if syn[0] == "new":
        assert "changes hands" in told


def test_where_a_connection_with_an_entry_goes_in_a_mixed_slice(lbctl) -> None:
    lbctl.control.slices[IP_1][PLACE].mixed.add(244)
    lbctl.control.table[IP_1] = [entry(CLIENT, 1000)]
    told = " ".join(lbctl("where", f"{CLIENT}:1000", f"{IP_1}:80").out.split())
    assert "goes to server 10.0.0.11:80 by its entry" in told
    lbctl.control.slices[IP_1][PLACE].mixed.clear()
    told = " ".join(lbctl("where", f"{CLIENT}:1000", f"{IP_1}:80").out.split())
    assert "goes to server 10.0.0.12:8080 by slice 244" in told, "the switch looks for no entry there"


def test_where_it_goes_if_the_router_or_the_server_is_silent(lbctl) -> None:
    neighbours = lbctl.control.switches["lb-a"].neighbours
    del neighbours[ROUTER]
    assert where(lbctl, f"{CLIENT}:1000", f"{IP_1}:80")["syn"][0] == "server"
    del neighbours[SERVER_2]
    assert where(lbctl, f"{CLIENT}:1000", f"{IP_1}:80")["syn"][0] == "dropped"
    assert "10.0.0.12 has not answered lb-a's ARP" in lbctl("where", f"{CLIENT}:1000", f"{IP_1}:80").out


def test_where_it_goes_if_its_slice_is_nobodys(lbctl) -> None:
    lbctl.control.slices[IP_1][PLACE] = Slicing()
    found = where(lbctl, f"{CLIENT}:1000", f"{IP_1}:80")
    assert found["syn"] == ("reset", [*WAY, "inbound_flags", "no_entry"]) and found["segment"][0] == "reset"
    assert "no server takes connections" in lbctl("where", f"{CLIENT}:1000", f"{IP_1}:80").out


def test_where_another_service_of_its_external_ip_is_not_sliced(lbctl) -> None:
    site = lbctl.control.site
    first, *rest = site.external_ips
    plain = Service("tcp", 81, servers=(Server(SERVER_1, 81),))
    lbctl.control.site = replace(site, external_ips=(replace(first, services=(*first.services, plain)), *rest))
    assert where(lbctl, f"{CLIENT}:1000", f"{IP_1}:81")["syn"] == ("new", [*WAY[:3], "inbound_flags", "no_entry"])


def test_where_a_client_inside_goes(lbctl) -> None:
    """It has an entry of its own, or gets one: answers to a slice's client would miss the LB."""
    found = where(lbctl, "10.0.0.12:1000", f"{IP_1}:80")
    assert found["syn"][0] == "new" and "slices_in" not in found["syn"][1]
