"""The site file: what is accepted, and for each mistake the line and the words of its problem."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.site import file as config
from lbctl.site.file import ConfigError
from lbctl.site.file.text import site_text
from lbctl.site.model import ExternalIp, LoadBalancer, Server, Service, Settings, Site

EXAMPLES = Path(__file__).parents[2] / "examples"

SITE = """\
load_balancers:
  - {name: lb-a, dpid: "00000000000000aa", external_port: lba-ext, internal_port: lba-int}
  - {name: lb-b, dpid: "00000000000000bb", external_port: lbb-ext, internal_port: lbb-int}
external_network: 198.51.100.0/24
internal_network: 10.0.0.0/24
external_ips:
  - address: 198.51.100.1
    load_balancer: lb-a
    nat: destination
    gateway: 10.0.0.1
    services:
      - protocol: tcp
        port: 80
        scheduler: round-robin
        servers:
          - {address: 10.0.0.11, port: 80}
          - {address: 10.0.0.12, port: 8080, weight: 2}
      - protocol: tcp
        port: 443
        servers:
          - {address: 10.0.0.11, port: 443}
  - address: 198.51.100.2
    load_balancer: lb-b
    gateway: 10.0.0.2
    services:
      - protocol: tcp
        port: 80
        servers:
          - {address: 10.0.0.21, port: 80}
