"""Sliced services in a site file, and in what is ordered for them at run time: what is refused, in which words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lbctl.site import file as config
from lbctl.site.file import ConfigError
from lbctl.site.file.text import site_text
from lbctl.site.model import ExternalIp, Instead, Server, Service, ServiceName, ServiceOrder, Site
from lbctl.site.orders import Ended, in_force
from lbctl.values.refused import Refused
from tests.unit.effects import use_file
from tests.unit.fake_site import FakeSite, site

SITE = """\
load_balancers:
  - {name: lb-a, dpid: "00000000000000aa", external_port: lba-ext, internal_port: lba-int}
external_network: 198.51.100.0/24
internal_network: 10.0.0.0/24
external_ips:
  - address: 198.51.100.1
    load_balancer: lb-a
    gateway: 10.0.0.1
    router: 198.51.100.254
    services:
      - protocol: tcp
        port: 80
        entries: slices
        scheduler: round-robin
        servers: [{address: 10.0.0.11, port: 80}]
        idle_timeout: 60
      - {protocol: udp, port: 80, servers: [{address: 10.0.0.11, port: 80}]}
      - {protocol: tcp, port: 81, servers: [{address: 10.0.0.11, port: 81}]}
"""
SHARED = (
    "server 10.0.0.11:80 is already in the service tcp/80 of this external IP, and one of the two is sliced: "
    "from a server's answer nobody could tell which it belongs to. Let the server listen on another port for one "
    "of them"
)
FIRST = ServiceName(site().external_ips[0].address, "tcp", 80)


def edited(**lines: str) -> str:
    """With other lines, by their numbers as `_12`."""
    given = SITE.splitlines()
    for number, line in lines.items():
        given[int(number[1:]) - 1] = line
    return "\n".join(given)


def test_a_sliced_service() -> None:
    external_ip = config.parse(SITE).external_ips[0]
    assert [service.sliced for service in external_ip.services] == [True, False, False]
    assert str(external_ip.router) == "198.51.100.254" and external_ip.services[0].idle_timeout == 60
    assert config.parse(site_text(config.parse(SITE))) == config.parse(SITE)


def test_all_name_their_router_or_none_does() -> None:
    other = """\
  - address: 198.51.100.2
    load_balancer: lb-a
    gateway: 10.0.0.2
    services: [{protocol: tcp, port: 80, entries: slices, servers: [{address: 10.0.0.21, port: 80}]}]
