"""lbctl where: the rules that a packet meets, worked out from the tables, and the switch's trace with our names."""

from __future__ import annotations

import pytest

from lbctl.cli.trace import annotate
from lbctl.model import Strategy, TransferMode
from tests.unit.api_fakes import IP_1, SERVER_2, entry
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


FLAGS = ["classify", "transfer_mode", "inbound_flags"]


def test_a_packet_of_a_connection_goes_to_its_server(lbctl):
    lbctl.control.table[IP_1] = [entry("203.0.113.9", 1000), entry("203.0.113.9", 1001)]
    assert outcomes(lbctl) == {"segment": ("server", [*FLAGS, "access_in", "deliver_server"]),
                               "syn": ("new", [*FLAGS, "no_entry"])}
    run = lbctl("where", CLIENT, EXTERNAL)
    assert "has an entry: server 10.0.0.11:80, open" in run.out
    assert "priority=100,ip,in_port=1,dl_dst=02:00:00:00:01:01 actions=goto_table:10" in run.out
    assert "set_field:02:00:00:00:00:11->eth_dst,dec_ttl,output:2" in run.out


def test_the_server_is_not_found(lbctl):
    lbctl.control.table[IP_1] = [entry("203.0.113.9", 1000, server=SERVER_2)]
    assert outcomes(lbctl)["segment"] == ("dropped", [*FLAGS, "access_in", "deliver_server"])
    assert "10.0.0.12 has not answered lb-a's ARP" in lbctl("where", CLIENT, EXTERNAL).out


def test_a_new_connection(lbctl):
    assert outcomes(lbctl) == {"syn": ("new", [*FLAGS, "no_entry"]),
                               "segment": ("reset", [*FLAGS, "access_in", "no_entry"])}
    assert "by weighted-round-robin, one of 10.0.0.11:80, 10.0.0.12:8080" in lbctl("where", CLIENT, EXTERNAL).out


def test_no_service_on_that_port(lbctl):
    assert outcomes(lbctl, external="198.51.100.1:81")["syn"] == ("reset", [*FLAGS, "no_entry"])
    assert "no service on port 81" in lbctl("where", CLIENT, "198.51.100.1:81").out


def test_an_external_ip_without_transfer_mode(lbctl, monkeypatch):
    monkeypatch.setattr(lbctl.control, "transfer_modes", lambda name: {})
    assert outcomes(lbctl)["syn"] == ("unreachable", ["classify", "transfer_mode"])


@pytest.mark.parametrize(("strategy", "segment"), [
    (Strategy.PRECOPY, ("server", [*FLAGS, "access_in", "deliver_server"])),
    (Strategy.BUFFERED, ("held", ["classify", "transfer_mode", "no_entry"]))])
def test_in_transition_precopy_forwards_what_it_knows_and_buffered_holds_all(lbctl, monkeypatch, strategy, segment):
    lbctl.control.table[IP_1] = [entry("203.0.113.9", 1000)]
    lbctl.orders.start_move(IP_1, "lb-b", strategy)
    lbctl.control.assignment[IP_1] = "lb-b"
    monkeypatch.setattr(lbctl.control, "transfer_modes", lambda name: {IP_1: TransferMode.TRANSITION})
    found = outcomes(lbctl)
    assert found["segment"] == segment and found["syn"][0] == "held"
    assert "Move 1 from lb-a to lb-b is running" in lbctl("where", CLIENT, EXTERNAL).out


def test_a_load_balancer_without_ports(lbctl):
    lbctl.control.switches["lb-a"].set_ports([])
    lbctl.control.switches["lb-a"].disconnected("the OpenFlow connection ended")
    run = lbctl("where", CLIENT, EXTERNAL)
    assert run.status == 1 and "lb-a, which is disconnected: the OpenFlow connection ended" in run.err


@pytest.mark.parametrize("text", ["203.0.113.9", "203.0.113.9:", ":80", "203.0.113.9:0", "203.0.113.9:65536",
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