"""


def edited(number: int, line: str, text: str = SITE) -> str:
    """The text of a site with another text in a line (numbers from 1)."""
    lines = text.splitlines()
    lines[number - 1] = line
    return "\n".join(lines)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        config.parse(text, "site.yaml")
    return [str(problem) for problem in error.value.errors]


def test_the_whole_format():
    assert config.parse(SITE + "settings: {idle_timeout: 0.5, linger: 9}\n") == Site(
        (
            LoadBalancer("lb-a", 0xAA, "lba-ext", "lba-int"),
            LoadBalancer("lb-b", 0xBB, "lbb-ext", "lbb-int"),
        ),
        (IPv4Network("198.51.100.0/24"),),
        (IPv4Network("10.0.0.0/24"),),
        (
            ExternalIp(
                IPv4Address("198.51.100.1"),
                "lb-a",
                IPv4Address("10.0.0.1"),
                "destination",
                (
                    Service(
                        "tcp",
                        80,
                        "round-robin",
                        (Server(IPv4Address("10.0.0.11"), 80, 1), Server(IPv4Address("10.0.0.12"), 8080, 2)),
                    ),
                    Service("tcp", 443, "round-robin", (Server(IPv4Address("10.0.0.11"), 443, 1),)),
                ),
            ),
            ExternalIp(
                IPv4Address("198.51.100.2"),
                "lb-b",
                IPv4Address("10.0.0.2"),
                services=(Service("tcp", 80, "round-robin", (Server(IPv4Address("10.0.0.21"), 80),)),),
            ),
        ),
        Settings(idle_timeout=0.5, linger=9),
    )


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.name)
def test_the_examples_are_valid(file):
    assert len(config.load(file).external_ips) >= 3


def test_the_order_of_the_keys_does_not_matter():
    lines = SITE.splitlines()
    assert config.parse("\n".join(lines[5:] + lines[:5])) == config.parse(SITE)


LB_A = '  - {name: lb-a, dpid: "00000000000000aa", external_port: lba-ext, internal_port: lba-int}'

MISTAKES = [
    # sentence, line, what the line is instead, the problem
    ("unknown key", 8, "    load_balancers: lb-a",
     "8: external IP: unknown key 'load_balancers': did you mean 'load_balancer'?"),
    ("unknown key like no other", 9, "    zzz: 1",
     "9: external IP: unknown key 'zzz': one of: address, load_balancer, gateway, services, kind, nat, router, "
     "copies, only_on, not_with"),
    ("unknown key at the top", 4, "external_networks: 198.51.100.0/24",
     "4: site file: unknown key 'external_networks': did you mean 'external_network'?"),
    ("missing key", 10, "", "7: external IP: the key 'gateway' is missing"),
    ("missing key in a service", 13, "", "12: service: the key 'port' is missing"),
    ("duplicate key", 9, "    load_balancer: lb-b",
     "9: external IP: the key 'load_balancer' is already in line 8: remove one"),
    ("key that is no word", 9, "    [nat]: destination", "9: external IP: a key must be a word, not a list"),
    ("no value", 13, "        port:", "13: port must be a whole number from 1 to 65535; it is empty"),
    ("scalar for a mapping", 3, "  - lb-b",
     "3: load balancer must be a mapping with the keys name, dpid, external_port, internal_port; it is text"),
    ("mapping for a list", 29, "          address: 10.0.0.21",
     "29: servers must be a list ('- ...' lines); it is a mapping"),
    ("list for a scalar", 10, "    gateway: [10.0.0.1]",
     "10: gateway must be an IP address such as 10.0.0.11; it is a list"),
    ("number for a text", 3, LB_A.replace("lb-a", "5").replace("aa", "bb"),
     "3: name must be text, and YAML reads '5' as a number: write it in quotes"),
    ("truth value for a text", 3, LB_A.replace("lb-a", "on").replace("aa", "bb"),
     "3: name must be text, and YAML reads 'on' as a truth value: write it in quotes"),
    # load balancers
    ("duplicate LB name", 3, LB_A.replace("aa", "bb"), "3: the name 'lb-a' is already used (line 2)"),
    ("LB name that is no word", 3, LB_A.replace("lb-a", "lb/b").replace("aa", "bb"),
     "3: name 'lb/b': use at most 63 letters, digits, '.', '_' and '-', a letter or digit first"),
    ("duplicate dpid, in the other case", 3, LB_A.replace("lb-a", "lb-b").replace("aa\"", "AA\""),
     "3: the dpid 00000000000000aa is already used (line 2)"),
    ("dpid as a number", 2, LB_A.replace('"00000000000000aa"', "0000000000000010"),
     '2: dpid must be in quotes, or YAML reads it as a number: write "0000000000000010"'),
    ("short dpid", 2, LB_A.replace("00000000000000aa", "0xAA"),
     "2: dpid must be 16 hex digits, as `ovs-vsctl get bridge BRIDGE datapath_id` says; it is '0xAA': "
     'write "00000000000000aa"'),
    ("dpid that is none", 2, LB_A.replace("00000000000000aa", "lb-a"),
     "2: dpid must be 16 hex digits, as `ovs-vsctl get bridge BRIDGE datapath_id` says; it is 'lb-a'"),
    ("dpid 0", 2, LB_A.replace("aa\"", "00\""), "2: dpid must not be 0: Open vSwitch refuses it"),
    ("one port for both sides", 2, LB_A.replace("lba-int", "lba-ext"),
     "2: internal_port is the same as external_port, 'lba-ext': a load balancer needs a port for each"),
    ("port name that Linux cannot have", 2, LB_A.replace("lba-int", "lba-internal-one"),
     "2: internal_port 'lba-internal-one' is no interface name: 1 to 15 characters, no space, '/' or ':'"),
    # networks
    ("network without prefix", 4, "external_network: 198.51.100.0",
     "4: external_network must be a network such as 10.0.0.0/24; it is '198.51.100.0'"),
    ("network with a netmask", 4, "external_network: 198.51.100.0/255.255.255.0",
     "4: external_network must be a network such as 10.0.0.0/24; it is '198.51.100.0/255.255.255.0'"),
    ("prefix too long", 4, "external_network: 198.51.100.0/33",
     "4: external_network must be a network such as 10.0.0.0/24; it is '198.51.100.0/33'"),
    ("host bits", 5, "internal_network: 10.0.0.1/24",
     "5: internal_network 10.0.0.1/24 has host bits set: write 10.0.0.0/24"),
    ("network without room", 5, "internal_network: 10.0.0.0/31",
     "5: internal_network 10.0.0.0/31 is too small: the prefix must be /30 or shorter"),
    ("network that hosts cannot have", 5, "internal_network: 224.0.0.0/24",
     "5: internal_network 224.0.0.0/24 holds addresses that hosts cannot have (0/8, 127/8, 224/3)"),
    # external IPs
    ("bad address", 7, "  - address: 198.51.100.256",
     "7: address must be an IP address such as 10.0.0.11; it is '198.51.100.256'"),
    ("address with leading zeros", 7, "  - address: 198.51.100.01",
     "7: address must be an IP address such as 10.0.0.11; it is '198.51.100.01'"),
    ("address with a prefix length", 7, "  - address: 198.51.100.1/24",
     "7: address must be an IP address such as 10.0.0.11; it is '198.51.100.1/24': leave the prefix length out"),
    ("address with a port", 7, "  - address: 198.51.100.1:80",
     "7: address must be an IP address such as 10.0.0.11; it is '198.51.100.1:80' (a port has a key of its own)"),
    ("IPv6 address that hosts cannot have", 7, "  - address: ff02::1",
     "7: address ff02::1 is no address that a host can have"),
    ("link-local address", 7, "  - address: fe80::1%eth0",
     "7: address fe80::1%eth0 is link-local, or an IPv4 address in IPv6 form: take a global or unique local address"),
    ("IPv4 address in IPv6 form", 7, "  - address: ::ffff:198.51.100.1",
     "7: address ::ffff:198.51.100.1 is link-local, or an IPv4 address in IPv6 form: take a global or unique local "
     "address"),
    ("number for an address", 7, "  - address: 198.51",
     "7: address must be an IP address such as 10.0.0.11; it is '198.51'"),
    ("external IP outside its network", 7, "  - address: 198.51.101.1",
     "7: address 198.51.101.1 is outside external_network 198.51.100.0/24"),
    ("network address", 7, "  - address: 198.51.100.0",
     "7: address 198.51.100.0 is the network address of external_network 198.51.100.0/24"),
    ("broadcast address", 7, "  - address: 198.51.100.255",
     "7: address 198.51.100.255 is the broadcast address of external_network 198.51.100.0/24"),
    ("duplicate external IP", 22, "  - address: 198.51.100.1",
     "22: the external IP 198.51.100.1 is already used (line 7)"),
    ("unknown load balancer", 8, "    load_balancer: lba", "8: unknown load balancer 'lba': did you mean 'lb-a'?"),
    ("unknown load balancer like no other", 8, "    load_balancer: zzz",
     "8: unknown load balancer 'zzz': one of: lb-a, lb-b"),
    ("unknown kind", 9, "    kind: nat", "9: unknown kind 'nat': one of: service, nat-gateway"),
    ("kind that is no text", 9, "    kind: [service]", "9: kind must be one of: service, nat-gateway; it is a list"),
    ("unknown nat", 9, "    nat: destinaton", "9: unknown nat 'destinaton': did you mean 'destination'?"),
    ("gateway outside the internal network", 10, "    gateway: 198.51.100.9",
     "10: gateway 198.51.100.9 is outside internal_network 10.0.0.0/24"),
    ("gateway used twice", 24, "    gateway: 10.0.0.1",
     "24: the gateway 10.0.0.1 already belongs to another external IP; each needs its own (line 10)"),
    ("gateway that is a server of a later external IP", 10, "    gateway: 10.0.0.21",
     "29: server 10.0.0.21 can't be a gateway or internal IP as well (line 10)"),
    # services and servers
    ("unknown protocol", 12, "      - protocol: http", "12: unknown protocol 'http': one of: tcp, udp"),
    ("duplicate service", 19, "        port: 80",
     "19: this external IP already has a service on tcp port 80 (line 13)"),
    ("unknown scheduler", 14, "        scheduler: roundrobin",
     "14: unknown scheduler 'roundrobin': did you mean 'round-robin'?"),
    ("port 0", 13, "        port: 0", "13: port must be a whole number from 1 to 65535; it is 0"),
    ("port too high", 13, "        port: 65536", "13: port must be a whole number from 1 to 65535; it is 65536"),
    ("port in quotes", 13, '        port: "80"',
     "13: port must be a whole number from 1 to 65535; it is '80'; remove the quotes"),
    ("octal port", 13, "        port: 080", "13: port must be a whole number from 1 to 65535; it is '080'"),
    ("sexagesimal port", 13, "        port: 1:20", "13: port must be a whole number from 1 to 65535; it is '1:20'"),
    ("endless port", 13, "        port: " + "9" * 9999,
     "13: port must be a whole number from 1 to 65535; it is '" + "9" * 57 + "...'"),
    ("port as a truth value", 13, "        port: true",
     "13: port must be a whole number from 1 to 65535; it is 'true'"),
    ("weight -1", 17, "          - {address: 10.0.0.12, port: 8080, weight: -1}",
     "17: weight must be a whole number from 0 to 65535; it is -1"),
    ("no connections", 17, "          - {address: 10.0.0.12, port: 8080, max_connections: 0}",
     "17: max_connections must be a whole number from 1 to 1000000; it is 0"),
    ("server outside the internal network", 17, "          - {address: 10.0.1.12, port: 80}",
     "17: address 10.0.1.12 is outside internal_network 10.0.0.0/24"),
    ("duplicate server", 17, "          - {address: 10.0.0.11, port: 80}",
     "17: server 10.0.0.11:80 is already in this service (line 16): remove one, and give the other a weight"),
    ("server of another external IP", 29, "          - {address: 10.0.0.11, port: 80}",
     "29: server 10.0.0.11 already belongs to the external IP in line 7; "
     "without nat: full a server belongs to one external IP"),
    # YAML
    ("tab", 8, "\tload_balancer: lb-a",
     "8: this is not valid YAML: found a tab character that violates indentation, while scanning a plain scalar; "
     "indent with spaces, not with tabs"),
    ("value that YAML keeps for itself", 8, "    load_balancer: @a",
     "8: this is not valid YAML: found character that cannot start any token, while scanning for the next token; "
     "put a value that begins with @ in quotes"),
    ("alias", 8, "    load_balancer: *lb", "8: aliases are not supported: write out what *lb stands for"),
    ("further document", 22, "---",
     "22: a second YAML document starts here, and a site file has one: remove the '---'"),
    ("control character", 8, "    load_balancer: \x1b", "8: the character U+001B is not allowed here: remove it"),
    ("deep nesting", 8, "    load_balancer: " + "[" * 100_000,
     "8: more than 16 levels of nesting; is a bracket missing?"),
]


@pytest.mark.parametrize(
    ("number", "line", "expected"),
    [mistake[1:] for mistake in MISTAKES],
    ids=[mistake[0] for mistake in MISTAKES],
)
def test_one_mistake_one_problem(number, line, expected):
    assert problems(edited(number, line)) == [f"site.yaml:{expected}"]


KINDS = """\
load_balancers:
  - {name: lb-a, dpid: "00000000000000aa", external_port: lba-ext, internal_port: lba-int}
