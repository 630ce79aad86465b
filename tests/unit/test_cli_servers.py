"""lbctl server and lbctl drain-server."""

from __future__ import annotations

import threading
from ipaddress import IPv4Address

import pytest

from lbctl.servers.states import FormerServer, ServerState
from lbctl.site.model import Hop
from lbctl.values.addresses import Endpoint
from tests.unit.api_fakes import IP_1, SERVER_1, START, site_of_all_kinds
from tests.unit.cli_harness import Command, serving

ONE = (IP_1, Endpoint(SERVER_1, 80))
FIRST = ("198.51.100.1", "tcp/80")


@pytest.fixture
def lbctl(capsys, monkeypatch):
    command = Command(capsys, monkeypatch)
    with serving(command) as url:
        monkeypatch.setenv("LBCTL_URL", url)
        yield command


@pytest.fixture
def all_kinds(capsys, monkeypatch):
    command = Command(capsys, monkeypatch, site_of_all_kinds())
    with serving(command) as url:
        monkeypatch.setenv("LBCTL_URL", url)
        yield command


def test_list(lbctl) -> None:
    lbctl.control.services.states[ONE] = ServerState("down", 3, "connection refused", START)
    lines = lbctl("server", "list").out.splitlines()
    assert lines[0].split() == [
        "external",
        "IP",
        "service",
        "server",
        "state",
        "connections",
        "weight",
        "reached",
        "remark",
    ]
    assert "10.0.0.11:80" in lines[1] and " down " in lines[1] and "connection refused" in lines[1]
    assert "10.0.0.12:8080" in lines[2] and " up " in lines[2] and "(no" not in lines[2] and "no ARP answer" in lines[2]
    assert "10.0.0.11 (down)" in lbctl("status").out
    run = lbctl("server", "list", "--json", "--external-ip", "198.51.100.1", "--service", "tcp/80")
    assert run.json["servers"][0]["state"] == "down" and run.json["servers"][0]["external_ip"] == "198.51.100.1"
    assert lbctl("server", "list", "--service", "udp/80").out == "No servers.\n"
    lbctl.control.services.failing_open = "all servers are down"
    said = "198.51.100.1 tcp/80 serves in spite of its health checks: all servers are down."
    assert said in lbctl("server", "list").out and said not in lbctl("server", "list", "--service", "udp/80").out


def test_list_says_how_servers_are_reached(all_kinds) -> None:
    out = all_kinds("server", "list").out
    assert "directly" in out and "via 10.0.0.11" in out and "by vxlan" in out and "[2001:db8:2::11]:80" in out


def test_removed_servers_are_listed_while_they_have_connections(lbctl) -> None:
    lbctl.control.services.former = [FormerServer(IPv4Address("10.0.0.19"), Hop(IPv4Address("10.0.0.19")), 2)]
    line = next(line for line in lbctl("server", "list").out.splitlines() if "10.0.0.19" in line)
    assert line.split() == ["198.51.100.1", "-", "10.0.0.19", "removed", "2", "-", "directly", "-"]
    assert lbctl("server", "list", "--json").json["former_servers"][0]["connections"] == 2
    assert "10.0.0.19" not in lbctl("server", "list", "--service", "tcp/80").out


def test_add_change_remove(lbctl) -> None:
    run = lbctl("server", "add", *FIRST, "10.0.0.13:80", "--weight", "3", "--max-connections", "100")
    assert (run.status, run.err) == (
        0,
        "",
    ) and "has the server 10.0.0.13:80, until the site file says something else" in run.out
    run = lbctl("server", "change", *FIRST, "10.0.0.13:80", "--weight", "1", "--no-limit")
    assert run.out == "10.0.0.13:80 of 198.51.100.1 tcp/80: weight 1, no limit.\n"
    assert "at most 9 connections" in lbctl("server", "change", *FIRST, "10.0.0.13:80", "--max-connections", "9").out
    run = lbctl("server", "remove", *FIRST, "10.0.0.11:80")
    assert run.status == 0 and "connections that are open go on until they end" in run.out
    assert [server["address"] for server in lbctl("server", "list", "--json").json["servers"]] == [
        "10.0.0.12",
        "10.0.0.13",
    ]