"""
    with pytest.raises(ConfigError, match="198.51.100.2 has sliced services and no router, which 198.51.100.1 has"):
        config.parse(SITE + other)
    assert config.parse(SITE.replace("    router: 198.51.100.254\n", "") + other)
    assert config.parse(SITE + other.replace("services:", "router: 198.51.100.254\n    services:"))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            {"_14": "        scheduler: least-connections"},
            [
                "14: a sliced service can't have scheduler: least-connections: nobody counts the connections of a "
                "slice: take "
                "round-robin or weighted-round-robin, or entries: connections"
            ],
        ),
        (
            {"_14": "        scheduler: source-hash"},
            [
                "14: a sliced service can't have scheduler: source-hash: take affinity: client for one server for each "
                "client, and round-robin or weighted-round-robin"
            ],
        ),
        ({"_14": "        affinity: client"}, []),
        (
            {"_13": "        affinity: client"},
            [
                "9: router has no meaning here: clients are answered to where their packets came from. It is for "
                "sliced "
                "services (entries: slices) and kind: nat-gateway: remove it",
                "13: affinity: client is for sliced services (entries: slices): with entries by connection, scheduler: "
                "source-hash does it",
            ],
        ),
        (
            {"_14": "        scheduler: maglev"},
            [
                "14: a sliced service can't have scheduler: maglev: slices stay with their servers by themselves when "
                "others "
                "come and go: take round-robin or weighted-round-robin"
            ],
        ),
        (
            {"_14": "        slow_start: 10"},
            [
                "14: a sliced service can't have slow_start: a server gets its share of the slices at once. Remove "
                "it, or take "
                "entries: connections"
            ],
        ),
        ({"_14": "        scheduler: weighted-round-robin"}, []),
        (
            {"_15": "        servers: [{address: 10.0.0.11, port: 80, max_connections: 9}]"},
            [
                "15: a sliced service's server can't have max_connections, since nobody counts the connections of a "
                "slice: "
                "remove it and give weights, or take entries: connections"
            ],
        ),
        ({"_18": "      - {protocol: tcp, port: 81, servers: [{address: 10.0.0.11, port: 80}]}"}, [f"18: {SHARED}"]),
        (
            {
                "_13": "        entries: connections",
                "_9": "",
                "_18": "      - {protocol: tcp, port: 81, entries: slices, servers: [{address: 10.0.0.11, port: 80}]}",
            },
            [f"18: {SHARED}"],
        ),
        (
            {
                "_13": "",
                "_9": "",
                "_18": "      - {protocol: tcp, port: 81, servers: [{address: 10.0.0.11, port: 80}]}",
            },
            [],
        ),
        (
            {"_13": "        entries: connections"},
            [
                "9: router has no meaning here: clients are answered to where their packets came from. It is for "
                "sliced services "
                "(entries: slices) and kind: nat-gateway: remove it"
            ],
        ),
        ({"_13": "        entries: slice"}, ["13: unknown entries 'slice': did you mean 'slices'?"]),
        (
            {"_9": "    nat: full"},
            [
                "6: external IP: the key 'internal_ips' is missing",
                "13: entries: slices needs nat: destination, or none: full NAT gives each connection a port of its "
                "own, so each needs its entry",
            ],
        ),
        (
            {"_9": "    nat: none"},
            [f"{line}: with nat: none a service needs entries: slices: nobody sees what its servers answer, so nobody "
             "can tell when a connection has ended" for line in (17, 18)],
        ),
        (
            {"_9": "    nat: none", "_15": "        servers: [{address: 10.0.0.11, port: 81}]", "_17": "", "_18": ""},
            ["15: with nat: none a server gets packets as clients send them: its port is the service's, 80"],
        ),
        ({"_9": "    nat: none", "_17": "", "_18": ""}, []),
        (
            {"_4": "internal_network: 10.0.0.0/24", "_8": "    nat: none", "_17": "", "_18": ""},
            [
                "6: external IP: the key 'gateway' is missing",
                "9: external IP: the key 'router' is only for nat: destination or kind: nat-gateway",
            ],
        ),
        ({"_9": "    router: 10.0.0.11"}, ["9: router 10.0.0.11 is outside external_network 198.51.100.0/24"]),
    ],
)
def test_what_a_sliced_service_can_be(lines, expected) -> None:
    try:
        config.parse(edited(**lines), "s")
        found = []
    except ConfigError as error:
        found = [str(each).removeprefix("s:") for each in error.errors]
    assert found == expected


# Ordered at run time.


def sliced_site() -> Site:
    """Its first external IP has a sliced service, and one on port 81 that is not, with other server ports."""
    plain = site()
    first, *rest = plain.external_ips
    service = replace(first.services[0], entries="slices")
    other = Service("tcp", 81, servers=tuple(replace(server, port=server.port + 1) for server in service.servers))
    return replace(plain, external_ips=(replace(first, services=(service, other)), *rest))


@pytest.mark.parametrize(
    ("verb", "arguments", "reason"),
    [
        ("set_scheduler", (FIRST, "least-connections"), "can't have scheduler: least-connections: nobody counts"),
        ("add_server", (FIRST, "limited"), "a sliced service's server can't have max_connections"),
        ("change_server", (FIRST, "its first", {"max_connections": 3}, None), "can't have max_connections"),
        ("add_server", (FIRST._replace(port=81), "its first"), "is already in the service tcp/80"),
        ("add_server", (FIRST, "the other's first"), "is already in the service tcp/81"),
    ],
)
def test_orders_that_would_break_a_rule_are_refused(verb, arguments, reason) -> None:
    world = FakeSite(sliced_site())
    world.settle(1.0)
    services = world.site.external_ips[0].services
    first = services[0].servers[0]
    meant = {
        "limited": Server(first.address + 5, 80, max_connections=4),
        "its first": first,
        "the other's first": services[1].servers[0],
    }
    if verb == "change_server":
        meant["its first"] = first.endpoint
    before = world.control.ground.state()
    with pytest.raises(Refused, match=reason) as refused:
        getattr(world.control.services, verb)(
            *(meant.get(each, each) if isinstance(each, str) else each for each in arguments)
        )
    assert refused.value.status == 422 and world.control.ground.state() == before


def test_what_fits_is_done() -> None:
    world = FakeSite(sliced_site())
    world.settle(1.0)
    world.post(world.control.services.set_scheduler(FIRST, "weighted-round-robin"))
    added = Server(world.site.external_ips[0].services[0].servers[0].address + 5, 80)
    world.post(world.control.services.add_server(FIRST, added))
    service = world.control.ground.site.external_ips[0].services[0]
    assert service.scheduler == "weighted-round-robin" and added in service.servers


def sliced(external_ip: ExternalIp) -> ExternalIp:
    return replace(external_ip, services=(replace(external_ip.services[0], entries="slices"),))


def test_a_file_that_slices_a_service_ends_the_orders_that_slices_cannot_follow() -> None:
    plain = site()
    there = plain.external_ips[0].services[0].servers
    limited = (replace(there[0], max_connections=5), *there[1:])
    order = ServiceOrder(Instead("maglev", "round-robin"), Instead(limited, there))
    assert in_force(plain, {FIRST: order}).ended == ()
    new = replace(plain, external_ips=tuple(map(sliced, plain.external_ips)))
    found = in_force(new, {FIRST: order})
    assert found.site == new and found.orders == {}
    assert [(ended.service, ended.what, ended.broken) for ended in found.ended] == [
        (FIRST, "scheduler", True),
        (FIRST, "servers", True),
    ]
    assert all(isinstance(ended, Ended) and "sliced" in ended.reason for ended in found.ended)


def test_of_two_orders_that_contradict_one_another_the_first_stays() -> None:
    plain = sliced_site()
    services = plain.external_ips[0].services
    added = Server(services[0].servers[0].address + 5, 80)
    orders = {
        FIRST._replace(port=service.port): ServiceOrder(servers=Instead((*service.servers, added), service.servers))
        for service in reversed(services)
    }
    found = in_force(plain, orders)
    assert list(found.orders) == [FIRST._replace(port=81)] and [ended.service for ended in found.ended] == [FIRST]


def test_slices_that_are_to_go_outlast_an_order() -> None:
    """They are there until their connections have entries."""
    world = FakeSite(sliced_site())
    world.settle(1.0)
    first, *rest = world.site.external_ips
    service, other = first.services
    plain = replace(world.site, external_ips=(replace(first, services=(replace(service, entries="connections"), other)),
                                              *rest))
    use_file(world.control, plain, world.now)
    [serving] = [each for each in world.control.ground.external_ips if each.address == first.address]
    place, (endpoint, *_) = (6, 80), [server.endpoint for server in service.servers]
    world.control.services.change_server(FIRST, endpoint, {}, True)
    assert serving.services[place].leaving and serving.slices[place].leaving
    assert not world.control.ground.site.external_ips[0].services[0].sliced, "what is shown is what is wanted"
    use_file(world.control, world.site, world.now)
    assert serving.services[place].sliced and not serving.slices[place].leaving


@pytest.mark.parametrize(("port", "of_another", "reason"), [(81, False, "its port is the service's, 80"),
                                                            (80, True, "already belongs to the external IP")])
def test_what_servers_that_answer_clients_themselves_can_be_ordered(port: int, of_another: bool, reason: str) -> None:
    plain = site()
    first, second = plain.external_ips[:2]
    services = tuple(replace(service, entries="slices", port=80) for service in first.services)
    world = FakeSite(replace(plain, external_ips=(replace(first, nat="none", services=services), second)))
    world.settle(1.0)
    address = second.services[0].servers[0].address if of_another else first.services[0].servers[0].address + 5
    with pytest.raises(Refused, match=reason):
        world.control.services.add_server(FIRST, Server(address, port))
