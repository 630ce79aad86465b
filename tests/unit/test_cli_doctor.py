"""lbctl doctor: each check against what a good and a bad switch says. The tools are replaced by a script."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from lbctl.cli.doctor import controller as checks_controller
from lbctl.cli.doctor import receive_queues, segments
from lbctl.cli.doctor.finding import Level
from lbctl.cli.doctor.open_vswitch import check_version
from lbctl.cli.doctor.receive_queues import ENOUGH
from lbctl.cli.ovs import Ovs
from lbctl.openflow import tries
from lbctl.servers.states import ServerState
from tests.unit.api_fakes import site_of_all_kinds
from tests.unit.cli_harness import Command, serving

GOOD = {
    "Bridge": [
        {
            "_uuid": ["uuid", "b"],
            "name": "br0",
            "datapath_id": "00000000000000aa",
            "datapath_type": "netdev",
            "fail_mode": "secure",
            "protocols": ["set", ["OpenFlow10", "OpenFlow14"]],
            "controller": ["uuid", "c"],
            "ports": ["set", [["uuid", "p1"], ["uuid", "p2"]]],
            "other_config": ["map", [["disable-in-band", "true"], ["controller-queue-size", "512"]]],
            "flow_tables": ["map", [[number, ["uuid", f"t{number}"]] for number in tries.FIELDS]],
        }
    ],
    "Flow_Table": [
        {"_uuid": ["uuid", f"t{number}"], "prefixes": ["set", list(fields)]} for number, fields in tries.FIELDS.items()
    ],
    "Controller": [
        {
            "_uuid": ["uuid", "c"],
            "target": "tcp:198.18.0.1:6653",
            "is_connected": True,
            "status": ["map", []],
            "connection_mode": ["set", []],
            "controller_queue_size": ["set", []],
        }
    ],
    "Port": [
        {"_uuid": ["uuid", "p1"], "interfaces": ["uuid", "i1"]},
        {"_uuid": ["uuid", "p2"], "interfaces": ["uuid", "i2"]},
    ],
    "Interface": [
        {
            "_uuid": ["uuid", name],
            "name": port,
            "error": ["set", []],
            "admin_state": "up",
            "link_state": "up",
            "status": ["map", [["driver_name", "veth"]]],
        }
        for name, port in (("i1", "lba-ext"), ("i2", "lba-int"))
    ],
}


SHORT = 212992
"""What the kernel's own net.core.rmem_default is."""


class Tools:
    """Scripts in PATH that answer as Open vSwitch's tools, ethtool, ss and ip do; and what this machine's settings
    are."""

    def __init__(self, directory, monkeypatch):
        self.directory = directory
        self.tables = json.loads(json.dumps(GOOD))
        self.overflow, self.offload, self.merging, self.fails = 0, "off", "off", False
        self.version = "3.1.0"
        self.routes = "Cached: 198.18.1.0/24 dev br0 SRC 198.18.1.11"
        self.queue, self.lost, self.default = ENOUGH, 0, ENOUGH
        self.sockets, self.links = True, []
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        monkeypatch.setattr(receive_queues, "length_of_new_queues", lambda: self.default)
        monkeypatch.setattr(segments, "SETTINGS", directory)

    def write(self):
        for name, rows in self.tables.items():
            table = {"headings": list(rows[0]), "data": [list(row.values()) for row in rows]}
            (self.directory / f"{name}.json").write_text(json.dumps(table))
        fail = "echo 'ovs: database connection failed' >&2; exit 1\n" if self.fails else ""
        self._tool("ovs-vsctl", fail + f'for last; do :; done; cat "{self.directory}/$last.json"')
        self._tool(
            "ovs-appctl",
            fail + f'for last; do :; done; case $last in version) echo "ovs-vswitchd (Open vSwitch) {self.version}";; '
            f'ovs/route/show) echo "{self.routes}";; *) echo {self.overflow};; esac',
        )
        self._tool("ovs-ofctl", "exit 1")
        features = {"tx-checksumming": self.offload, "generic-receive-offload": self.merging}
        self._tool("ethtool", "\n".join(f"echo '{feature}: {value}'" for feature, value in features.items()))
        memory = f"skmem:(r0,rb{self.queue},t0,tb{SHORT},f0,w0,o0,bl0,d{self.lost})"
        sockets = [
            f'p_raw 0 0 *:{port} * users:(("{user}",pid=7,fd=9)) {size}'
            for port, user, size in (
                ("lba-ext", "ovs-vswitchd", memory),
                ("lba-int", "ovs-vswitchd", memory),
                ("lba-ext", "tcpdump", f"skmem:(r0,rb{SHORT},t0,d9)"),
            )
        ]
        self._tool("ss", f"echo '{chr(10).join(sockets) if self.sockets else ''}'")
        self._tool("ip", f"echo '{json.dumps(self.links)}'")

    def _tool(self, name, script):
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    return Tools(tmp_path, monkeypatch)


