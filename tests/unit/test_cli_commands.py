"""status, table, move, moves, abort, config check: what they print, and how they end."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

from lbctl.api import problems
from lbctl.cli import main
from lbctl.values.transfer import Strategy
from tests.unit.api_fakes import IP_1, START, entry, entry_of, site_of_all_kinds
from tests.unit.cli_harness import Command, serving

CLOSED = "http://127.0.0.1:1"


@pytest.fixture
def lbctl(capsys, monkeypatch):
    command = Command(capsys, monkeypatch)
    monkeypatch.delenv("LBCTL_TOKEN", raising=False)
    with serving(command) as url:
        monkeypatch.setenv("LBCTL_URL", url)
        yield command


def test_status_shows_load_balancers_external_ips_and_moves(lbctl):
    lbctl.control.switches["lb-b"].disconnected("connection reset", 1.0)
    lbctl.orders.start_move(IP_1, "lb-b", Strategy.PRECOPY)
    run = lbctl("status")
    assert run.status == 0
    for part in ("lb-a", "ready", "00000000000000bb", "disconnected", "connection reset", "weighted-round-robin",
                 "10.0.0.12 (no ARP answer)", "Move 1: 198.51.100.1 from lb-a to lb-b, step transition"):
        assert part in run.out
    assert [lb["name"] for lb in lbctl("status", "--json").json["load_balancers"]] == ["lb-a", "lb-b"]


def test_status_says_first_that_the_controller_is_cut_off(lbctl):
    assert "cut off" not in lbctl("status").out and lbctl("status", "--json").json["cut_off_since"] is None
    lbctl.control.cut_off_since = START
    assert lbctl("status").out.startswith("The controller has been cut off from most load balancers since ")
    assert lbctl("status", "--json").json["cut_off_since"] == "2023-11-14T22:13:20.000Z"


def test_table_shows_as_many_entries_as_asked_for(lbctl):
    lbctl.control.table[IP_1] = [entry("203.0.113.9", port) for port in range(1, 2501)]
    run = lbctl("table", "lb-a")
    assert len(run.out.splitlines()) == 101 and "100 entries of 2500 shown" in run.err
    assert "203.0.113.9:1 " in run.out and "next hop" not in run.out and "internal IP" not in run.out
    assert "02:00:00:00:00:09" in lbctl("table", "lb-a", "--wide").out
    assert len(lbctl("table", "lb-a", "--all", "--json").json["entries"]) == 2500
    assert lbctl("table", "lb-a", "--limit", "1500", "--json").json["complete"] is False
    assert len(lbctl("table", "lb-a", "--client", "203.0.113.9", "--limit", "3", "--json").json["entries"]) == 3
    assert lbctl("table", "lb-b").out == "lb-b has no such entries.\n"


def test_table_and_status_show_external_ips_of_all_kinds(capsys, monkeypatch):
    command = Command(capsys, monkeypatch, site_of_all_kinds())
    for item in (entry_of(17, "203.0.113.9 1", "198.51.100.3 53", "10.0.0.11 5353"),
                 entry_of(6, "203.0.113.9 2", "198.51.100.4 80", "10.9.0.1 80", "10.0.0.104 1024"),
                 entry_of(6, "2001:db8:3::9 1", "2001:db8:1::1 80", "2001:db8:2::11 80")):
        command.control.table[item.connection.external.address].append(item)
    with serving(command) as url:
        monkeypatch.setenv("LBCTL_URL", url)
        status, table = command("status").out, command("table", "lb-a").out
        for part in (
            "lba-vx",
            "full",
            "gateway of 10.0.0.192/26",
            "10.0.0.104",
            "udp/53 round-robin",
            "10.1.0.1 via 10.0.0.11",
            "10.9.0.1 by vxlan (no ARP answer)",
            "router 198.51.100.254 (no ARP answer)",
            "2001:db8:2::11 (no neighbour discovery answer)",
        ):
            assert part in status
        for part in ("[2001:db8:3::9]:1 ", "internal IP", "10.0.0.104:1024"):
            assert part in table
        for option, value, client in (("--protocol", "udp", "203.0.113.9"), ("--server", "10.9.0.1", "203.0.113.9"),
                                      ("--client", "2001:db8:3::9", "2001:db8:3::9")):
            assert [found["client"] for found in command("table", "lb-a", option, value, "--json").json["entries"]] == [
                client
            ]
        assert command("table", "lb-a", "--state", "reset", "--client-port", "1", "--json").json["entries"] == []
        assert command("table", "lb-a", "--state", "closed").status == 2


def test_move_starts_one(lbctl):
    run = lbctl("move", str(IP_1), "lb-b", "--strategy", "buffered")
    assert (run.status, run.out) == (0, "Move 1 has started; `lbctl moves 1` shows it.\n")
    assert lbctl("moves", "1", "--json").json["strategy"] == "buffered"
    assert "198.51.100.1" in lbctl("moves").out


@pytest.mark.parametrize(("state", "status"), [("done", 0), ("rolled-back", 1)])
def test_move_waits_and_shows_progress(lbctl, state, status):
    def end():
        while "1" not in lbctl.control.moves:
            time.sleep(0.01)
        record = lbctl.control.moves["1"]
        time.sleep(0.3)
        record.entries_copied = record.entries_total = 5
        record.steps[-1].seconds = 0.25
        record.state, record.ended, record.reason = state, START + 1, "lb-b was lost" if status else None

    thread = threading.Thread(target=end)
    thread.start()
    run = lbctl("move", str(IP_1), "lb-b", "--wait")
    thread.join()
    assert run.status == status
    assert "move 1, 198.51.100.1 to lb-b: transition, 0 of 0 entries copied" in run.err
    assert state in run.out and "5 of 5 entries copied" in run.out and "0.250" in run.out
    assert ("lb-b was lost" in run.out) == bool(status)


def test_abort(lbctl):
    lbctl("move", str(IP_1), "lb-b")
    assert lbctl("abort", "1").out == "Move 1 is aborted; 198.51.100.1 stays on lb-a.\n"
    run = lbctl("abort", "1")
    assert (run.status, run.err) == (1, "lbctl: Move 1 has ended (aborted).\n")


def test_scheduler(lbctl):
    run = lbctl("scheduler", "198.51.100.1", "tcp/80", "maglev")
    assert (run.status, run.out) == (
        0,
        "New connections to 198.51.100.1 tcp/80 choose by maglev, until the site file says another "
        "than weighted-round-robin.\n",
    )
    assert "tcp/80 maglev (ordered)" in lbctl("status").out
    run = lbctl("scheduler", "198.51.100.1", "tcp/80", "weighted-round-robin")
    assert run.out.endswith("weighted-round-robin, as in the site file.\n")
    assert "(ordered)" not in lbctl("status").out


FAILURES = [
    # (sentence, arguments, exit status, part of standard error)
    ("unknown LB", ["table", "lb-x"], 1, "There is no load balancer lb-x; there are: lb-a, lb-b."),
    ("a name with a slash", ["table", "../moves"], 1, "There is no"),
    ("unknown target", ["move", "198.51.100.1", "lb-x"], 1, "there is no load balancer lb-x"),
    ("same LB", ["move", "198.51.100.1", "lb-a"], 1, "already"),
    ("unknown move", ["moves", "9"], 1, "There is no move 9"),
    ("wrong filter", ["table", "lb-a", "--client", "x"], 1, "client"),
    ("unknown strategy", ["move", "198.51.100.1", "lb-b", "--strategy", "fast"], 2, "buffered"),
    ("unknown scheduler", ["scheduler", "198.51.100.1", "tcp/80", "at-random"], 2, "maglev"),
    ("no service", ["scheduler", "198.51.100.1", "80", "maglev"], 2, "PROTOCOL/PORT"),
    ("unknown service", ["scheduler", "198.51.100.1", "tcp/81", "maglev"], 1, "there are: tcp/80."),
    ("missing argument", ["move", "198.51.100.1"], 2, "LB"),
    ("unknown command", ["stauts"], 2, "stauts"),
    ("no such number", ["table", "lb-a", "--limit", "0"], 2, "--limit"),
    ("not an endpoint", ["where", "203.0.113.9", "198.51.100.1:80"], 2, "ADDRESS:PORT"),
    ("not an external IP", ["where", "203.0.113.9:1", "198.51.100.77:80"], 1, "There is no external IP 198.51.100.77"),
]


@pytest.mark.parametrize(("args", "status", "words"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_failures_say_what_is_wrong(lbctl, args, status, words):
    run = lbctl(*args)
    assert run.status == status and run.out == ""
    assert words in run.err
    if status == 1:
        assert run.err.count("\n") == 1


@pytest.mark.parametrize("args", [["status"], ["table", "lb-a"], ["moves"], ["move", "198.51.100.1", "lb-b", "--json"],
                                  ["where", "203.0.113.9:1", "198.51.100.1:80"]])
def test_without_a_controller_one_line_says_what_to_do(lbctl, monkeypatch, args):
    monkeypatch.setenv("LBCTL_URL", CLOSED)
    run = lbctl(*args)
    assert (run.status, run.out, run.err.count("\n")) == (1, "", 1)
    assert f"There is no controller at {CLOSED} (connection refused)" in run.err and "ryu-manager" in run.err


@pytest.mark.parametrize("url", ["nonsense", "ftp://localhost", "http://", "http://[::1", "http://host:99999"])
def test_an_impossible_url_is_named(lbctl, monkeypatch, url):
    monkeypatch.setenv("LBCTL_URL", url)
    run = lbctl("status")
    assert run.status == 1 and "LBCTL_URL" in run.err


def test_the_token(lbctl, monkeypatch):
    lbctl.token = "secret"
    assert "Set LBCTL_TOKEN" in lbctl("status").err
    monkeypatch.setenv("LBCTL_TOKEN", "wrong")
    assert "The token is wrong. Set LBCTL_TOKEN" in lbctl("status").err
    monkeypatch.setenv("LBCTL_TOKEN", "sécret\n")
    assert "LBCTL_TOKEN holds characters" in lbctl("status").err
    monkeypatch.setenv("LBCTL_TOKEN", "secret")
    assert lbctl("status").status == 0


def test_another_server_is_not_taken_for_the_controller(lbctl, monkeypatch):
    monkeypatch.setenv("LBCTL_URL", os.environ["LBCTL_URL"] + "/metrics")
    monkeypatch.setattr(problems.RequestProblem, "body", lambda self: b"<html>not found</html>")
    assert "is not lbctl's REST API" in lbctl("status").err


def test_a_bug_is_one_line(lbctl, monkeypatch):
    monkeypatch.setattr(lbctl.orders.control, "switches", {})  # the API fails with 500
    run = lbctl("status")
    assert (run.status, run.err) == (1, "lbctl: The controller failed on this request; its log says why.\n")
    monkeypatch.setattr(main.status.Client, "from_environment", lambda: 1 / 0)
    run = lbctl("status")
    assert run.status == 1 and run.err.startswith("lbctl: internal error: ZeroDivisionError")


def test_config_check(lbctl, tmp_path):
    good = lbctl("config", "check", "examples/site.yaml")
    assert (good.status, good.err) == (0, "") and "is right" in good.out
    file = tmp_path / "site.yaml"
    file.write_text("load_balancers: []\nexternal_ips: 5\n")
    bad = lbctl("config", "check", str(file))
    assert bad.status == 1 and f"{file}:2: " in bad.out and "errors" in bad.err
    listed = json.loads(lbctl("config", "check", str(file), "--json").out)
    assert listed["valid"] is False and {"file", "line", "message"} == set(listed["errors"][0])
    assert lbctl("config", "check", str(tmp_path / "none.yaml")).status == 1
    assert lbctl("config", "check").status == 2
