"""A service's health check in a site file: what is accepted, what is refused and in which words, and what is
written."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.site import file as config
from lbctl.site.file import ConfigError
from lbctl.site.file.text import site_text
from lbctl.site.model import CHECK_PORTS, HealthCheck
from tests.unit.fake_site import site

SITE = """\
load_balancers:
  - {name: lb-a, dpid: "00000000000000aa", external_port: lba-ext, internal_port: lba-int}
external_network: 198.51.100.0/24
internal_network: 10.0.0.0/24
external_ips:
  - address: 198.51.100.1
    load_balancer: lb-a
    %s
    services:
      - protocol: %s
        port: 80
        servers: [{address: 10.0.0.11, port: 80}]
        health_check: %s
"""


def text(check: str, protocol: str = "tcp", nat: str = "gateway: 10.0.0.1") -> str:
    return SITE % (nat, protocol, check)


def read(check: str, **options: str) -> HealthCheck | None:
    return config.parse(text(check, **options)).external_ips[0].services[0].health_check


def problem(check: str, **options: str) -> str:
    with pytest.raises(ConfigError) as error:
        config.parse(text(check, **options), "site.yaml")
    [found] = error.value.errors
    return str(found).removeprefix("site.yaml:")


@pytest.mark.parametrize(("given", "protocol", "meant"), [
    ("{}", "tcp", HealthCheck("tcp")),
    ("{}", "udp", HealthCheck("udp")),
    ("{type: tcp, port: 53}", "udp", HealthCheck("tcp", port=53)),
    ("{type: http}", "tcp", HealthCheck("http")),
    ("{interval: 0.5}", "tcp", HealthCheck("tcp", interval=0.5, timeout=0.5)),
    ("{interval: 30, timeout: 5, rise: 1, fall: 1, port: 9, when_down: leave, when_all_down: refuse}", "tcp",
     HealthCheck("tcp", 30.0, 5.0, 1, 1, 9, when_down="leave", when_all_down="refuse")),
    ("{type: http, path: /ok?a=1, host: 'www.example:8080', status: 204}", "tcp",
     HealthCheck("http", path="/ok?a=1", host="www.example:8080", status=((204, 204),))),
    ("{type: http, status: [200-299, 304]}", "tcp", HealthCheck("http", status=((200, 299), (304, 304)))),
    ("{type: http, status: 200-399}", "tcp", HealthCheck("http")),
    ("{request: ping, answer: pöng}", "udp", HealthCheck("udp", request=b"ping", answer="pöng".encode())),
    ('{request: {hex: "00fF"}, answer: ""}', "udp", HealthCheck("udp", request=b"\0\xff", answer=b"")),
])
def test_what_is_accepted(given: str, protocol: str, meant: HealthCheck) -> None:
    assert read(given, protocol=protocol) == meant


MISTAKES = [
    ("tcp",
     "13: health_check must be a mapping with the keys type, interval, timeout, rise, fall, port, when_down, "
     "when_all_down; it is "
     "text"),
    ("{type: ping}", "13: unknown type 'ping': one of: tcp, http, udp"),
    ("{type: htp}", "13: unknown type 'htp': did you mean 'http'?"),
    ("{intervall: 1}", "13: health_check: unknown key 'intervall': did you mean 'interval'?"),
    ("{path: /}", "13: health_check: the key 'path' is only for type: http"),
    ("{type: http, request: x}", "13: health_check: the key 'request' is only for type: udp"),
    ("{interval: 0.05}", "13: interval must be from 0.1 to 3600 seconds; it is 0.05"),
    ("{interval: -1}", "13: interval must be a number above 0; it is -1"),
    ("{timeout: 3}", "13: timeout 3 is longer than interval 2: a check must have ended when the next one begins"),
    ("{interval: 1, timeout: 1.5}",
     "13: timeout 1.5 is longer than interval 1: a check must have ended when the next one begins"),
    ("{rise: 0}", "13: rise must be a whole number from 1 to 1000; it is 0"),
    ("{fall: 1.5}", "13: fall must be a whole number from 1 to 1000; it is '1.5'"),
    ("{port: 70000}", "13: port must be a whole number from 1 to 65535; it is 70000"),
    ("{when_all_down: open}", "13: unknown when_all_down 'open': one of: serve, refuse"),
    ("{when_down: drop}", "13: unknown when_down 'drop': one of: reset, leave"),
    ("{type: http, path: well}",
     "13: path must begin with / and have at most 256 printable ASCII characters, no space; it is 'well'"),
    ('{type: http, path: "/a b"}',
     "13: path must begin with / and have at most 256 printable ASCII characters, no space; it is '/a b'"),
    ('{type: http, host: "a\\r\\nb"}',
     "13: host must be a host name, an address, or either with :PORT; it is 'a\\r\\nb'"),
    ("{type: http, status: 600}",
     "13: status must be an HTTP status such as 200, a range such as 200-399, or a list of them; it is '600'"),
    ("{type: http, status: 399-200}",
     "13: status must be an HTTP status such as 200, a range such as 200-399, or a list of them; it is '399-200'"),
    ("{type: http, status: []}", "13: status is empty: at least one is needed"),
    ('{type: udp, request: {hex: "0"}}', "13: hex must be an even number of hex digits, at most 1024; it is '0'"),
    ("{type: udp, request: {text: a}}", None),
    (f"{{type: udp, answer: '{'x' * 600}'}}",
     "13: answer has 600 bytes: at most 512 fit into a packet on every way to a server"),
    ("{type: udp, answer: 5}", "13: answer must be text, and YAML reads '5' as a number: write it in quotes"),
]


@pytest.mark.parametrize(("given", "said"), MISTAKES, ids=[given[:30] for given, _ in MISTAKES])
def test_mistakes(given: str, said: str | None) -> None:
    if said is not None:
        assert problem(given) == said
        return
    with pytest.raises(ConfigError) as error:
        config.parse(text(given))
    assert any("the key 'hex' is missing" in str(found) for found in error.value.errors)


@pytest.mark.parametrize(("ports", "said"), [
    ("1024-65535", None), ("1-511", None), ("[1000, 2000]", "1000-2000"), ("1-65535", "1-65535"),
    ("600-600", "600-600")])
def test_connections_are_not_translated_to_the_ports_of_checks(ports: str, said: str | None) -> None:
    nat = f"{{}}\n    nat: full\n    internal_ips: [10.0.0.111]\n    port_range: {ports}".removeprefix("{}\n    ")
    if said is None:
        assert read("{}", nat=nat) == HealthCheck("tcp")
        return
    assert problem("{}", nat=nat) == (f"10: port_range {said} holds some of the ports 512-1023, which this external "
                                      "IP's health checks "
                                      "come from: begin it at 1024, or end it at 511")
    without = text("{}", nat=nat).replace("        health_check: {}\n", "")
    assert config.parse(without).external_ips[0].port_range[0] < 1024


def test_the_ports_of_checks_are_one_masked_match() -> None:
    first, last = CHECK_PORTS
    size = last - first + 1
    assert size & (size - 1) == 0 and first % size == 0


checks = st.one_of(
    st.builds(lambda kind, more: replace(HealthCheck(kind), **more), st.sampled_from(["tcp", "http", "udp"]),
              st.fixed_dictionaries({
        "interval": st.sampled_from([2.0, 5.0]), "timeout": st.sampled_from([0.5, 1.0, 2.0]), "rise": st.integers(1, 9),
        "fall": st.integers(1, 9), "port": st.none() | st.integers(1, 65535),
        "when_down": st.sampled_from(["reset", "leave"]), "when_all_down": st.sampled_from(["serve", "refuse"])})),
    st.builds(lambda path, host, status: HealthCheck("http", path=path, host=host, status=status),
              st.sampled_from(["/", "/a%20#:"]),
              st.none() | st.just("on"),
              st.lists(st.integers(100, 300).flatmap(lambda low: st.tuples(st.just(low), st.integers(low, 599))),
                                                  min_size=1, max_size=3).map(tuple)),
    st.builds(lambda request, answer: HealthCheck("udp", request=request, answer=answer), st.binary(max_size=20),
              st.none() | st.binary(max_size=20)))


@given(checks)
def test_what_is_written_says_the_same(check: HealthCheck) -> None:
    plain = site(settle=1.0)
    first, second = plain.external_ips
    changed = replace(first, services=tuple(replace(service, health_check=check) for service in first.services))
    made = replace(plain, external_ips=(changed, second))
    assert config.parse(site_text(made)) == made
