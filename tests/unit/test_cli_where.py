"""lbctl where: the rules that a packet meets, worked out from the tables, and the switch's trace with our names."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from lbctl.api.views import entry as entry_view
from lbctl.cli.where.fate import _outcome
from lbctl.cli.where.situation import Situation, ports_of
from lbctl.cli.where.trace import _flow as packet_text
from lbctl.cli.where.trace import annotate
from lbctl.cli.where.walk import Hit
from lbctl.moves.actions import HOLDING
from lbctl.openflow.cookies import Kind
from lbctl.openflow.flow import flow
from lbctl.openflow.rules import SERVING
from lbctl.servers.states import FormerServer, ServerState
from lbctl.site.model import Hop
from lbctl.values.addresses import Endpoint
from lbctl.values.transfer import Strategy
from tests.unit.api_fakes import IP_1, SERVER_1, SERVER_2, VXLAN_SERVER, Api, entry, entry_of, site_of_all_kinds
from tests.unit.cli_harness import Command, serving

CLIENT, EXTERNAL = "203.0.113.9:1000", "198.51.100.1:80"

TRACE = """\
Flow: tcp,in_port=1,tcp_flags=syn

bridge("lb-a")
--------------
 0. ip,in_port=1,dl_dst=02:00:00:00:01:01, priority 100, cookie 0x1b0126e900000000
    goto_table:10
10. ip,in_port=1,nw_dst=198.51.100.1, priority 100, cookie 0x1b03f24dc6336401
    goto_table:15
15. priority 7, cookie 0x77
    goto_table:30
30. No match.
    drop