external_network: [198.51.100.0/24, "2001:db8:100::/64"]
internal_network: [10.0.0.0/24, "fd00:10::/64"]
external_ips:
  - address: 198.51.100.11
    load_balancer: lb-a
    nat: full
    internal_ips: [10.0.0.101, 10.0.0.102]
    port_range: [2000, 3000]
    services:
      - protocol: udp
        port: 53
        servers:
          - {address: 10.0.0.11, port: 53}
          - {address: 172.16.5.12, port: 53, next_hop: 10.0.0.254}
  - address: 198.51.100.20
    load_balancer: lb-a
    kind: nat-gateway
    gateway: 10.0.0.1
    inside: [10.0.0.128/25, 172.16.9.7/32]
    port_range: 5000-6000
    router: 198.51.100.254
  - address: "2001:db8:100::1"
    load_balancer: lb-a
    gateway: "fd00:10::1"
    services:
      - protocol: tcp
        port: 80
        servers: [{address: "fd00:10::21", port: 80}]
  - address: 198.51.100.12
    load_balancer: lb-a
    nat: full
    internal_ips: [10.0.0.103]
    services:
      - protocol: udp
        port: 53
        servers: [{address: 10.0.0.11, port: 53}]
"""


def test_all_kinds_of_external_ips():
    site = config.parse(KINDS)
    assert site.external_networks == (IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8:100::/64"))
    assert site.internal_networks == (IPv4Network("10.0.0.0/24"), IPv6Network("fd00:10::/64"))
    server = Server(IPv4Address("10.0.0.11"), 53)
    behind = Server(IPv4Address("172.16.5.12"), 53, next_hop=IPv4Address("10.0.0.254"))
    assert site.external_ips == (
        ExternalIp(IPv4Address("198.51.100.11"), "lb-a", None, "full", (Service("udp", 53, servers=(server, behind)),),
                   internal_ips=(IPv4Address("10.0.0.101"), IPv4Address("10.0.0.102")), port_range=(2000, 3000)),
        ExternalIp(IPv4Address("198.51.100.20"), "lb-a", IPv4Address("10.0.0.1"), kind="nat-gateway",
                   port_range=(5000, 6000),
                   inside=(IPv4Network("10.0.0.128/25"), IPv4Network("172.16.9.7/32")),
                   router=IPv4Address("198.51.100.254")),
        ExternalIp(IPv6Address("2001:db8:100::1"), "lb-a", IPv6Address("fd00:10::1"), services=(
            Service("tcp", 80, servers=(Server(IPv6Address("fd00:10::21"), 80),)),)),
        ExternalIp(IPv4Address("198.51.100.12"), "lb-a", None, "full", (Service("udp", 53, servers=(server,)),),
                   internal_ips=(IPv4Address("10.0.0.103"),), port_range=(1024, 65535)))


def test_networks_are_in_the_order_of_their_versions():
    text = KINDS.replace('[10.0.0.0/24, "fd00:10::/64"]', '["fd00:10::/64", 10.0.0.0/24]')
    assert config.parse(text) == config.parse(KINDS)


def test_full_nat_may_have_a_gateway():
    """For its servers' way out, or for ping."""
    text = KINDS.replace("    internal_ips: [10.0.0.103]", "    gateway: 10.0.0.9\n    internal_ips: [10.0.0.103]")
    assert config.parse(text).external_ips[3].internal_addresses() == (IPv4Address("10.0.0.9"),
                                                                       IPv4Address("10.0.0.103"))