@pytest.fixture
def doctor(capsys, monkeypatch, tools):
    command = Command(capsys, monkeypatch)
    for lb in command.control.switches.values():
        for ip in command.control.site.external_ips:
            lb.neighbours.update(dict.fromkeys(ip.server_addresses(), "02:00:00:00:00:11"))
    monkeypatch.delenv("LBCTL_TOKEN", raising=False)

    def run(*args):
        tools.write()
        answer = command("doctor", "--json", *args)
        return answer.status, [finding for finding in answer.json["findings"] if finding["level"] != "ok"]

    run.command = command
    with serving(command) as url:
        monkeypatch.setenv("LBCTL_URL", url)
        yield run


def test_where_all_is_well_nothing_is_found(doctor):
    assert doctor() == (0, [])
    assert "Nothing failed in" in doctor.command("doctor").out


def interface(tables, **values):
    tables["Interface"][0].update(values)


BROKEN = [
    # (sentence, how it is broken, level, part of what, part of mend)
    (
        "fail_mode",
        lambda t: t["Bridge"][0].update(fail_mode=["set", []]),
        "fail",
        "fail_mode",
        "set-fail-mode br0 secure",
    ),
    (
        "protocols",
        lambda t: t["Bridge"][0].update(protocols="OpenFlow13"),
        "fail",
        "OpenFlow14",
        "protocols OpenFlow14",
    ),
    (
        "in-band",
        lambda t: t["Bridge"][0].update(other_config=["map", [["controller-queue-size", "512"]]]),
        "warn",
        "in-band",
        "disable-in-band=true",
    ),
    (
        "queue",
        lambda t: t["Bridge"][0].update(other_config=["map", [["disable-in-band", "true"]]]),
        "warn",
        "queues 100",
        "controller-queue-size=512",
    ),
    (
        "no controller",
        lambda t: t["Bridge"][0].update(controller=["set", []]),
        "fail",
        "no controller",
        "set-controller br0",
    ),
    (
        "not connected",
        lambda t: t["Controller"][0].update(is_connected=False, status=["map", [["last_error", "Refused"]]]),
        "fail",
        "not connected to tcp:198.18.0.1:6653 (Refused)",
        "set-controller",
    ),
    ("port missing", lambda t: interface(t, name="eth9"), "fail", "no port lba-ext", "add-port br0 lba-ext"),
    ("port down", lambda t: interface(t, link_state="down"), "fail", "lba-ext is down", "ip link set lba-ext up"),
    ("port broken", lambda t: interface(t, error="could not open"), "fail", "could not open", "ip link show lba-ext"),
    (
        "no bridge of ours",
        lambda t: t["Bridge"][0].update(datapath_id="0000000000000001"),
        "warn",
        "00000000000000aa",
        "datapath-id",
    ),
]


