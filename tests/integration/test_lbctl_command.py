"""The lbctl command against a real controller and real switches."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from lbctl.cli.doctor.addresses import check_addresses
from lbctl.cli.doctor.finding import Level
from lbctl.cli.ovs import Ovs
from lbctl.site.model import Service, Site
from lbctl.values.addresses import Endpoint
from tests.bed.bed import Bed
from tests.bed.namespaces import Namespace
from tests.bed.sites import simple_site, together, with_nat_gateway
from tests.bed.traffic import connect
from topologies import programs

EXTERNAL, FULL, GATEWAY, IPV6 = "198.51.100.1", "198.51.100.3", "198.51.100.200", "2001:db8:1::1"
INSIDE, OUTSIDE = "10.0.0.201", "203.0.113.1"


def site() -> Site:
    """lb-a has .1 (TCP and UDP), .3 (full NAT), a NAT gateway and an IPv6 address."""
    ipv4, ipv6 = simple_site(external_ips=3, servers=1, settings={"grace": 0.5, "arp_interval": 1.0}), simple_site(
        external_ips=1, servers=1, version=6)
    first, second, third = ipv4.external_ips
    first = replace(first, services=(*first.services, Service("udp", 53, servers=first.services[0].servers)))
    third = replace(third, nat="full", gateway=None, internal_ips=(IPv4Address("10.0.0.103"),))
    return together(with_nat_gateway(replace(ipv4, external_ips=(first, second, third))), ipv6)


BED = {"site": site(), "inside": [INSIDE]}


def lbctl(bed: Bed, *args: object, status: int = 0) -> str:
    done = bed.controller.cli(*args)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout if status == 0 else done.stdout + done.stderr


@pytest.mark.quick
def test_status_table_move_and_records(bed: Bed) -> None:
    with connect(bed.clients[0], EXTERNAL) as connection:
        client = "{}:{}".format(*connection.getsockname())
        bed.wait_until(lambda: client in lbctl(bed, "table", "lb-a"), 5, "the connection's entry")
        status = json.loads(lbctl(bed, "status", "--json"))
        assert [(lb["state"], lb["connections"]) for lb in status["load_balancers"]] == [("ready", 1), ("ready", 0)]
        moved = lbctl(bed, "move", EXTERNAL, "lb-b", "--wait")
        assert "done" in moved and "1 of 1 entries copied" in moved
        assert client in lbctl(bed, "table", "lb-b") and client not in lbctl(bed, "table", "lb-a")
    assert "already" in lbctl(bed, "move", EXTERNAL, "lb-b", status=1)
    assert "has ended" in lbctl(bed, "abort", 1, status=1)
    assert json.loads(lbctl(bed, "moves", "--json"))["moves"][0]["state"] == "done"


def traced_rule(line: str) -> set[str]:
    """Match and priority of a line such as `10. ip,in_port=1, priority 100, cookie 0x1b03`."""
    return set(
        line.partition(". ")[2]
        .partition(", cookie")[0]
        .replace(" priority", "priority")
        .replace("priority ", "priority=")
        .split(",")
    )


def worked_out_rule(rule: str) -> set[str]:
    """A trace tells no timeout: while a slice changes hands, its flow goes by itself."""
    parts = {part.strip() for part in rule.partition(" actions=")[0].split(",")}
    return {part for part in parts if not part.startswith("hard_timeout=")}


@pytest.mark.parametrize("kind", ["entry", "syn", "no service"])
def test_where_says_what_the_switch_says(bed: Bed, kind: str) -> None:
    """The rules worked out from the tables are those of the switch's own trace, in the same order."""
    with connect(bed.clients[0], EXTERNAL) as connection:
        bed.wait_until(lambda: bed.entries("lb-a"), 5, "the connection's entry")
        client = "{}:{}".format(*connection.getsockname()) if kind == "entry" else "203.0.113.9:999"
        external = f"{EXTERNAL}:{81 if kind == 'no service' else 80}"
        rundir = bed.lbs["lb-a"].ovs.rundir
        answer = json.loads(lbctl(bed, "where", client, external, "--trace", "--ovs-rundir", rundir, "--json"))
    found = answer["verdicts"][answer["packet"]]
    traced = [line for line in answer["trace"].splitlines() if "<- table" in line]
    assert [line.split("<- table ")[1].split(",")[0] for line in traced] == [step["name"] for step in found["path"]]
    assert [traced_rule(line) for line in traced] == [worked_out_rule(step["rule"]) for step in found["path"]]
    assert found["outcome"] == {"entry": "server", "syn": "new", "no service": "reset"}[kind]


