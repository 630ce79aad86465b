"""Servers over the REST API: what is shown, what may be changed, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbctl.servers.states import FormerServer, ServerState
from lbctl.site.model import Hop, Server, Tunnel
from lbctl.values.addresses import Endpoint
from tests.unit.api_fakes import FULL, IP_1, SERVER_1, SERVER_2, SIX, START, Api, problem, site_of_all_kinds

SERVERS = f"/v1/external-ips/{IP_1}/services/tcp/80/servers"
ONE = f"{SERVERS}/10.0.0.11:80"
NEW = {"address": "10.0.0.13", "port": 80}


def test_a_server_is_shown_with_what_it_does() -> None:
    api = Api()
    api.control.services.states[IP_1, Endpoint(SERVER_1, 80)] = ServerState("down", 3, "connection refused", START)
    assert api.get(ONE) == {
        "address": "10.0.0.11", "port": 80, "weight": 1, "max_connections": None, "state": "down", "drained": False,
        "reason": "connection refused", "since": "2023-11-14T22:13:20.000Z", "connections": 3,
        "mac": "02:00:00:00:00:11",
        "next_hop": None, "tunnel": None, "slices": None, "share": None, "ideal_share": None}
    [service] = api.get(f"/v1/external-ips/{IP_1}")["services"]
    assert api.get(SERVERS)["servers"][0] == api.get(ONE) == service["servers"][0]
    text = api.call("GET", "/metrics").body.decode()
    labels = f'{{external_ip="{IP_1}",server="10.0.0.11:80",service="tcp/80"}}'
    for line in (f"lbctl_server_up{labels} 0.0", f"lbctl_server_takes_connections{labels} 0.0",
                 f"lbctl_server_connections{labels} 3.0"):
        assert line in text
    assert f"lbctl_server_max_connections{labels}" not in text


def test_a_server_more_and_one_less() -> None:
    api = Api()
    response = api.call("POST", SERVERS, {**NEW, "weight": 3, "max_connections": 7})
    assert response.status == 201 and response.headers["Location"] == f"{SERVERS}/10.0.0.13:80"
    assert api.get(response.headers["Location"]) == json.loads(response.body)
    assert api.control.site.external_ips[0].services[0].servers[2] == Server(
        IPv4Address("10.0.0.13"), 80, 3, max_connections=7)
    service = api.get(f"/v1/external-ips/{IP_1}")["services"][0]
    assert service["servers_ordered"] and len(service["servers"]) == 3
    assert 'lbctl_server_max_connections{' in api.call("GET", "/metrics").body.decode()
    answer = api.call("DELETE", ONE)
    assert answer.status == 200
    assert [server["address"] for server in json.loads(answer.body)["servers"]] == [str(SERVER_2), "10.0.0.13"]


def test_a_server_behind_a_tunnel_has_the_mtu_that_is_left() -> None:
    kinds = site_of_all_kinds()
    balancers = tuple(replace(lb, tunnel_ports=(("vxlan", "vx"),)) for lb in kinds.load_balancers)
    api = Api(of_site=replace(kinds, load_balancers=balancers))
    path = f"/v1/external-ips/{FULL}/services/tcp/80/servers"
    api.call("POST", path, {"address": "10.9.0.2", "port": 80, "transport": "vxlan", "remote": "198.18.2.12", "key": 7})
    added = api.control.site.external_ip(FULL).services[0].servers[-1]
    assert added.tunnel == Tunnel("vxlan", IPv4Address("198.18.2.12"), 7, 1450)


def test_drain_weight_and_limit() -> None:
    api = Api()
    assert json.loads(api.call("PATCH", ONE, {"drained": True}).body)["state"] == "drained"
    answer = json.loads(api.call("PATCH", ONE, {"weight": 5, "max_connections": 2}).body)
    assert (answer["state"], answer["drained"], answer["weight"], answer["max_connections"]) == ("drained", True, 5, 2)
    answer = json.loads(api.call("PATCH", ONE, {"drained": False, "max_connections": None}).body)
    assert (answer["state"], answer["weight"], answer["max_connections"]) == ("up", 5, None)


def test_ipv6_servers_are_in_brackets() -> None:
    api = Api(of_site=site_of_all_kinds())
    path = f"/v1/external-ips/{SIX}/services/tcp/80/servers"
    assert api.get(f"{path}/[2001:db8:2::11]:80")["address"] == "2001:db8:2::11"
    problem(api.call("GET", f"{path}/2001:db8:2::11:80"), 404)


def test_servers_that_have_been_removed_are_shown_while_they_have_connections() -> None:
    api = Api()
    tunnel = Tunnel("vxlan", IPv4Address("198.18.2.12"), 7)
    api.control.services.former = [FormerServer(SERVER_1, Hop(SERVER_1), 2),
                                   FormerServer(IPv4Address("10.9.0.1"), Hop(SERVER_2, tunnel), 1)]
    assert api.get(f"/v1/external-ips/{IP_1}")["former_servers"] == [
        {"address": "10.0.0.11", "connections": 2, "mac": "02:00:00:00:00:11", "next_hop": None, "tunnel": None},
        {"address": "10.9.0.1", "connections": 1, "mac": None, "next_hop": "10.0.0.12",
         "tunnel": {"transport": "vxlan", "remote": "198.18.2.12", "key": 7, "mtu": 1450}}]


@pytest.mark.parametrize("method, path, body, status, detail", [
    ("GET", f"{SERVERS}/10.0.0.11:81", None, 404,
     "There is no server of 198.51.100.1 tcp/80 10.0.0.11:81; there are: 10.0.0.11:80"),
    ("GET", f"{SERVERS}/10.0.0.11", None, 404, "there are: 10.0.0.11:80"),
    ("DELETE", f"{SERVERS}/x", None, 404, "there are: 10.0.0.11:80"),
    ("POST", SERVERS.replace("tcp/80", "tcp/81"), NEW, 404, "there are: tcp/80"),
    ("POST", SERVERS, {**NEW, "address": "10.0.0.99"}, 422, "10.0.0.99 is not wanted"),
    ("POST", SERVERS, {"address": "10.0.0.13"}, 422, "port: is missing"),
    ("POST", SERVERS, {**NEW, "port": 0}, 422, "port: "),
    ("POST", SERVERS, {**NEW, "address": "server"}, 422, "address: "),
    ("POST", SERVERS, {**NEW, "weight": -1}, 422, "weight: "),
    ("POST", SERVERS, {**NEW, "max_connections": 0}, 422, "max_connections: "),
    ("POST", SERVERS, {**NEW, "transport": "carrier-pigeon"}, 422, "transport: "),
    ("POST", SERVERS, {**NEW, "transport": "gre"}, 422, "transport gre needs remote"),
    ("POST", SERVERS, {**NEW, "key": 7}, 422, "are a tunnel's: add transport"),
    ("POST", SERVERS, {**NEW, "drained": True}, 422, "drained: is not known here"),
    ("PATCH", ONE, {}, 422, "give at least one of drained, weight, max_connections"),
    ("PATCH", ONE, {"weight": None}, 422, "weight: "),
    ("PATCH", ONE, {"port": 81}, 422, "port: is not known here"),
    ("PUT", ONE, {}, 405, "takes DELETE, GET, HEAD, PATCH"),
])
def test_refusals_say_what_is_wrong(method, path, body, status, detail) -> None:
    api = Api()
    before = api.control.site
    assert detail in problem(api.call(method, path, body), status)["detail"]
    assert api.control.site == before