"""


@pytest.fixture
def lbctl(capsys, monkeypatch):
    command = Command(capsys, monkeypatch)
    monkeypatch.delenv("LBCTL_TOKEN", raising=False)
    with serving(command) as url:
        monkeypatch.setenv("LBCTL_URL", url)
        yield command


def outcomes(lbctl, client=CLIENT, external=EXTERNAL):
    answer = lbctl("where", client, external, "--json").json
    return {packet: (found["outcome"], [step["name"] for step in found["path"]])
            for packet, found in answer["verdicts"].items()}


FLAGS = ["classify", "sources", "transfer_mode", "inbound_flags"]


def test_a_packet_of_a_connection_goes_to_its_server(lbctl):
    lbctl.control.table[IP_1] = [entry("203.0.113.9", 1000), entry("203.0.113.9", 1001)]
    assert outcomes(lbctl) == {"segment": ("server", [*FLAGS, "access_in", "client_hop", "deliver_server"]),
                               "syn": ("new", [*FLAGS, "no_entry"])}
    run = lbctl("where", CLIENT, EXTERNAL)
    assert "has an entry: server 10.0.0.11:80, open" in run.out
    assert "priority=100,ip,in_port=1,dl_dst=02:00:00:00:01:01 actions=goto_table:5" in run.out
    assert "set_field:02:00:00:00:00:11->eth_dst,dec_ttl,load:0->NXM_OF_IN_PORT[],output:2" in run.out


def test_the_server_is_not_found(lbctl):
    lbctl.control.table[IP_1] = [entry("203.0.113.9", 1000, server=SERVER_2)]
    assert outcomes(lbctl)["segment"] == ("dropped", [*FLAGS, "access_in", "client_hop", "deliver_server"])
    assert "10.0.0.12 has not answered lb-a's ARP" in lbctl("where", CLIENT, EXTERNAL).out


def test_a_new_connection(lbctl):
    assert outcomes(lbctl) == {"syn": ("new", [*FLAGS, "no_entry"]),
                               "segment": ("reset", [*FLAGS, "access_in", "no_entry"])}
    assert "by weighted-round-robin, one of 10.0.0.11:80, 10.0.0.12:8080" in lbctl("where", CLIENT, EXTERNAL).out


def test_only_servers_that_take_connections_are_named(lbctl):
    states = lbctl.control.services.states
    states[IP_1, Endpoint(SERVER_1, 80)] = ServerState("drained", 1)
    assert "one of 10.0.0.12:8080." in lbctl("where", CLIENT, EXTERNAL).out
    states[IP_1, Endpoint(SERVER_2, 8080)] = ServerState("full", 1)
    assert outcomes(lbctl)["syn"] == ("reset", [*FLAGS, "no_entry"])
    assert "answers with a RST: no server takes connections" in lbctl("where", CLIENT, EXTERNAL).out


def test_a_removed_server_is_reached_by_its_connections(lbctl):
    gone = IPv4Address("10.0.0.19")
    lbctl.control.table[IP_1] = [entry("203.0.113.9", 1000, server=gone)]
    assert outcomes(lbctl)["segment"][0] == "dropped"
    lbctl.control.services.former = [FormerServer(gone, Hop(SERVER_1), 1)]
    assert outcomes(lbctl)["segment"] == ("server", [*FLAGS, "access_in", "client_hop", "deliver_server"])


def test_no_service_on_that_port(lbctl):
    assert outcomes(lbctl, external="198.51.100.1:81")["syn"] == ("reset", [*FLAGS, "no_entry"])
    assert "no tcp service on port 81" in lbctl("where", CLIENT, "198.51.100.1:81").out


def test_an_external_ip_without_transfer_mode(lbctl):
    lbctl.control.switches["lb-a"].roles.clear()
    assert outcomes(lbctl)["syn"] == ("unreachable", ["classify", "sources", "transfer_mode"])


@pytest.mark.parametrize(("strategy", "segment"), [
    (Strategy.PRECOPY, ("server", [*FLAGS, "access_in", "client_hop", "deliver_server"])),
    (Strategy.BUFFERED, ("held", ["classify", "sources", "transfer_mode", "no_entry"]))])
def test_in_transition_precopy_forwards_what_it_knows_and_buffered_holds_all(lbctl, strategy, segment):
    lbctl.control.table[IP_1] = [entry("203.0.113.9", 1000)]
    lbctl.orders.start_move(IP_1, "lb-b", strategy)
    lbctl.control.assignment[IP_1] = "lb-b"
    lbctl.control.switches["lb-b"].roles[IP_1] = HOLDING
    found = outcomes(lbctl)
    assert found["segment"] == segment and found["syn"][0] == "held"
    assert "Move 1 from lb-a to lb-b is running" in lbctl("where", CLIENT, EXTERNAL).out


def test_a_load_balancer_without_ports(lbctl):
    lbctl.control.switches["lb-a"].set_ports([])
    lbctl.control.switches["lb-a"].disconnected("the OpenFlow connection ended", 1.0)
    run = lbctl("where", CLIENT, EXTERNAL)
    assert run.status == 1 and "lb-a, which is disconnected: the OpenFlow connection ended" in run.err


@pytest.fixture
def all_kinds(capsys, monkeypatch):
    command = Command(capsys, monkeypatch, site_of_all_kinds())
    monkeypatch.delenv("LBCTL_TOKEN", raising=False)
    neighbours = command.control.switches["lb-a"].neighbours
    neighbours.update(dict.fromkeys((VXLAN_SERVER, ip_address("2001:db8:2::11")), "02:00:00:00:00:77"))
    with serving(command) as url:
        monkeypatch.setenv("LBCTL_URL", url)
        yield command


INTO = ["classify", "sources", "transfer_mode", "inbound_flags", "access_in"]
OUT = ["classify", "sources", "transfer_mode", "outbound_flags", "access_out"]
UDP = entry_of(17, "203.0.113.9 1000", "198.51.100.3 53", "10.0.0.11 5353")
ROUTED = entry_of(6, "203.0.113.9 1000", "198.51.100.4 80", "10.1.0.1 80", "10.0.0.104 1024")
TUNNELLED = entry_of(6, "203.0.113.9 1000", "198.51.100.4 80", "10.9.0.1 80", "10.0.0.104 1024")
OUTWARD = entry_of(17, "203.0.113.9 53", "198.51.100.5 1024", "10.0.0.201 999", inner_hop="020000000201")
IPV6 = entry_of(6, "2001:db8:3::9 1000", "2001:db8:1::1 80", "2001:db8:2::11 80")
KINDS = [
    # (sentence, entry or none, arguments, packet -> outcome and tables, part of what is printed)
    (
        "a datagram by its entry",
        UDP,
        [CLIENT, "198.51.100.3:53", "--protocol", "udp"],
        {"datagram": ("server", [*INTO, "client_hop", "deliver_server"])},
        "goes to server 10.0.0.11:5353",
    ),
    (
        "a first datagram",
        None,
        [CLIENT, "198.51.100.3:54"],
        {"datagram": ("new", [*INTO, "no_entry"])},
        "10.0.0.11:5353",
    ),
    (
        "tcp where udp has an entry",
        UDP,
        [CLIENT, "198.51.100.3:53"],
        {"syn": ("new", [*FLAGS, "no_entry"]), "segment": ("reset", [*INTO, "no_entry"])},
        "has no entry",
    ),
    (
        "a datagram without service",
        None,
        [CLIENT, "198.51.100.3:80", "--protocol", "udp"],
        {"datagram": ("unreachable", [*INTO, "no_entry"])},
        "no udp service on port 80",
    ),
    (
        "full NAT, behind a router",
        ROUTED,
        [CLIENT, "198.51.100.4:80"],
        {"segment": ("server", [*INTO, "client_hop", "deliver_server"]), "syn": ("new", [*FLAGS, "no_entry"])},
        "as 10.0.0.104:1024",
    ),
    (
        "full NAT, behind a tunnel",
        TUNNELLED,
        [CLIENT, "198.51.100.4:80"],
        {
            "segment": ("server", [*INTO, "client_hop", "deliver_server", "deliver_tunnel"]),
            "syn": ("new", [*FLAGS, "no_entry"]),
        },
        "goes to server 10.9.0.1:80",
    ),
    (
        "out by a NAT gateway",
        OUTWARD,
        ["10.0.0.201:999", "203.0.113.9:53", "--protocol", "udp"],
        {"datagram": ("client", [*OUT, "inside_hop", "deliver_client"])},
        "as 198.51.100.5:1024",
    ),
    (
        "out, and new",
        None,
        ["10.0.0.201:999", "203.0.113.9:80"],
        {"syn": ("new", [*OUT, "no_entry"]), "segment": ("reset", [*OUT, "no_entry"])},
        "not before the router 198.51.100.254 has told its MAC",
    ),
    (
        "back by a NAT gateway",
        OUTWARD,
        ["203.0.113.9:53", "198.51.100.5:1024", "--protocol", "udp"],
        {"datagram": ("server", [*INTO, "deliver_inside"])},
        "goes to inside host 10.0.0.201:999",
    ),
    (
        "in through a NAT gateway",
        None,
        [CLIENT, "198.51.100.5:80"],
        {"syn": ("reset", [*FLAGS, "no_entry"]), "segment": ("reset", [*INTO, "no_entry"])},
        "opened from inside only",
    ),
    (
        "IPv6",
        IPV6,
        ["[2001:db8:3::9]:1000", "[2001:DB8:1:0::1]:80"],
        {"segment": ("server", [*INTO, "client_hop", "deliver_server"]), "syn": ("new", [*FLAGS, "no_entry"])},
        "server [2001:db8:2::11]:80",
    ),
]


@pytest.mark.parametrize(
    ("known", "args", "wanted", "words"), [row[1:] for row in KINDS], ids=[row[0] for row in KINDS]
)
def test_packets_of_all_kinds_of_external_ips(all_kinds, known, args, wanted, words):
    if known:
        all_kinds.control.table[known.connection.external.address].append(known)
    answer = all_kinds("where", *args, "--json").json
    assert {
        packet: (found["outcome"], [step["name"] for step in found["path"]])
        for packet, found in answer["verdicts"].items()
    } == wanted
    assert words in all_kinds("where", *args).out


def test_a_nat_gateways_filtering_lets_a_datagram_in(all_kinds):
    site = all_kinds.control.site
    site = replace(site, external_ips=tuple(
        replace(ip, mapping="endpoint-independent", filtering="address-dependent") if ip.inside else ip
        for ip in site.external_ips))
    all_kinds.control.site = site
    args = ["203.0.113.9:53", "198.51.100.5:1024", "--protocol", "udp"]
    assert all_kinds("where", *args, "--json").json["verdicts"]["datagram"]["outcome"] == "new"
    assert "has sent something to that address (filtering: address-dependent)" in all_kinds("where", *args).out


def test_why_a_packet_is_dropped_is_told_with_its_count():
    last = Hit("no_entry", flow(Kind.SYN_AND_FIN, 0, "no_entry", 125, {"eth_type": 0x0800}))
    view = {"name": "lb-a", "counters": {"dropped": {"syn_and_fin": 12}}}
    situation = Situation("tcp", Endpoint(IPv4Address("203.0.113.9"), 1), Endpoint(IP_1, 80), False, False, None,
                          {"address": str(IP_1), "inside": []}, view, None, "normal", None, None)
    assert _outcome(situation, last, None) == (
        "dropped", "dropped in table 30 (no_entry) of lb-a, as a packet that has SYN and FIN at once, as no sane host "
        "sends it; counted as syn_and_fin, 12 so far")


def test_a_server_calls_another_external_ip(all_kinds):
    """From inside: it is shown to the controller there, and its server sees the gateway."""
    answer = all_kinds("where", "10.0.0.11:5000", "198.51.100.1:80", "--json").json
    assert "in_port=2" in answer["verdicts"]["syn"]["path"][2]["rule"]
    assert answer["verdicts"]["syn"]["outcome"] == "new"
    assert "they see a port of the gateway 10.0.0.1" in all_kinds("where", "10.0.0.11:5000", "198.51.100.1:80").out


def test_a_host_of_another_lbs_gateway_is_passed_on(all_kinds):
    all_kinds.control.assignment[IP_1] = "lb-b"
    all_kinds.control.switches["lb-b"].roles[IP_1] = SERVING
    told = all_kinds("where", "10.0.0.201:999", "198.51.100.1:80").out
    assert "It comes in at lb-a, where its sender's gateway is, and is passed on to lb-b" in told


@pytest.mark.parametrize(("source", "words"), [
    ("10.0.0.11:999", "10.0.0.11 is a server of 198.51.100.1, and no NAT gateway has it"),
    ("10.0.0.99:999", "10.0.0.99 is inside, and no NAT gateway has it")])
def test_who_has_no_way_outside_is_told_why(all_kinds, source, words):
    run = all_kinds("where", source, "203.0.113.9:53")
    assert run.status == 1 and words in " ".join(run.err.split())


def test_both_ends_must_be_of_one_ip_version(all_kinds):
    assert all_kinds("where", "203.0.113.9:1", "[2001:db8:1::1]:80").status == 2


def test_the_switch_is_asked_about_the_same_packet():
    def flow(known, outward=False, **changes):
        api = Api(of_site=site_of_all_kinds())
        connection = known.connection
        source, destination = (
            (connection.server, connection.client) if outward else (connection.client, connection.external)
        )
        lb = api.get("/v1/load-balancers/lb-a")
        return packet_text(
            Situation(
                {6: "tcp", 17: "udp"}[connection.protocol],
                source,
                destination,
                outward,
                outward,
                None,
                {},
                lb,
                ports_of(lb),
                "normal",
                entry_view(known).model_dump(),
                None,
            ),
            **changes,
        )

    assert flow(UDP, packet="datagram") == (
        "in_port=1,udp,dl_src=02:00:00:00:00:09,dl_dst=02:00:00:00:01:01,"
        "nw_src=203.0.113.9,nw_dst=198.51.100.3,nw_ttl=64,udp_src=1000,udp_dst=53"
    )
    assert flow(IPV6, packet="syn").endswith(
        ",tcp6,dl_src=02:00:00:00:00:09,dl_dst=02:00:00:00:01:01,"
        "ipv6_src=2001:db8:3::9,ipv6_dst=2001:db8:1::1,nw_ttl=64,tcp_src=1000,tcp_dst=80,"
        "tcp_flags=syn"
    )
    assert flow(OUTWARD, outward=True, packet="datagram").startswith(
        "in_port=2,udp,dl_src=02:00:00:00:02:01,dl_dst=02:00:00:00:01:02,nw_src=10.0.0.201")


@pytest.mark.parametrize("text", ["[::1]", "[203.0.113.9]:1", "2001:db8::1:80", "203.0.113.9", "203.0.113.9:", ":80",
                                  "203.0.113.9:0", "203.0.113.9:65536",
                                  "203.0.113.9:-1", "203.0.113.9:１", "::1:80", "host:80", ""])
def test_what_is_no_endpoint_is_wrong_usage(lbctl, text):
    assert lbctl("where", text, EXTERNAL).status == 2


def test_the_trace_is_annotated():
    lines = annotate(TRACE).splitlines()
    assert lines[4].endswith("<- table classify, pipeline")
    assert lines[6].endswith("<- table transfer_mode, mode of 198.51.100.1")
    assert lines[8].endswith("<- table inbound_flags, not a rule of lbctl")
    assert lines[10] == "30. No match.    <- table no_entry"
    assert lines[5] == "    goto_table:10"
