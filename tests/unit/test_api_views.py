"""What the API shows of the control function: load balancers, access table by page, moves, metrics, OpenAPI."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.api import openapi
from lbctl.api.paging import START, page
from lbctl.api.routes import ROUTES
from lbctl.entries.access_table import RESET
from lbctl.ground.move_record import StepRecord
from tests.unit.api_fakes import FULL, GATEWAY, IP_1, IP_2, SERVER_2, Api, entry, entry_of, problem, site_of_all_kinds

TABLE = "/v1/load-balancers/lb-a/access-table"
MOVE = f"/v1/external-ips/{IP_1}/move"


def test_a_load_balancer_shows_its_state_ports_and_load():
    api = Api()
    api.control.table[IP_1] = [entry("203.0.113.9", 1000)]
    api.control.switches["lb-a"].counters.update({"packet_ins": 7, "dropped_malformed": 2, "resets": 1})
    view = api.get("/v1/load-balancers/lb-a")
    assert view == {
        "name": "lb-a", "dpid": "00000000000000aa", "state": "ready", "reason": None, "health": "well",
        "health_reason": None,
        "standby": False,
        "ports": {"external": {"name": "lba-ext", "number": 1, "mac": "02:00:00:00:01:01", "up": True, "mtu": 1500},
                  "internal": {"name": "lba-int", "number": 2, "mac": "02:00:00:00:01:02", "up": True, "mtu": 1500},
                  "tunnels": {}},
        "internal_networks": ["10.0.0.0/24"],
        "external_ips": ["198.51.100.1"], "connections": 1, "capacity": 1.0, "drained": False,
        "load": {"packets_per_second": 0.0, "bytes_per_second": 0.0, "new_connections_per_second": 0.0},
        "foreign_flows": 0,
        "counters": {"packet_ins": 7, "dropped": {"malformed": 2}, "other": {"resets": 1}}}
    assert api.get("/v1/load-balancers")["load_balancers"][0] == view


def test_an_entry_shows_the_columns_of_figure_5():
    api = Api()
    api.control.table[IP_1] = [entry("203.0.113.9", 1000, server=SERVER_2)]
    assert api.get(TABLE) == {"next": None, "total": 1, "entries": [{
        "protocol": "tcp", "client": "203.0.113.9", "client_port": 1000, "external_ip": "198.51.100.1",
        "external_port": 80, "server": "10.0.0.12", "server_port": 80, "next_hop": "02:00:00:00:00:09",
        "client_ports": None, "slice": None, "old_server": None,
        "inner_hop": None, "state": "open", "internal_ip": None, "internal_port": None, "packets": 0, "bytes": 0,
        "delta": 0,
        "created": "2023-11-14T22:13:20.000Z", "last_seen": "2023-11-14T22:13:20.000Z"}]}


def all_pages(api: Api, between=lambda: None, **query):
    """(client, port, external IP) of all entries, page by page; `between` is called after each page."""
    listed, after = [], {}
    while True:
        answer = api.get(TABLE, **query, **after)
        listed += [(item["client"], item["client_port"], item["external_ip"]) for item in answer["entries"]]
        if answer["next"] is None:
            return listed
        after = {"after": answer["next"]}
        between()


@given(st.sets(st.tuples(st.sampled_from(["203.0.113.9", "203.0.113.10", "9.9.9.9"]), st.integers(1, 65535),
                         st.sampled_from([IP_1, IP_2]))), st.integers(1, 7), st.randoms(use_true_random=False))
def test_pages_hold_each_entry_once_whatever_changes_in_between(keys, limit, chance):
    api = Api()
    api.control.assignment[IP_2] = "lb-a"
    staying = {key for key in keys if chance.random() < 0.7}
    fresh = itertools.count(1)
    for client, port, external in sorted(keys, key=lambda _: chance.random()):
        api.control.table[external].append(entry(client, port, external))

    def change():
        for external, entries in api.control.table.items():
            entries[:] = [e for e in entries if (str(e.connection.client.address), e.connection.client.port, external)
                          in staying or chance.random() < 0.8] + [entry("8.8.8.8", next(fresh), external)]

    listed = all_pages(api, change, limit=limit)
    assert [listed.count((client, port, str(external))) for client, port, external in staying] == [1] * len(staying)


def test_filters_on_external_ip_and_client():
    api = Api()
    api.control.assignment[IP_2] = "lb-a"
    api.control.table[IP_1] = [entry("203.0.113.9", 1), entry("203.0.113.9", 2), entry("203.0.113.8", 1)]
    api.control.table[IP_2] = [entry("203.0.113.9", 1, IP_2)]
    assert len(all_pages(api)) == 4
    assert len(all_pages(api, external_ip=IP_1)) == 3
    assert len(all_pages(api, client="203.0.113.9", limit=1)) == 3
    assert all_pages(api, client="203.0.113.9", client_port=2) == [("203.0.113.9", 2, "198.51.100.1")]
    assert api.get("/v1/load-balancers/lb-b/access-table", external_ip=IP_1)["entries"] == []
    problem(api.call("GET", TABLE, query={"external_ip": "203.0.113.200"}), 404)


def test_filters_on_server_state_and_protocol_of_both_ip_versions():
    api = Api(of_site=site_of_all_kinds())
    query, six, gone, full, out = (
        entry_of(17, "203.0.113.9 1", "198.51.100.3 53", "10.0.0.11 5353"),
        entry_of(6, "2001:db8:3::9 1", "2001:db8:1::1 80", "2001:db8:2::11 80"),
        entry_of(6, "203.0.113.9 2", "198.51.100.1 80", "10.0.0.11 80"),
        entry_of(6, "203.0.113.8 1", "198.51.100.4 80", "10.9.0.1 80", "10.0.0.104 1024"),
        entry_of(17, "203.0.113.9 53", "198.51.100.5 1024", "10.0.0.201 999", inner_hop="020000000201"))
    gone.flags |= RESET
    for item in (query, six, gone, full, out):
        api.control.table[item.connection.external.address].append(item)

    def found(**wanted):
        return {(item["client"], item["client_port"]) for item in api.get(TABLE, **wanted)["entries"]}

    assert found(protocol="udp") == {("203.0.113.9", 1), ("203.0.113.9", 53)}
    assert found(server="10.0.0.11") == {("203.0.113.9", 1), ("203.0.113.9", 2)}
    for wanted in ({"server": "10.0.0.11", "protocol": "tcp"}, {"state": "reset"},
                   {"server": "10.0.0.11", "state": "reset"}):
        assert found(**wanted) == {("203.0.113.9", 2)}
    assert found(server="2001:db8:2:0::11") == found(client="2001:db8:3::9") == {("2001:db8:3::9", 1)}
    assert found(client_port=1) == {("203.0.113.9", 1), ("2001:db8:3::9", 1), ("203.0.113.8", 1)}
    assert found(client="32.1.13.184") == found(server="32.1.13.184") == set(), "the first bytes of 2001:db8"
    assert found(state="half-closed") == set()
    assert api.get(TABLE, state="open", limit=2)["next"]
    [translated], [outward] = (api.get(TABLE, external_ip=address)["entries"] for address in (FULL, GATEWAY))
    assert (translated["internal_ip"], translated["internal_port"]) == ("10.0.0.104", 1024)
    assert (outward["server"], outward["inner_hop"], outward["internal_ip"]) == (
        "10.0.0.201", "02:00:00:00:02:01", None)


@pytest.mark.parametrize(("name", "value"),
                         [("state", "closed"), ("state", ""), ("protocol", "icmp"), ("server", "10.0.0"),
                                             ("client_port", "65536"), ("servers", "10.0.0.11")])
def test_a_wrong_filter_is_named(name, value):
    assert [error["field"] for error in problem(Api().call("GET", TABLE, query={name: value}), 422)["errors"]] == [name]


def test_external_ips_of_all_kinds():
    api = Api(of_site=site_of_all_kinds())
    full, gateway = (api.get(f"/v1/external-ips/{address}") for address in (FULL, GATEWAY))
    assert (full["kind"], full["nat"], full["gateway"], full["internal_ips"], full["port_range"]) == (
        "service", "full", None, ["10.0.0.104"], [1024, 65535])
    servers = full["services"][0]["servers"]
    assert servers[0]["next_hop"] == "10.0.0.11" and servers[0]["mac"] == "02:00:00:00:00:11"
    assert servers[1]["tunnel"] == {"transport": "vxlan", "remote": "10.0.0.12", "key": 7, "mtu": 1450}
    assert (gateway["kind"], gateway["inside"], gateway["router"]) == (
        "nat-gateway", ["10.0.0.192/26"], {"address": "198.51.100.254", "mac": None})
    assert api.get("/v1/load-balancers/lb-a")["ports"]["tunnels"]["vxlan"]["name"] == "lba-vx"


def test_a_page_costs_one_look_at_each_entry_of_its_external_ip():
    """And of no other one; benchmarks tell what that is in milliseconds."""
    entries = [entry(f"203.0.{number >> 8}.{number & 0xFF}", 40000) for number in range(1000)]
    looked_at: Counter[object] = Counter()

    def entries_of(address):
        for each in entries:
            looked_at[address] += 1
            yield each

    found, following = page([IP_1, IP_2], entries_of, 100, START)
    assert (len(found), following is not None) == (100, True)
    assert looked_at == {IP_1: 1000}


def test_a_move_is_started_waited_for_and_shown():
    api = Api()
    response = api.call("POST", MOVE, {"to": "lb-b"})
    assert (response.status, response.headers["Location"]) == (202, "/v1/moves/1")
    started = json.loads(response.body)
    assert (started["from"], started["to"]) == ("lb-a", "lb-b")
    assert (started["strategy"], started["step"]) == ("precopy", "transition")
    assert api.get(f"/v1/external-ips/{IP_1}")["move"] == "1"
    assert json.loads(api.call("DELETE", "/v1/moves/1").body)["state"] == "aborted"
    problem(api.call("DELETE", "/v1/moves/1"), 409)

    response = api.call("POST", MOVE, {"to": "lb-b", "strategy": "buffered"}, query={"wait": "true"})
    assert (response.status, json.loads(response.body)["state"]) == (200, "done")
    assert api.orders.waited == [("2", pytest.approx(300))]
    assert [move["id"] for move in api.get("/v1/moves")["moves"]] == ["2", "1"]
    assert api.get(f"/v1/external-ips/{IP_1}")["load_balancer"] == "lb-b"
    assert api.get(f"/v1/external-ips/{IP_1}")["move"] is None


def test_the_steps_of_a_move_have_times():
    api = Api()
    api.call("POST", MOVE, {"to": "lb-b"})
    record = api.control.moves["1"]
    record.steps = [StepRecord("transition", 0.0, 0.25), StepRecord("copy", 0.25)]
    assert api.get("/v1/moves/1")["steps"] == [
        {"name": "transition", "started": "1970-01-01T00:00:00.000Z", "seconds": 0.25},
        {"name": "copy", "started": "1970-01-01T00:00:00.250Z", "seconds": None}]


def test_services_show_the_servers_that_were_found():
    service = Api().get(f"/v1/external-ips/{IP_1}")["services"][0]
    assert [(server["address"], server["weight"], server["mac"]) for server in service["servers"]] == [
        ("10.0.0.11", 1, "02:00:00:00:00:11"), ("10.0.0.12", 2, None)]


def test_transfer_modes():
    assert Api().get("/v1/load-balancers/lb-a/transfer-modes") == {"transfer_modes": {"198.51.100.1": "normal"}}


def test_metrics_are_labelled_by_load_balancer():
    api = Api()
    api.control.table[IP_1] = [entry("203.0.113.9", 1)]
    api.control.switches["lb-a"].counters["dropped_malformed"] = 3
    api.control.switches["lb-b"].state = "disconnected"
    response = api.call("GET", "/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    lines = response.body.decode().splitlines()
    for line in ('lbctl_controller_events_total{event="entries_expired"} 4.0',
                 'lbctl_load_balancer_ready{dp_name="lb-a"} 1.0', 'lbctl_load_balancer_ready{dp_name="lb-b"} 0.0',
                 'lbctl_connections{dp_name="lb-a",external_ip="198.51.100.1"} 1.0',
                 'lbctl_dropped_packets_total{dp_name="lb-a",reason="malformed"} 3.0',
                 'lbctl_unresolved_servers{dp_name="lb-a",external_ip="198.51.100.1"} 1.0'):
        assert line in lines


def test_openapi_covers_each_route_and_its_references_lead_somewhere():
    document = Api().get("/v1/openapi.json")
    assert document["openapi"] == "3.1.0"
    for route in ROUTES:
        assert document["paths"][route.path][route.method.lower()]["operationId"] == route.operation
    for reference in references(document):
        part = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


def test_openapi_describes_what_is_sent():
    schemas = openapi.document()["components"]["schemas"]
    api = Api()
    api.control.table[IP_1] = [entry("203.0.113.9", 1)]
    assert set(schemas["EntryView"]["properties"]) == set(api.get(TABLE)["entries"][0])
    assert {"from", "to"} <= set(schemas["MoveView"]["properties"])
    assert schemas["MoveRequest"]["additionalProperties"] is False


def references(value):
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from [inner] if name == "$ref" else references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)