KEEPS = "a connection keeps its IP version"
RANGE = "the first and the last port, such as [1024, 65535]"
NO_PORT = "the first must be 1 to 65535, the last not below it"

KIND_MISTAKES = [
    # sentence, line, what the line is instead, its problems
    ("two networks of one version", 3, "external_network: [198.51.100.0/24, 203.0.113.0/24, \"2001:db8:100::/64\"]",
     ["3: external_network has two IPv4 networks, 198.51.100.0/24 and 203.0.113.0/24: one of each IP version"]),
    ("no network of the external IP's version", 3, "external_network: 198.51.100.0/24",
     ["24: address 2001:db8:100::1 is outside external_network 198.51.100.0/24"]),
    ("no network", 3, "external_network: []", ["3: external_network is empty: at least one is needed"]),
    ("network inside the other side's", 4, "internal_network: [10.0.0.0/24, \"fd00:10::/64\", \"2001:db8::/32\"]",
     ["4: internal_network has two IPv6 networks, fd00:10::/64 and 2001:db8::/32: one of each IP version"]),
    ("IPv6 network that hosts cannot have", 4, "internal_network: [\"ff02::/64\"]",
     ["4: internal_network ff02::/64 holds addresses that hosts cannot have (::/127, ff00::/8)"]),
    # full NAT
    ("no internal IPs", 9, "", ["6: external IP: the key 'internal_ips' is missing"]),
    ("empty internal IPs", 9, "    internal_ips: []", ["9: internal_ips is empty: at least one is needed"]),
    ("internal IPs that are no list", 9, "    internal_ips: 10.0.0.101",
     ["9: internal_ips must be a list ('- ...' lines); it is text"]),
    ("internal IP twice", 9, "    internal_ips: [10.0.0.101, 10.0.0.101]",
     ["9: the internal IP 10.0.0.101 is already used (line 9)"]),
    ("internal IP of another external IP", 9, "    internal_ips: [10.0.0.101, 10.0.0.103]",
     ["34: the internal IP 10.0.0.103 is already used (line 9)"]),
    ("internal IP that is a gateway", 9, "    internal_ips: [10.0.0.1]",
     ["20: the gateway 10.0.0.1 already belongs to another external IP; each needs its own (line 9)"]),
    ("internal IP that is a server", 9, "    internal_ips: [10.0.0.11]",
     ["15: server 10.0.0.11 can't be a gateway or internal IP as well (line 9)",
      "38: server 10.0.0.11 can't be a gateway or internal IP as well (line 9)"]),
    ("internal IP outside", 9, "    internal_ips: [10.0.1.1]",
     ["9: internal IP 10.0.1.1 is outside internal_network 10.0.0.0/24 and fd00:10::/64"]),
    ("internal IP of the other version", 9, "    internal_ips: [\"fd00:10::5\"]",
     [f"9: internal IP fd00:10::5 is IPv6, and the external IP 198.51.100.11 is IPv4: {KEEPS}"]),
    ("gateway that is an internal IP", 20, "    gateway: 10.0.0.101",
     ["20: the gateway 10.0.0.101 already belongs to another external IP; each needs its own (line 9)"]),
    ("keys of full NAT without it", 8, "    nat: destination",
     ["6: external IP: the key 'gateway' is missing",
      "9: external IP: the key 'internal_ips' is only for nat: full",
      "10: external IP: the key 'port_range' is only for nat: full or kind: nat-gateway"]),
    # ports
    ("no port", 10, "    port_range: [3000, 2999]", [f"10: port_range 3000-2999 holds no port: {NO_PORT}"]),
    ("no port, as text", 10, "    port_range: 3000-2999", [f"10: port_range 3000-2999 holds no port: {NO_PORT}"]),
    ("port 0 in the range", 10, "    port_range: [0, 5]",
     ["10: port_range must be a whole number from 1 to 65535; it is 0"]),
    ("port 0 in the range, as text", 10, "    port_range: 0-5", [f"10: port_range 0-5 holds no port: {NO_PORT}"]),
    ("range too high", 10, "    port_range: [1, 70000]",
     ["10: port_range must be a whole number from 1 to 65535; it is 70000"]),
    ("range too high, as text", 10, "    port_range: 1-70000", [f"10: port_range 1-70000 holds no port: {NO_PORT}"]),
    ("one port", 10, "    port_range: [1]", [f"10: port_range must be {RANGE}; it has 1 items"]),
    ("three ports", 10, "    port_range: [1, 2, 3]", [f"10: port_range must be {RANGE}; it has 3 items"]),
    ("range of one word", 10, "    port_range: 1000", [f"10: port_range must be {RANGE}; it is '1000'"]),
    ("range of long numbers", 10, "    port_range: 99999-100000",
     [f"10: port_range must be {RANGE}; it is '99999-100000'"]),
    ("range that is a mapping", 10, "    port_range: {1: 2}", [f"10: port_range must be {RANGE}; it is a mapping"]),
    ("empty range", 10, "    port_range:", [f"10: port_range must be {RANGE}; it is empty"]),
    # servers
    ("server of the other version", 15, "          - {address: \"fd00:10::11\", port: 53}",
     [f"15: server fd00:10::11 is IPv6, and the external IP 198.51.100.11 is IPv4: {KEEPS}"]),
    ("next hop of the other version", 16, "          - {address: 172.16.5.12, port: 53, next_hop: \"fd00:10::fe\"}",
     [f"16: next_hop fd00:10::fe is IPv6, and server 172.16.5.12 is IPv4: {KEEPS}"]),
    ("next hop outside", 16, "          - {address: 172.16.5.12, port: 53, next_hop: 192.0.2.1}",
     ["16: next_hop 192.0.2.1 is outside internal_network 10.0.0.0/24 and fd00:10::/64"]),
    ("two ways to a server", 38, "        servers: [{address: 10.0.0.11, port: 53, next_hop: 10.0.0.254}]",
     ["38: server 10.0.0.11 is reached in another way than in line 15: there is one way to an address"]),
    ("next hop that is an internal IP", 16, "          - {address: 172.16.5.12, port: 53, next_hop: 10.0.0.103}",
     ["16: next_hop 10.0.0.103 can't be a gateway or internal IP as well (line 34)"]),
    ("next hop that is a gateway", 16, "          - {address: 172.16.5.12, port: 53, next_hop: 10.0.0.1}",
     ["16: next_hop 10.0.0.1 can't be a gateway or internal IP as well (line 20)"]),
    ("server outside without a next hop", 16, "          - {address: 172.16.5.12, port: 53}",
     ["16: address 172.16.5.12 is outside internal_network 10.0.0.0/24 and fd00:10::/64"]),
    # NAT gateways
    ("kind that is nearly known", 19, "    kind: nat_gateway",
     ["19: unknown kind 'nat_gateway': did you mean 'nat-gateway'?"]),
    ("kind as nat", 19, "    nat: nat-gateway", ["19: unknown nat 'nat-gateway': one of: destination, full, none"]),
    ("no gateway", 20, "", ["17: external IP: the key 'gateway' is missing"]),
    ("no inside", 21, "", ["17: external IP: the key 'inside' is missing"]),
    ("no router", 23, "", ["17: external IP: the key 'router' is missing"]),
    ("gateway of the other version", 20, "    gateway: \"fd00:10::7\"",
     [f"20: gateway fd00:10::7 is IPv6, and the external IP 198.51.100.20 is IPv4: {KEEPS}"]),
    ("address for a prefix", 21, "    inside: [10.0.0.128]",
     ["21: inside must be a network such as 10.0.0.0/24; it is '10.0.0.128'"]),
    ("prefix that is no list", 21, "    inside: 10.0.0.128/25",
     ["21: inside must be a list ('- ...' lines); it is text"]),
    ("empty inside", 21, "    inside: []", ["21: inside is empty: at least one is needed"]),
    ("prefix with host bits", 21, "    inside: [10.0.0.129/25]",
     ["21: inside 10.0.0.129/25 has host bits set: write 10.0.0.128/25"]),
    ("overlapping prefixes", 21, "    inside: [10.0.0.128/25, 10.0.0.192/26]",
     ["21: inside 10.0.0.192/26 overlaps 10.0.0.128/25 (line 21): a host has one NAT gateway"]),
    ("prefix of the outside", 21, "    inside: [198.51.100.0/25]",
     ["21: inside 198.51.100.0/25 overlaps external_network 198.51.100.0/24: its hosts are outside"]),
    ("everything inside", 21, "    inside: [0.0.0.0/0]",
     ["21: inside 0.0.0.0/0 holds addresses that hosts cannot have (0/8, 127/8, 224/3)",]),
    ("prefix of the other version", 21, "    inside: [\"fd00:10::/64\"]",
     [f"21: inside fd00:10::/64 is IPv6, and the external IP 198.51.100.20 is IPv4: {KEEPS}"]),
    ("nat of a NAT gateway", 22, "    nat: full",
     ["22: external IP: the key 'nat' is only for nat: destination or nat: full or nat: none"]),
    ("mapping of no known kind", 22, "    mapping: full-cone",
     ["22: unknown mapping 'full-cone': one of: address-and-port-dependent, endpoint-independent"]),
    ("filtering without its mapping", 22, "    filtering: endpoint-independent",
     ["22: filtering: endpoint-independent needs mapping: endpoint-independent; else one port is several inside hosts' "
      "at once, and nobody can tell whose a datagram is"]),
    ("services of a NAT gateway", 22, "    services: []",
     ["22: external IP: the key 'services' is only for nat: destination or nat: full or nat: none"]),
    ("router inside", 23, "    router: 10.0.0.5",
     ["23: router 10.0.0.5 is outside external_network 198.51.100.0/24 and 2001:db8:100::/64"]),
    ("router of the other version", 23, "    router: \"2001:db8:100::fe\"",
     [f"23: router 2001:db8:100::fe is IPv6, and the external IP 198.51.100.20 is IPv4: {KEEPS}"]),
    ("router that is an external IP", 23, "    router: 198.51.100.12",
     ["23: router 198.51.100.12 can't be an external IP as well (line 31)"]),
    ("router that is itself", 23, "    router: 198.51.100.20",
     ["23: router 198.51.100.20 can't be an external IP as well (line 17)"]),
    ("NAT gateway of the other version", 17, "  - address: \"2001:db8:100::9\"",
     [f"20: gateway 10.0.0.1 is IPv4, and the external IP 2001:db8:100::9 is IPv6: {KEEPS}",
      f"21: inside 10.0.0.128/25 is IPv4, and the external IP 2001:db8:100::9 is IPv6: {KEEPS}",
      f"21: inside 172.16.9.7/32 is IPv4, and the external IP 2001:db8:100::9 is IPv6: {KEEPS}",
      f"23: router 198.51.100.254 is IPv4, and the external IP 2001:db8:100::9 is IPv6: {KEEPS}"]),
    # IPv6
    ("IPv6 outside", 24, "  - address: \"2001:db8:200::1\"",
     ["24: address 2001:db8:200::1 is outside external_network 198.51.100.0/24 and 2001:db8:100::/64"]),
    ("IPv6 network address", 24, "  - address: \"2001:db8:100::\"",
     ["24: address 2001:db8:100:: is the network address of external_network 2001:db8:100::/64"]),
    ("IPv6 with a gateway of the other version", 26, "    gateway: 10.0.0.9",
     [f"26: gateway 10.0.0.9 is IPv4, and the external IP 2001:db8:100::1 is IPv6: {KEEPS}"]),
    ("IPv6 with a server of the other version", 30, "        servers: [{address: 10.0.0.21, port: 80}]",
     [f"30: server 10.0.0.21 is IPv4, and the external IP 2001:db8:100::1 is IPv6: {KEEPS}"]),
]