def datagram(space: Namespace, address: str, port: int) -> socket.socket:
    """A UDP socket that has sent one."""
    plug = space.call(lambda: socket.socket(type=socket.SOCK_DGRAM))
    plug.connect((address, port))
    plug.send(b"hello")
    return plug


@pytest.mark.parametrize(
    ("opens", "args", "packet", "outcome"),
    [
        (lambda bed: datagram(bed.clients[0], EXTERNAL, 53), ["{near}", f"{EXTERNAL}:53"], "datagram", "server"),
        (None, ["203.0.113.9:999", f"{EXTERNAL}:53"], "datagram", "new"),
        (None, ["203.0.113.9:999", f"{EXTERNAL}:80", "--protocol", "udp"], "datagram", "unreachable"),
        (lambda bed: connect(bed.clients[0], FULL), ["{near}", f"{FULL}:80"], "segment", "server"),
        (
            lambda bed: datagram(bed.inside[0], OUTSIDE, 5353),
            ["{near}", f"{OUTSIDE}:5353", "--protocol", "udp"],
            "datagram",
            "client",
        ),
        (
            lambda bed: datagram(bed.inside[0], OUTSIDE, 5353),
            [f"{OUTSIDE}:5353", "{far}", "--protocol", "udp"],
            "datagram",
            "server",
        ),
        (None, [f"{INSIDE}:999", f"{OUTSIDE}:80"], "syn", "new"),
        (lambda bed: connect(bed.clients[0], IPV6), ["{near}", f"[{IPV6}]:80"], "segment", "server"),
        (None, ["[2001:db8:3::9]:999", f"[{IPV6}]:80"], "syn", "new"),
    ],
    ids=["udp", "new udp", "no udp service", "full", "out", "back", "new out", "ipv6", "new ipv6"],
)
def test_where_says_what_the_switch_says_of_all_kinds(
    live: Bed,
    opens,
    args: list[str],
    packet: str,
    outcome: str,
) -> None:
    with contextlib.ExitStack() as stack:
        near, far = "", ""
        if opens:
            near = str(Endpoint(*map_address(stack.enter_context(opens(live)).getsockname())))
            entry = live.wait_until(
                lambda: next((entry for entry in live.entries("lb-a") if near in ends(entry)), None), 5, "the entry"
            )
            far = f"{entry['external_ip']}:{entry['external_port']}"
        args = [arg.format(near=near, far=far) for arg in args]
        answer = json.loads(
            lbctl(live, "where", *args, "--trace", "--ovs-rundir", live.lbs["lb-a"].ovs.rundir, "--json")
        )
    found = answer["verdicts"][answer["packet"]]
    assert (answer["packet"], found["outcome"]) == (packet, outcome)
    traced = [line for line in answer["trace"].splitlines() if "<- table" in line]
    assert [line.split("<- table ")[1].split(",")[0] for line in traced] == [step["name"] for step in found["path"]]
    assert [traced_rule(line) for line in traced] == [worked_out_rule(step["rule"]) for step in found["path"]]


def map_address(name: tuple) -> tuple:
    return ip_address(name[0]), name[1]


def ends(entry: dict) -> list[str]:
    """Of the host that has opened it."""
    return [str(Endpoint(ip_address(entry[side]), entry[f"{side}_port"])) for side in ("client", "server")]


