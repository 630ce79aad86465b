"""The site file on a running site: issue 2, point 2. SIGHUP applies a changed file; no established connection
notices."""

from __future__ import annotations

import signal
import time
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbctl.site.file.text import site_text
from lbctl.site.model import Server, Service, Site
from tests.bed.bed import Bed
from tests.bed.found import AsFound
from tests.bed.patience import limit
from tests.bed.sites import simple_site
from tests.bed.traffic import connect, request
from tests.integration.hands import Talk, entries_of, entry_flows_of, eventually, metric, who_answers

PLAIN = simple_site(external_ips=3, servers=3, ports={80: 8080, 81: 9081}, settings={"linger": 1, "arp_interval": 1.0})
FIRST, SECOND, THIRD = "198.51.100.1", "198.51.100.2", "198.51.100.3"
BED = {"site": PLAIN}
"""The network has all hosts; SMALL is what the controller starts with."""


def with_first(site: Site, *services: Service) -> Site:
    """The site with these services on its first external IP."""
    one, *rest = site.external_ips
    return replace(site, external_ips=(replace(one, services=services), *rest))


def service(port: int, *servers: Server, scheduler: str = "round-robin") -> Service:
    return Service("tcp", port, scheduler, servers)


def server(number: int, port: int = 8080, weight: int = 1) -> Server:
    return Server(IPv4Address(f"10.0.0.{number}"), port, weight)


SMALL = with_first(replace(PLAIN, external_ips=PLAIN.external_ips[:2]), service(80, server(11), server(12)))
"""lb-a has .1 with one service and two servers, lb-b has .2."""


def without_ip(site: Site, address: str) -> Site:
    return replace(site, external_ips=tuple(ip for ip in site.external_ips if str(ip.address) != address))


@pytest.fixture
def small(found: AsFound) -> Bed:
    """The bed with SMALL in force, and a controller that goes on from test to test."""
    return found.go_on(SMALL)


def applied(bed: Bed) -> int:
    return bed.controller.logged("site applied")


def refused(bed: Bed) -> float:
    return metric(bed, 'lbctl_controller_events_total{event="site_files_refused"}')


def rules(bed: Bed) -> list[list[str]]:
    """All flows of each LB but entries, which come and go."""
    return [
        [line for line in node.dump_flows().splitlines() if "send_flow_rem" not in line] for node in bed.lbs.values()
    ]


def apply(bed: Bed, site: Site | str) -> None:
    """Writes the file, sends SIGHUP, and waits until it is applied and all is ready."""
    before = applied(bed)
    bed.controller.reload(site)
    eventually(bed, lambda: applied(bed) > before, "the site file is applied")
    bed.wait_ready()


def servers_of(bed: Bed, count: int, external: str = FIRST, port: int = 80) -> Counter[str]:
    return Counter(who_answers(bed.clients[1], external, port) for _ in range(count))


def talks_to(bed: Bed, wanted: str, external: str = FIRST, port: int = 80) -> Talk:
    """A connection to that server."""
    while True:
        talk = Talk(bed.clients[0], external, port)
        if entries_of(bed, talk.local)[0]["server"] == wanted:
            return talk
        talk.close()


# What is added.


def test_external_ips_services_and_servers_are_added(small: Bed) -> None:
    with Talk(small.clients[0], FIRST) as talk, Talk(small.remote, SECOND) as other:
        flows = entry_flows_of(small, talk.local)
        with pytest.raises(OSError):
            connect(small.clients[1], THIRD, timeout=0.3)
        apply(small, PLAIN)
        assert request(small.clients[1], THIRD)["server"].startswith("10.0.0.3")
        assert request(small.clients[1], FIRST, 81)["port"] == 9081
        assert set(servers_of(small, 6)) == {"10.0.0.11", "10.0.0.12", "10.0.0.13"}
        assert talk.goes_on(20) and other.goes_on(20)
        assert talk.lost == other.lost == 0
        assert entry_flows_of(small, talk.local) == flows


def test_a_file_that_says_the_same_changes_no_flow(small: Bed) -> None:
    """Whatever its comments and the order of its keys."""
    with Talk(small.clients[0], FIRST) as talk:
        eventually(small, lambda: len(small.entries("lb-a")) == 1, "the connections of the tests before have ended")
        apply(small, SMALL)  # and with them the need for servers that are not in the file
        before = rules(small), entry_flows_of(small, talk.local)
        apply(small, "# a comment\n" + site_text(SMALL))
        assert (rules(small), entry_flows_of(small, talk.local)) == before
        assert talk.goes_on() and talk.lost == 0