@pytest.mark.parametrize(
    ("number", "line", "expected"), [mistake[1:] for mistake in KIND_MISTAKES],
    ids=[mistake[0] for mistake in KIND_MISTAKES])
def test_mistakes_of_kinds(number, line, expected):
    assert problems(edited(number, line, KINDS)) == [f"site.yaml:{problem}" for problem in expected]


def test_an_ipv6_address_needs_no_quotes_between_dashes_and_needs_them_in_brackets():
    assert config.parse(KINDS.replace('"2001:db8:100::1"', "2001:db8:100::1")) == config.parse(KINDS)


def test_external_ips_that_cookies_cannot_tell_apart_are_refused(monkeypatch):
    monkeypatch.setattr("lbctl.site.file.external_ips.owner_of", lambda address: address[0])
    assert problems(KINDS)[0] == (
        "site.yaml:17: the external IP 198.51.100.20 can't be told from 198.51.100.11 (line 6) in the switches' "
        "cookies, "
        "which hold a checksum of IPv6 addresses: take another address")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("udp_idle_timeout: 0", "udp_idle_timeout must be a number above 0; it is 0"),
        ("time_wait: -1", "time_wait must be a number above 0; it is -1"),
        ("icmp_rate: 0", "icmp_rate must be a whole number from 1 to 4294967295; it is 0"),
        ("linger: 0", "linger must be a whole number from 1 to 65535; it is 0"),
        ("linger: 1.5", "linger must be a whole number from 1 to 65535; it is '1.5'"),
        ("linger: 65536", "linger must be a whole number from 1 to 65535; it is 65536"),
        ("grace: 0", "grace must be a number above 0; it is 0"),
        ("grace: -1.5", "grace must be a number above 0; it is -1.5"),
        ("grace: .inf", "grace must be a number above 0; it is '.inf'"),
        ("grace: 3s", "grace must be a number above 0; it is '3s'"),
        ("held_packets: -1", "held_packets must be a whole number from 1 to 4294967295; it is -1"),
        ("hold_rat: 5", "settings: unknown key 'hold_rat': did you mean 'hold_rate'?"),
    ],
)
def test_settings(line, expected):
    assert problems(f"{SITE}settings:\n  {line}\n") == [f"site.yaml:31: {expected}"]