def test_drain_and_undo(lbctl) -> None:
    lbctl.control.services.states[ONE] = ServerState("drained", 3)
    assert (
        lbctl("drain-server", "10.0.0.11").out
        == "10.0.0.11:80 of 198.51.100.1 tcp/80 is drained, 3 connections left.\n"
    )
    lbctl.control.services.states.clear()
    assert "10.0.0.11 (drained)" in lbctl("status").out
    assert lbctl("drain-server", "10.0.0.11:80", "--undo").out == "10.0.0.11:80 of 198.51.100.1 tcp/80 is up again.\n"


def test_an_address_is_drained_in_all_services_that_have_it(all_kinds) -> None:
    run = all_kinds("drain-server", "10.0.0.11", "--json")
    assert [
        (each["external_ip"], each["protocol"], each["service_port"], each["port"]) for each in run.json["servers"]
    ] == [
        ("198.51.100.1", "tcp", 80, 80),
        ("198.51.100.3", "udp", 53, 5353),
        ("198.51.100.3", "tcp", 53, 5353),
        ("198.51.100.3", "udp", 54, 5353),
    ]
    assert all_kinds("drain-server", "10.0.0.11", "--undo", "--service", "udp/54").out.count("\n") == 1
    assert all_kinds("drain-server", "10.0.0.11", "--undo", "--external-ip", "198.51.100.3").out.count("\n") == 3


def test_wait(lbctl) -> None:
    """It returns when the last connection has ended, and says meanwhile how many are left."""
    states = lbctl.control.services.states
    states[ONE] = ServerState("drained", 2)
    timers = [threading.Timer(0.5, states.__setitem__, (ONE, ServerState("drained", 1))),
              threading.Timer(1.0, states.__setitem__, (ONE, ServerState("drained", 0)))]
    for timer in timers:
        timer.start()
    run = lbctl("drain-server", "10.0.0.11", "--wait")
    assert run.status == 0 and run.err == "10.0.0.11: 2 connections left\n10.0.0.11: 1 connection left\n"
    assert run.out.endswith("is drained, 0 connections left.\n")


def test_wait_no_longer_than_that(lbctl) -> None:
    lbctl.control.services.states[ONE] = ServerState("drained", 2)
    run = lbctl("drain-server", "10.0.0.11", "--wait", "--timeout", "0.3")
    assert run.status == 1 and "After 0.3 s 10.0.0.11 still has 2 connections. It stays drained" in run.err


def test_wait_while_somebody_undoes_it(lbctl) -> None:
    lbctl.control.services.states[ONE] = ServerState("up", 2)
    run = lbctl("drain-server", "10.0.0.11", "--wait")
    assert run.status == 1 and "undone the draining of 10.0.0.11:80" in run.err


@pytest.mark.parametrize("arguments, status, error", [
    (["drain-server", "10.0.0.99"], 1, "There is no server 10.0.0.99 there; there are: 10.0.0.11:80, 10.0.0.12:8080."),
    (["drain-server", "10.0.0.11:81"], 1, "There is no server 10.0.0.11:81 there"),
    (["drain-server", "10.0.0.11", "--service", "udp/80"], 1, "There is no such service."),
    (["drain-server", "10.0.0.11", "--external-ip", "198.51.100.9"], 1, "There is no external IP 198.51.100.9"),
    (["drain-server", "server"], 2, "ADDRESS:PORT"),
    (["drain-server", "10.0.0.11", "--undo", "--wait"], 2, "--wait"),
    (["drain-server", "10.0.0.11", "--timeout", "3"], 2, "--wait"),
    (["server", "add", *FIRST, "10.0.0.13"], 2, "ADDRESS:PORT"),
    (["server", "add", *FIRST, "10.0.0.99:80"], 1, "10.0.0.99 is not wanted"),
    (["server", "add", "198.51.100.1", "80", "10.0.0.13:80"], 2, "PROTOCOL/PORT"),
    (["server", "change", *FIRST, "10.0.0.11:80"], 2, "nothing is to be changed"),
    (["server", "change", *FIRST, "10.0.0.11:80", "--no-limit", "--max-connections", "3"], 2, "exclude"),
    (["server", "remove", *FIRST, "10.0.0.13:80"], 1, "there are: 10.0.0.11:80, 10.0.0.12:8080."),
    (["server", "add", *FIRST, "fd00::1:80"], 2, "brackets"),
])
def test_failures_say_what_to_do(lbctl, arguments, status, error) -> None:
    run = lbctl(*arguments)
    assert run.status == status and error in " ".join(run.err.replace("│", " ").split()), run.err