def test_trace_on_the_wrong_host(bed: Bed) -> None:
    rundir = bed.lbs["lb-b"].ovs.rundir
    said = lbctl(bed, "where", "203.0.113.9:999", f"{EXTERNAL}:80", "--trace", "--ovs-rundir", rundir, status=1)
    assert "No bridge here has the dpid 00000000000000aa of lb-a" in said


def findings(bed: Bed, lb: str) -> list[dict]:
    done = bed.controller.cli("doctor", "--ovs-rundir", bed.lbs[lb].ovs.rundir, "--json")
    return [finding for finding in json.loads(done.stdout)["findings"] if finding["level"] != "ok"]


def test_doctor_finds_what_was_broken_and_its_commands_mend_it(bed: Bed) -> None:
    node = bed.lbs["lb-a"]
    # Open vSwitch tells its database some seconds late that the controller is connected.
    bed.wait_until(lambda: findings(bed, "lb-a") == [], 15, "nothing is found")
    bridge = node.bridge
    changes = (
        f"del-fail-mode {bridge}",
        f"clear bridge {bridge} other_config",
        f"set bridge {bridge} protocols=OpenFlow14 other-config:datapath-id={node.lb.dpid:016x}",
        f"clear controller {bridge} controller_queue_size connection_mode",
    )
    node.ovs.vsctl(*" -- ".join(changes).split())
    node.space.set_link(node.lb.external_port, False)
    broken = {"fail_mode", "in-band", "queues 100", "port lba-ext is down"}
    bed.wait_until(lambda: all(part in str(findings(bed, "lb-a")) for part in broken), 10, "what was broken is found")
    for finding in findings(bed, "lb-a"):
        if finding["mend"].startswith(("ovs-vsctl", "ip link")):
            command = finding["mend"].partition(" (")[0].split()
            programs.run([*node.space.prefix, *command], check=True, env={**os.environ, **node.ovs.environment})
    bed.wait_until(lambda: findings(bed, "lb-a") == [], 10, "nothing is found any more")


def test_doctor_finds_who_else_answers_for_an_address(live: Bed) -> None:
    node, stranger = live.lbs["lb-a"], live.servers[0]

    def strangers() -> list[str]:
        views = (
            live.rest("GET", f"/v1/{path}").json[path.replace("-", "_")] for path in ("load-balancers", "external-ips")
        )
        found = list(check_addresses(*views, {"lb-a": Ovs(str(node.ovs.rundir)).namespace}))
        assert {finding.level for finding in found} <= {Level.OK, Level.FAIL} and len(found) >= 2, (
            "both sides are asked"
        )
        return [finding.what for finding in found if finding.level is Level.FAIL]

    assert strangers() == []
    stranger.ip("addr", "add", "10.0.0.103/32", "dev", "eth0")
    live.clients[1].ip("addr", "add", f"{EXTERNAL}/32", "dev", "eth0")
    try:
        outside, inside = strangers()
        assert f"{live.clients[1].mac('eth0')}, which is no load balancer's, answers for {EXTERNAL}" in outside
        assert f"{stranger.mac('eth0')}, which is no load balancer's, answers for 10.0.0.103" in inside
    finally:
        stranger.ip("addr", "del", "10.0.0.103/32", "dev", "eth0")
        live.clients[1].ip("addr", "del", f"{EXTERNAL}/32", "dev", "eth0")
    assert strangers() == []


def test_doctor_without_a_controller_or_switch(quiet_bed: Bed) -> None:
    node = quiet_bed.lbs["lb-a"]
    done = quiet_bed.controller.cli(
        "doctor", "--ovs-rundir", node.ovs.rundir, "--site", quiet_bed.controller.site_file, "--json"
    )
    assert done.returncode == 1
    wrong = [finding["what"] for finding in json.loads(done.stdout)["findings"] if finding["level"] == "fail"]
    assert len(wrong) == 2 and "no controller at" in wrong[0] and "lb-a: bridge lb-a has no controller" in wrong[1]
    done = quiet_bed.controller.cli("doctor", "--ovs-rundir", "/nonexistent")
    assert done.returncode == 1 and "ovs-ctl start" in done.stdout
