"""Any bytes from any switch, host, file and REST caller: no exception, and what is right goes on. (From keepers and
servers: test_keeper_protocol.py, test_keeper_http.py, test_copies.py.)"""

from __future__ import annotations

import struct
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluation.benchmarks.switches import packet_in
from lbctl.api.dispatch import dispatch
from lbctl.frames.packets import ACK, FIN, RST, SYN, tcp_segment
from lbctl.http.message import Request
from lbctl.openflow.cookies import Kind
from lbctl.openflow.outbound import EntryCodec
from lbctl.site.file import ConfigError, parse
from lbctl.store import FileStore, StoreError
from ryu_apps.shell import wire
from ryu_apps.shell.events import Events
from ryu_apps.shell.faults import Faults
from ryu_apps.shell.switchboard import Switchboard
from tests.unit.api_fakes import FakeOrders
from tests.unit.fake_site import EXTERNAL, INTERNAL, FakeSite, site
from tests.unit.real_threads import RealThreads
from tests.unit.test_shell import Connection, encode

KINDS = [wire.ERROR, wire.PACKET_IN, wire.FLOW_REMOVED, wire.MULTIPART_REPLY, wire.BARRIER_REPLY, wire.BUNDLE_CONTROL]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """What a host could send to an external IP or a server, with some bytes changed; or anything."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=120))
    addresses = st.sampled_from([bytes((198, 51, 100, 1)), bytes((10, 0, 0, 10)), bytes((203, 0, 113, 7)), bytes(4)])
    frame = bytearray(tcp_segment(
        bytes(6), b"\2" + bytes(5), draw(addresses), draw(st.sampled_from([80, 40000])), draw(addresses), 80,
        flags=draw(st.sampled_from([SYN, ACK, FIN | ACK, RST, 0])), seq=draw(st.integers(0, 9))))
    for place in draw(st.lists(st.integers(0, len(frame) - 1), max_size=4)):
        frame[place] = draw(st.integers(0, 255))
    return bytes(frame)


@st.composite
def messages(draw: st.DrawFn) -> tuple[int, int, bytes]:
    """Type, token, and the whole message."""
    kind, token = draw(st.sampled_from(KINDS)), draw(st.integers(0, 60))
    if kind == wire.PACKET_IN and draw(st.booleans()):
        port = draw(st.sampled_from([EXTERNAL, INTERNAL, 99]))
        return kind, token, packet_in(draw(st.sampled_from(list(Kind))), port, draw(frames()))
    body = draw(st.binary(max_size=150))
    head = struct.pack("!BBHI", 5, kind, 8 + len(body), wire.XID_MARK | token)
    return kind, token, head + body


class Lb:
    """The control function's shell for one site, without sockets."""

    def __init__(self) -> None:
        self.world = FakeSite(site())
        self.world.settle(1.0)
        self.conversation = self.world.open(0)
        self.world.drain()
        control = self.world.control
        board = Switchboard(encode, EntryCodec(5), RealThreads())
        self.connection, self.counters = Connection(), Counter[str]()
        board.names[self.connection] = "lb-a"
        self.events = Events(control, board, self.world.post, lambda: self.world.now,
                             Faults(self.counters, lambda: self.world.now))


# A packet of an external IP to itself: the switch drops it, but may say that it came.
TO_ITSELF = tcp_segment(b"\x02" + bytes(5), b"\x02" + bytes(5), bytes((198, 51, 100, 1)), 80,
                        bytes((198, 51, 100, 1)), 80, flags=SYN, seq=512)


@given(st.lists(st.one_of(messages(), st.none()), max_size=12))
@example([(10, 0, packet_in(Kind.NO_WAY, INTERNAL, TO_ITSELF))])
def test_from_switches(told: list[tuple[int, int, bytes] | None]) -> None:
    lb = Lb()
    for each in told:
        if each is None:
            lb.world.tick(0.5)
        else:
            kind, token, message = each
            lb.events.message(lb.connection, kind, wire.XID_MARK | token, message)
    assert lb.counters["internal_errors"] == 0
    lb.world.settle(5.0)
    if lb.conversation.live and not lb.world.control.ground.switches["lb-a"].counters["errors_from_switch"]:
        assert lb.world.control.ground.switches["lb-a"].ready


def test_a_switch_does_not_answer_for_another() -> None:
    lb = Lb()
    world, control = lb.world, lb.world.control
    world.disconnect("lb-b")
    world.connect("lb-b")
    tokens = [token for token in range(1, 2000) if control.ground.tokens.owed_by(token, "lb-b")]
    assert tokens
    for token in tokens:
        for kind in KINDS:
            message = struct.pack("!BBHIHHI", 5, kind, 16, wire.XID_MARK | token, 1, 5, 0)
            lb.events.message(lb.connection, kind, wire.XID_MARK | token, message)
    assert all(control.ground.tokens.owed_by(token, "lb-b") for token in tokens)
    world.settle(2.0)
    assert control.ground.switches["lb-b"].condition == "ready"


HEADERS = st.sampled_from(["content-type", "host", "origin", "authorization", "sec-fetch-site"])
TEXTS = st.one_of(st.text(max_size=30), st.sampled_from([
    "/v1/moves", "/v1/load-balancers/lb-a/access-table", "/v1/external-ips", "/v1/rebalance", "/metrics",
    "/v1/external-ips/198.51.100.1/move", "/v1/load-balancers/lb-a/drain"]))


@given(method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "X"]), path=TEXTS,
       query=st.dictionaries(st.sampled_from(["limit", "after", "client", "wait", "x"]),
                             st.lists(st.text(max_size=9), min_size=1)),
       headers=st.dictionaries(HEADERS, st.text("[]:/.ab", max_size=9)),
       body=st.one_of(st.binary(max_size=40), st.sampled_from([b"{}", b'{"to": "lb-b"}', b"[1]", b'{"undo": 7}'])))
def test_from_rest_callers(method, path, query, headers, body) -> None:
    response = dispatch(Request(method, path, query, headers, body), FakeOrders())
    assert response.status != 500


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda data: data.decode("latin-1"))))
def test_from_site_files(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


@given(st.one_of(st.binary(max_size=200), st.just(b'{"format": 1, "assigned": [], "unfinished": {}}')))
def test_from_state_files(tmp_path_factory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("state") / "state.json"
    file.write_bytes(content)
    with suppress(StoreError):
        FileStore(file).load()