@pytest.mark.parametrize("key", ["load_balancers", "external_ips"])
def test_an_empty_list_is_refused(key):
    other = {"load_balancers": SITE.splitlines()[5:], "external_ips": SITE.splitlines()[:3]}[key]
    text = "\n".join([f"{key}: []", "external_network: 198.51.100.0/24", "internal_network: 10.0.0.0/24", *other])
    assert problems(text)[0] == f"site.yaml:1: {key} is empty: at least one is needed"


def test_services_and_servers_need_an_item():
    lines = SITE.splitlines()
    assert problems("\n".join([*lines[:24], "    services: []"])) == [
        "site.yaml:25: services is empty: at least one is needed"
    ]
    assert problems("\n".join([*lines[:27], "        servers: []"])) == [
        "site.yaml:28: servers is empty: at least one is needed"
    ]


def test_overlapping_networks():
    text = SITE.replace("external_network: 198.51.100.0/24", "external_network: 10.0.0.0/16")
    text = text.replace("198.51.100", "10.0.9")
    assert problems(text) == [
        "site.yaml:5: internal_network 10.0.0.0/24 overlaps external_network 10.0.0.0/16: they must be apart"
    ]


def test_every_problem_at_once_in_the_order_of_lines():
    text = edited(3, "  - {name: lb-b}").replace("gateway: 10.0.0.1", "gatway: 10.1.0.1")
    text = text.replace("port: 443", "port: 0")
    assert problems(text) == [
        "site.yaml:3: load balancer: the key 'dpid' is missing",
        "site.yaml:3: load balancer: the key 'external_port' is missing",
        "site.yaml:3: load balancer: the key 'internal_port' is missing",
        "site.yaml:10: external IP: unknown key 'gatway': did you mean 'gateway'?",
        "site.yaml:10: gateway 10.1.0.1 is outside internal_network 10.0.0.0/24",
        "site.yaml:19: port must be a whole number from 1 to 65535; it is 0",
        "site.yaml:21: port must be a whole number from 1 to 65535; it is 0",
    ]