def test_twin_a_reload_that_starts_from_nothing_would_be_noticed(small: Bed) -> None:
    """Wiping the tables first, as a simple reload would, breaks the connections of this same bed."""
    with Talk(small.clients[0], FIRST) as talk:
        small.controller.kill()  # it would put them right; the next test starts a new one
        small.lbs["lb-a"].ovs.ofctl("del-flows", "lb-a")
        assert talk.breaks(4.0)


# What is changed.


def test_weights_and_scheduler_count_at_once(small: Bed) -> None:
    assert servers_of(small, 8) == {"10.0.0.11": 4, "10.0.0.12": 4}
    weighted = with_first(
        SMALL, service(80, server(11, weight=3), server(12, weight=1), scheduler="weighted-round-robin")
    )
    with Talk(small.clients[0], FIRST) as talk:
        apply(small, weighted)
        assert servers_of(small, 8) == {"10.0.0.11": 6, "10.0.0.12": 2}
        apply(
            small,
            with_first(
                SMALL, service(80, server(11, weight=1), server(12, weight=3), scheduler="weighted-round-robin")
            ),
        )
        assert servers_of(small, 8) == {"10.0.0.11": 2, "10.0.0.12": 6}
        assert talk.goes_on() and talk.lost == 0


def test_rates_are_changed_in_the_switches(small: Bed) -> None:
    apply(small, replace(SMALL, settings=replace(SMALL.settings, error_rate=77)))
    for name, node in small.lbs.items():
        eventually(
            small,
            lambda name=name, node=node: "rate=77 burst_size=38" in node.ovs.ofctl("dump-meters", name),
            "the rate",
        )


def test_the_load_balancer_of_an_external_ip_is_not_changed_by_the_file(small: Bed) -> None:
    """It says where an external IP starts; afterwards only a move changes that."""
    one, *rest = SMALL.external_ips
    with Talk(small.clients[0], FIRST) as talk:
        apply(small, replace(SMALL, external_ips=(replace(one, load_balancer="lb-b"), *rest)))
        assert small.rest("GET", f"/v1/external-ips/{FIRST}").json["load_balancer"] == "lb-a"
        assert talk.goes_on() and talk.lost == 0


# What is removed.


def test_a_removed_servers_connections_go_on_and_new_ones_go_elsewhere(small: Bed) -> None:
    with talks_to(small, "10.0.0.12") as talk:
        apply(small, with_first(SMALL, service(80, server(11))))
        assert servers_of(small, 4) == {"10.0.0.11": 4}
        assert talk.goes_on(20) and talk.lost == 0
        apply(small, SMALL)
        assert talk.goes_on() and set(servers_of(small, 4)) == {"10.0.0.11", "10.0.0.12"}


def test_a_removed_servers_connections_survive_a_restart_of_the_controller(small: Bed) -> None:
    """The new controller has only the new file, and the entries that it reads back."""
    with talks_to(small, "10.0.0.12") as talk:
        apply(small, with_first(SMALL, service(80, server(11))))
        assert talk.goes_on()
        small.restart_controller()
        time.sleep(1.5)
        assert talk.goes_on(20), talk.error
        assert entries_of(small, talk.local)


def test_a_removed_services_connections_go_on_and_new_ones_are_refused(small: Bed) -> None:
    apply(small, PLAIN)
    with Talk(small.clients[0], FIRST, 81) as talk:
        apply(small, SMALL)
        with pytest.raises(ConnectionRefusedError):
            connect(small.clients[1], FIRST, 81)
        assert talk.goes_on(20) and talk.lost == 0


def test_a_removed_external_ip_ends_with_its_connections_and_can_come_back(small: Bed) -> None:
    apply(small, PLAIN)
    with Talk(small.clients[0], FIRST) as stays:
        with Talk(small.clients[0], THIRD) as goes:
            apply(small, without_ip(PLAIN, THIRD))
            assert goes.breaks(4.0)
            assert entry_flows_of(small, goes.local) == []
        for name, node in small.lbs.items():
            assert THIRD not in node.dump_flows(), name
        apply(small, PLAIN)
        assert request(small.clients[0], THIRD)["server"].startswith("10.0.0.3")
        assert stays.goes_on() and stays.lost == 0


def test_a_load_balancer_without_external_ips_can_go_and_come_back(small: Bed) -> None:
    """While its switch is connected, and says things nobody asked for."""
    alone = replace(without_ip(SMALL, SECOND), load_balancers=SMALL.load_balancers[:1])
    apply_without_waiting(small, alone)
    node = small.lbs["lb-b"]
    eventually(
        small,
        lambda: not node.ovs.is_connected("lb-b") or "switch refused" in small.controller.log_tail(20),
        "lb-b is sent away",
    )
    node.space.set_link(node.lb.internal_port, False)
    node.space.set_link(node.lb.internal_port, True)
    assert small.controller.running and request(small.clients[0], FIRST)
    apply(small, SMALL)
    assert request(small.clients[0], SECOND)["server"].startswith("10.0.0.2")