@pytest.mark.parametrize(
    ("breaks", "level", "what", "mend"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_each_fault_is_found_and_its_mend_named(doctor, tools, breaks, level, what, mend):
    breaks(tools.tables)
    status, findings = doctor()
    assert [finding["level"] for finding in findings] == [level]
    assert what in findings[0]["what"] and mend in findings[0]["mend"]
    assert status == (1 if level == "fail" else 0)


def test_ports_that_take_more_than_the_site_file_says_and_one_that_merges_packets(doctor, tools):
    for row in tools.tables["Interface"]:
        row["mtu"] = 9000 if row["name"] == "lba-int" else 1500
    [finding] = doctor()[1]
    assert "the MTU of lba-int is 9000, and the site file's internal_mtu is 1500" in finding["what"]
    assert finding["mend"].endswith("else ip link set lba-int mtu 1500")
    for row in tools.tables["Interface"]:
        row["mtu"] = []
    tools.merging = "on"
    assert [finding["mend"] for finding in doctor()[1]] == [
        "ethtool -K lba-ext gro off", "ethtool -K lba-int gro off"]


def test_a_queue_that_ran_over_and_an_offload(doctor, tools):
    tools.overflow, tools.offload = 7, "on"
    findings = doctor()[1]
    assert "dropped 7 packets" in findings[0]["what"]
    assert [finding["mend"].split(";")[0] for finding in findings[1:]] == [
        "ethtool -K lba-ext tx off",
        "ethtool -K lba-int tx off",
    ]


def test_the_receive_queues_of_a_userspace_datapath_are_measured(doctor, tools):
    tools.queue, tools.default = SHORT, SHORT
    status, [finding] = doctor()
    assert (status, finding["level"]) == (0, "warn")
    assert (
        "lb-a: the receive queues of lba-ext and lba-int hold 212992 bytes, some 92 full frames; 8388608 are"
        in finding["what"]
    )
    assert finding["mend"].startswith(
        "sysctl -w net.core.rmem_default=8388608; then: lbctl drain lb-a --wait; systemctl restart"
    )
    assert finding["keep"] == "printf 'net.core.rmem_default = 8388608\\n' >/etc/sysctl.d/60-lbctl-rmem-default.conf"
    shown = doctor.command("doctor").out
    assert f"-> so that it lasts: {finding['keep']}" in shown and "Nothing failed" in shown


def test_a_longer_default_helps_ports_that_are_opened_afterwards_only(doctor, tools):
    tools.queue = SHORT
    [finding] = doctor()[1]
    assert finding["mend"].startswith("lbctl drain lb-a --wait; systemctl restart openvswitch-switch")
    tools.queue, tools.default = ENOUGH, SHORT
    assert doctor() == (0, [])
    assert (
        "hold 8388608 bytes (net.core.rmem_default is 212992 now, so a restart of ovs-vswitchd would shorten them)"
        in (doctor.command("doctor").out)
    )


def test_packets_that_a_receive_queue_had_no_room_for(doctor, tools):
    tools.lost = 12
    assert [finding["what"].partition(": ")[2] for finding in doctor()[1]] == [
        f"the receive queue of {port} ran over: 12 packets are lost since the port was opened."
        for port in ("lba-ext", "lba-int")
    ]


def test_queues_that_cannot_be_seen_are_judged_by_the_setting(doctor, tools):
    tools.sockets, tools.default = False, SHORT
    [finding] = doctor()[1]
    assert "net.core.rmem_default is 212992" in finding["what"] and "rmem_default=8388608, before" in finding["mend"]


def test_the_kernels_datapath_has_no_such_queues(doctor, tools):
    tools.tables["Bridge"][0]["datapath_type"] = "system"
    tools.queue, tools.default, tools.lost, tools.offload = SHORT, SHORT, 12, "on"
    assert doctor() == (0, [])


SEGMENT = [{"ifname": "lba-ext", "link": "to-lba-ext", "linkinfo": {"info_kind": "veth"}},
           {"ifname": "to-lba-ext", "link": "lba-ext", "master": "outside", "linkinfo": {"info_kind": "veth"}},
           {"ifname": "outside", "linkinfo": {"info_kind": "bridge"}},
           {"ifname": "lba-int", "link_index": 7, "linkinfo": {"info_kind": "veth"}}, {}]
"""What `ip -json` says of a veth whose other end is in a Linux bridge here, and of one whose other end is elsewhere."""


def test_a_linux_bridge_that_hands_packets_to_iptables(doctor, tools):
    (tools.directory / "bridge-nf-call-iptables").write_text("1\n")
    assert doctor() == (0, []), "no such bridge carries packets of a load balancer"
    tools.links = SEGMENT
    [finding] = doctor()[1]
    assert finding["level"] == "warn" and "the Linux bridge outside, which its packets go through" in finding["what"]
    assert finding["mend"].startswith("sysctl -w net.bridge.bridge-nf-call-iptables=0 (")
    assert finding["keep"].startswith(
        "echo br_netfilter >/etc/modules-load.d/lbctl.conf; printf 'net.bridge.bridge-nf-call-iptables = 0"
    )
    (tools.directory / "bridge-nf-call-iptables").write_text("0\n")
    assert doctor() == (0, []) and "the Linux bridge outside does not hand" in doctor.command("doctor").out


def test_one_report_of_several_open_vswitches(doctor, tools, tmp_path):
    """As in a lab: what fails in one does not hide the other."""
    here, dead = tmp_path / "here", tmp_path / "dead"
    tools.write()
    for tool in ("ovs-vsctl", "ovs-appctl"):
        script = (tools.directory / tool).read_text().removeprefix("#!/bin/sh\n")
        tools._tool(tool, f"[ $OVS_RUNDIR = {here} ] || {{ echo database connection failed >&2; exit 1; }}\n{script}")
    run = doctor.command("doctor", "--json", "--ovs-rundir", str(dead), "--ovs-rundir", str(here))
    wrong = [finding["what"] for finding in run.json["findings"] if finding["level"] != "ok"]
    assert run.status == 1 and len(wrong) == 1 and f"with its sockets in {dead}" in wrong[0]
    assert "Open vSwitch 3.1.0 of lb-a runs." in [finding["what"] for finding in run.json["findings"]]


def test_open_vswitch_does_not_run(doctor, tools):
    tools.fails = True
    status, findings = doctor()
    assert status == 1 and "ovs-ctl start" in findings[0]["mend"]


def test_no_open_vswitch_here_is_no_failure(doctor, monkeypatch):
    monkeypatch.setattr(Ovs, "missing_tools", staticmethod(lambda: ["ovs-vsctl"]))
    status, findings = doctor()
    assert status == 0 and "openvswitch-switch" in findings[0]["mend"]


def test_what_the_controller_says_is_told(doctor):
    switches = doctor.command.control.switches
    switches["lb-b"].disconnected("the OpenFlow connection ended", 1.0)
    switches["lb-a"].neighbours.popitem()
    switches["lb-a"].counters["dropped_malformed"] = 3
    switches["lb-a"].counters["dropped_not_ours"] = 30_000
    switches["lb-a"].counters["ports_exhausted"] = 5
    switches["lb-a"].counters["no_way_outside"] = 4
    status, findings = doctor()
    assert status == 1
    text = json.dumps(findings)
    assert "not_ours" not in text, "nothing is wrong about it"
    for part in ("lb-b is not connected", "00000000000000bb", "does not answer the ARP requests of lb-a",
                 "lb-a: 3 dropped since the controller started (malformed), each a packet that is cut off",
                 "Hosts inside have sent 4 packets to the outside by lb-a, and no NAT gateway has them",
                 "lb-a has refused 5 connections because no translated port was left"):
        assert part in text


def test_a_server_that_is_down_is_told(doctor):
    ip = doctor.command.control.site.external_ips[0]
    server = ip.services[0].servers[0]
    doctor.command.control.services.states[ip.address, server.endpoint] = ServerState("down", 0, "status 503", 1.0)
    status, findings = doctor()
    assert status == 0 and [finding["level"] for finding in findings] == ["warn"]
    assert (
        f"Server {server.address} port {server.port} of {ip.address} (tcp/80) is down: status 503."
        == findings[0]["what"]
    )


def test_a_service_that_serves_in_spite_of_its_checks_is_told(doctor):
    doctor.command.control.services.failing_open = "all servers are down"
    _, findings = doctor()
    assert any("serves in spite of its health checks: all servers are down." in each["what"] for each in findings)
    assert all(each["level"] == "warn" for each in findings)


def test_without_a_controller_the_site_file_says_which_bridges(doctor, monkeypatch):
    monkeypatch.setenv("LBCTL_URL", "http://127.0.0.1:1")
    status, findings = doctor("--site", "examples/site.yaml")
    assert (status, len(findings)) == (1, 1) and "ryu-manager" in findings[0]["mend"]
    status, findings = doctor()
    assert "lbctl doctor --site FILE" in [finding["mend"] for finding in findings]
    status, findings = doctor("--site", "none.yaml")
    assert status == 1 and "no such file" in json.dumps(findings)


@pytest.fixture
def all_kinds(capsys, monkeypatch, tools):
    """The doctor of a site with external IPs of all kinds, where nothing is wrong."""
    site = site_of_all_kinds()
    site = replace(site, internal_networks=(*site.internal_networks, ip_network("2001:db8:2::/64")))
    command = Command(capsys, monkeypatch, site)
    for lb in command.control.switches.values():
        for ip in command.control.site.external_ips:
            lb.neighbours.update(dict.fromkeys([hop.address for hop in ip.hops().values()], "02:00:00:00:00:11"))
            lb.neighbours.update(dict.fromkeys([ip.router] if ip.router else [], "02:00:00:00:00:fe"))
    tools.tables["Port"].append({"_uuid": ["uuid", "p3"], "interfaces": ["uuid", "i3"]})
    tools.tables["Bridge"][0]["ports"][1].append(["uuid", "p3"])
    tools.tables["Interface"].append(
        {
            **tools.tables["Interface"][0],
            "_uuid": ["uuid", "i3"],
            "name": "lba-vx",
            "type": "vxlan",
            "status": ["map", []],
            "options": ["map", [["remote_ip", "flow"], ["key", "flow"]]],
        }
    )
    for row in tools.tables["Interface"][:2]:
        row.update(type="", options=["map", []])
    monkeypatch.delenv("LBCTL_TOKEN", raising=False)

    def run():
        tools.write()
        return [
            (finding["what"], finding["mend"])
            for finding in command("doctor", "--json").json["findings"]
            if finding["level"] != "ok"
        ]

    run.tools = tools
    run.neighbours = command.control.switches["lb-a"].neighbours
    run.interface = tools.tables["Interface"][2]
    with serving(command) as url:
        monkeypatch.setenv("LBCTL_URL", url)
        yield run


def test_external_ips_of_all_kinds(all_kinds):
    assert all_kinds() == []
    for address in ("198.51.100.254", "10.9.0.1"):
        del all_kinds.neighbours[ip_address(address)]
    tunnelled, router = all_kinds()
    assert (
        "Server 10.9.0.1 of 198.51.100.4" in tunnelled[0]
        and "on 10.0.0.12: ip -d link show type vxlan (key 7)" in tunnelled[1]
    )
    assert "router 198.51.100.254 of the NAT gateway 198.51.100.5" in router[0]
    del all_kinds.neighbours[ip_address("10.0.0.11")]
    assert "The router 10.0.0.11 that server 10.1.0.1 is behind" in str(all_kinds())


def test_a_site_with_ipv6_needs_prefix_trees_for_it(all_kinds):
    [bridge] = all_kinds.tools.tables["Bridge"]
    bridge["flow_tables"] = ["map", []]
    [(found, how)] = all_kinds()
    assert "no prefix trees for IPv6 in tables 5, 10, 20, 21, 24, 25, 30" in found
    assert f"ovs-vsctl {' '.join(tries.command('br0'))} (" in how
    all_kinds.tools.version = "3.5.0"
    assert all_kinds() == [], "it has them by itself"
    bridge["flow_tables"] = ["map", [[20, ["uuid", "t21"]]]]
    assert "in tables 20:" in str(all_kinds()), "unless told otherwise"


@pytest.mark.parametrize(
    ("change", "what", "mend"),
    [
        (
            {"name": "eth9"},
            "no tunnel port lba-vx",
            "add-port br0 lba-vx -- set interface lba-vx type=vxlan options:remote_ip=flow options:key=flow",
        ),
        ({"type": "geneve"}, "no vxlan port", "set interface lba-vx type=vxlan"),
        (
            {"options": ["map", [["remote_ip", "198.18.1.2"], ["key", "flow"]]]},
            "no vxlan port",
            "options:remote_ip=flow",
        ),
        ({"link_state": "down"}, "lba-vx is down", "ip link set lba-vx up"),
    ],
    ids=["missing", "other type", "one other end", "down"],
)
def test_a_tunnel_port_that_is_wrong(all_kinds, change, what, mend):
    all_kinds.interface.update(change)
    [(found, how)] = all_kinds()
    assert what in found and mend in how


@pytest.mark.parametrize("routes", ["", "Cached: 198.18.1.11/32 dev br0 SRC 198.18.1.11 local",
                                    "Cached: 0.0.0.0/0 dev eth0 GW 198.18.1.254"])
def test_tunnels_need_a_bridge_to_leave_by(all_kinds, routes):
    """The address alone is not enough, nor is a device that is no bridge."""
    all_kinds.tools.routes = routes
    [(found, how)] = all_kinds()
    assert "no bridge of the userspace datapath has an address and a route" in found and "docs/tunnels.md" in how


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("ovs-vswitchd (Open vSwitch) 3.1.0", Level.OK),
        ("(Open vSwitch) 3.10.1", Level.OK),
        ("(Open vSwitch) 2.17.9", Level.WARN),
        ("nonsense", Level.WARN),
    ],
)
def test_versions(text, level):
    assert check_version(text).level is level


@pytest.mark.parametrize(
    ("installed", "level"),
    [
        ({"c65ryu": "5.0.0", "eventlet": "0.41.3"}, Level.OK),
        ({}, Level.WARN),
        ({"ryu": "4.34", "eventlet": "0.41.3"}, Level.FAIL),
    ],
)
def test_the_stack(monkeypatch, installed, level):
    monkeypatch.setattr(checks_controller, "_version", installed.get)
    assert [finding.level for finding in checks_controller.check_stack()] == [level]