def test_a_load_balancer_with_a_bad_name_makes_no_further_problems():
    assert len(problems(edited(3, LB_A.replace("lb-a", "lb b").replace("aa", "bb").replace("lba", "lbb")))) == 1


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n"])
def test_an_empty_file(text):
    assert len(problems(text)) == 1


@pytest.mark.parametrize("text", ["- 1\n", "text\n", "7\n"])
def test_a_file_that_is_no_mapping(text):
    assert problems(text)[0].startswith("site.yaml:1: site file must be a mapping with the keys load_balancers, ")


def test_files_that_cannot_be_read(tmp_path):
    def only_problem(name: str, content: bytes | None = None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError) as error:
            config.load(tmp_path / name)
        (problem,) = error.value.errors
        assert problem.file == str(tmp_path / name)
        return str(problem).removeprefix(str(tmp_path / name))

    assert only_problem("missing.yaml") == ": there is no such file"
    assert only_problem("") == ": cannot be read: Is a directory"
    assert only_problem("nul\0") == ": cannot be read: embedded null byte"
    assert only_problem("latin.yaml", b"a: 1\nb: \xe4\n") == ":2: byte 0xe4 is not UTF-8: save the file as UTF-8"
    assert only_problem("huge.yaml", b"#" * (config.MAX_BYTES + 1)) == ": larger than 4 MiB: this is no site file"
    assert only_problem("binary.yaml", b"a: 1\n\0") == ":2: the character U+0000 is not allowed here: remove it"