def apply_without_waiting(bed: Bed, site: Site) -> None:
    before = applied(bed)
    bed.controller.reload(site)
    eventually(bed, lambda: applied(bed) > before, "the site file is applied")


# What is refused.


def moved_server() -> Site:
    """Server 10.0.0.12, whose connections are the first external IP's, belongs to the second."""
    one, two = SMALL.external_ips
    return replace(SMALL, external_ips=(replace(one, services=(service(80, server(11)),)),
                                        replace(two, services=(service(80, server(12)),))))


BAD = {
    "no YAML": ("external_network: [", "not valid YAML"),
    "an unknown key": (site_text(SMALL) + "colour: blue\n", "unknown key 'colour'"),
    "two mistakes": (
        site_text(SMALL).replace("10.0.0.1\n", "10.9.0.1\n").replace("tcp", "tpc"),
        "outside internal_network",
    ),
    "a load balancer that has external IPs": (
        site_text(
            replace(
                SMALL,
                load_balancers=SMALL.load_balancers[:1],
                external_ips=tuple(replace(ip, load_balancer="lb-a") for ip in SMALL.external_ips),
            )
        ),
        "lb-b still has 198.51.100.2",
    ),
    "a server with connections of another external IP": (site_text(moved_server()), "10.0.0.12"),
    "nothing": ("", "empty"),
}


@pytest.mark.parametrize("text, reason", BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_and_the_old_one_stays(small: Bed, text: str, reason: str) -> None:
    with talks_to(small, "10.0.0.12") as talk:
        eventually(small, lambda: len(small.entries("lb-a")) == 1, "the connections of the tests before have ended")
        apply(small, SMALL)
        flows, count, before = rules(small), applied(small), refused(small)
        small.controller.reload(text)
        eventually(small, lambda: refused(small) == before + 1, "the metric says that it is refused")
        lines = [line for line in small.controller.log_tail(3000).splitlines() if "site file refused" in line]
        assert lines and reason in small.controller.log_tail(3000).partition(lines[-1])[2] + lines[-1]
        assert applied(small) == count
        assert rules(small) == flows
        assert talk.goes_on() and talk.lost == 0
        assert set(servers_of(small, 2)) == {"10.0.0.11", "10.0.0.12"}


def test_a_missing_file_is_refused(small: Bed) -> None:
    before = refused(small)
    small.controller.site_file.unlink()
    small.controller.signal(signal.SIGHUP)
    eventually(small, lambda: refused(small) == before + 1, "the metric says that it is refused")
    assert "site.yaml" in small.controller.log_tail(5) and request(small.clients[0], FIRST)


def test_many_hangups_at_once(small: Bed) -> None:
    """The last file counts."""
    with Talk(small.clients[0], FIRST) as talk:
        for round_ in range(20):
            small.controller.reload(PLAIN if round_ % 2 else SMALL)
            time.sleep(0.02)
        apply(small, PLAIN)
        assert request(small.clients[1], THIRD)
        assert talk.goes_on() and talk.lost == 0


# The command.


def test_config_check_says_what_the_controller_would(small: Bed) -> None:
    file = small.directory / "candidate.yaml"
    file.write_text(site_text(PLAIN))
    good = small.controller.cli("config", "check", file)
    assert good.returncode == 0 and "2 load balancers, 3 external IPs" in good.stdout
    text = site_text(SMALL).replace("10.0.0.1\n", "10.9.0.1\n").replace("tcp", "tpc")
    file.write_text(text)
    bad = small.controller.cli("config", "check", file)
    assert bad.returncode == 1
    lines = text.splitlines()
    for wrong in ("10.9.0.1", "tpc"):
        number = next(place for place, line in enumerate(lines, 1) if wrong in line)
        assert f"candidate.yaml:{number}:" in bad.stdout and wrong in bad.stdout, bad.stdout
    assert "Traceback" not in bad.stdout + bad.stderr
    assert small.controller.cli("config", "check", "/nonexistent").returncode == 1


def test_a_controller_does_not_start_with_a_bad_file(quiet_bed: Bed) -> None:
    quiet_bed.controller.write_site(site_text(SMALL) + "colour: blue\n")
    process = quiet_bed.controller.launch()
    assert process.wait(limit(20)) != 0
    said = quiet_bed.controller.log_tail(5)
    assert (
        "unknown key 'colour'" in said
        and "Traceback" not in quiet_bed.controller.log_tail(30).rpartition("--- started")[2]
    )