def test_a_byte_order_mark_and_dos_line_ends_are_no_problem(tmp_path):
    (tmp_path / "dos.yaml").write_bytes(b"\xef\xbb\xbf" + SITE.replace("\n", "\r\n").encode())
    assert config.load(tmp_path / "dos.yaml") == config.parse(SITE)


def accepted_or_refused(text: str) -> None:
    try:
        assert isinstance(config.parse(text), Site)
    except ConfigError as error:
        assert error.errors
        assert len(str(error).splitlines()) >= len(error.errors)


@given(st.text())
def test_any_text(text):
    accepted_or_refused(text)


SCRAPS = st.sampled_from(
    "[ ] { } : - ? & * ! | > ' \" % @ ` # , ~ yes 0x_ 0b_ 1:30 1_0 .inf 2020-13-45 !!int !!float !!binary !x &a *a "
    "<< = -- "
    "--- 198.51.100.1 lb-a ::1 fd00:10::9 10.0.0.0/8 ::/0 1-2 nat-gateway full [] {}".split()
)


@pytest.mark.parametrize("text", [SITE, KINDS], ids=["destination NAT", "all kinds"])
@given(data=st.data())
def test_any_line_replaced(text, data):
    number, scraps = data.draw(st.integers(1, len(text.splitlines()))), data.draw(st.lists(SCRAPS, max_size=4))
    before = text.splitlines()[number - 1]
    indent = before[: len(before) - len(before.lstrip())]
    accepted_or_refused(edited(number, indent + data.draw(st.sampled_from([": ", " ", ""])).join(scraps), text))


@pytest.mark.parametrize("text", [SITE, KINDS], ids=["destination NAT", "all kinds"])
@given(data=st.data())
def test_any_value_replaced(text, data):
    words = text.split(" ")
    words[data.draw(st.integers(0, len(words) - 1))] = data.draw(st.one_of(SCRAPS, st.text(max_size=8)))
    accepted_or_refused(" ".join(words))


def test_a_limit_is_read_and_written() -> None:
    site = config.parse(SITE.replace("port: 8080, weight: 2", "port: 8080, weight: 2, max_connections: 7"))
    limits = [server.max_connections for ip in site.external_ips for service in ip.services
              for server in service.servers]
    assert limits.count(7) == 1 and set(limits) == {7, None}
    assert config.parse(site_text(site)) == site
