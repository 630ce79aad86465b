"""A packet alone ends nothing: forged segments and ICMP errors among the packets of connections that live. Nor does a
FIN that is not forged: its connection may go on one way."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.frames import ACK, FIN, PSH, RST, SYN
from tests.bed.patience import limit
from tests.bed.sites import SERVER_PORT, simple_site
from tests.bed.traffic import RawPort, connect
from tests.integration.hands import (
    Listening,
    Talk,
    entries_of,
    entry_flows_of,
    eventually,
    external_mac,
    internal_mac,
    own_server,
    server_space,
)
from tests.integration.moving import Talks

LINGER, HALF_CLOSED_TIMEOUT = 1, 2.0
SETTINGS = {"linger": LINGER, "half_closed_timeout": HALF_CLOSED_TIMEOUT}
BED = {"site": simple_site(lbs=1, external_ips=1, settings=SETTINGS), "clients": 2}
EXTERNAL, PORT = "198.51.100.1", 80
SERVERS = "10.0.0.11", "10.0.0.12"
FAR = 2**24
"""More than any host's window: so far beside what it expects, it answers a segment with an acknowledgement, or ignores
it (RFC 9293 3.10.7.4, RFC 5961), and ignores an ICMP error that quotes such a number (RFC 5927)."""
EXAMPLES, TOGETHER = 3, 6
"""Each takes three seconds, mostly for what lingers; so several attacks go on together, each at connections of its
own."""
NAMES = {SYN: "SYN", FIN: "FIN", RST: "RST", PSH: "PSH", ACK: "ACK", 0x20: "URG"}


@dataclass(frozen=True)
class Forged:
    """inward: sent from outside to the server; else from inside to the client. flags: of a segment. error: type and
    code of an ICMP error, instead. off: what is added to the sequence number that the receiver expects (an error: that
    it has sent). beside: by a host beside the one that it is said to come from, with another MAC."""

    inward: bool
    off: int
    beside: bool
    flags: int = 0
    ack: int = 0
    payload: bytes = b""
    error: tuple[int, int] | None = None
    mtu: int = 0

    def __repr__(self) -> str:
        what = f"ICMP {self.error} MTU {self.mtu}" if self.error else "+".join(
            name for flag, name in NAMES.items() if self.flags & flag)
        numbers = f"off {self.off:+} ack {self.ack} payload {self.payload!r}"
        return f"<{what} to the {'server' if self.inward else 'client'}, {numbers}{', by another host' * self.beside}>"


Attack = tuple[Sequence[Forged], Sequence[Forged]]
"""What is sent, and what more when the first has had its effect."""

FLAGS = st.integers(1, 0x3F).filter(lambda flags: flags & (SYN | FIN | RST))
ERRORS = st.one_of(st.tuples(st.just(3), st.integers(0, 15)), st.sampled_from([(4, 0), (11, 0), (11, 1), (12, 0)]))


def from_one_side(inward: bool) -> st.SearchStrategy[Attack]:
    """FINs from both sides, and silence, are an end: hosts that close do the same."""
    where = {"inward": st.just(inward), "beside": st.booleans(), "off": st.integers(FAR, 2**32 - FAR)}
    segments = st.builds(Forged, **where, flags=FLAGS, ack=st.integers(0, 2**32 - 1),
                         payload=st.sampled_from([b"", b"", b"forged\n"]))
    errors = st.builds(Forged, **where, error=ERRORS, mtu=st.integers(0, 1500))
    some = st.one_of(segments, segments, errors)
    return st.tuples(st.lists(some, min_size=1, max_size=4), st.lists(some, max_size=4))


attacks = st.lists(st.booleans().flatmap(from_one_side), min_size=TOGETHER, max_size=TOGETHER)


def segment(flags: int, inward: bool = True, **more: bool) -> Forged:
    return Forged(inward=inward, off=2**30, flags=flags, **{"beside": False, **more})


RESET, CLOSE, OPEN = segment(RST), segment(FIN | ACK), segment(SYN)


class Attacked:
    """For each attack a connection that talks all the time, and one that is silent until it is asked. A context
    manager."""

    def __init__(self, bed: Bed, count: int) -> None:
        self._bed, self._stack = bed, contextlib.ExitStack()
        enter = self._stack.enter_context
        self._outside = [enter(RawPort(space, "eth0")) for space in bed.clients]
        self._inside = {server: enter(RawPort(server_space(bed, server), "eth0")) for server in SERVERS}
        self._macs = external_mac(bed, "lb-a"), internal_mac(bed, "lb-a")
        port = enter(RawPort(bed.clients[0], "eth0"))
        self._answers = enter(Listening(port, lambda frame: str(frame.src) == EXTERNAL and frame.src_port == PORT))
        self._quiet = enter(Talks(bed.clients[0], EXTERNAL, count))
        self._talks = [enter(Talk(bed.clients[0], EXTERNAL, patience=3.0)) for _ in range(count)]
        self.locals = [talk.local for talk in self._talks], [end.getsockname() for end in self._quiet.sockets]
        """Of those that talk, of those that are silent; each in the attacks' order."""
        self._servers = {local: self._server(local) for group in self.locals for local in group}

    def _server(self, local: tuple[str, int]) -> str | None:
        """Where its entry leads; None if there is none."""
        found = entries_of(self._bed, local)
        return found[0]["server"] if len(found) == 1 else None

    def forge(self, attacks: Sequence[Sequence[Forged]]) -> None:
        for group in self.locals:
            for local, sent in zip(group, attacks, strict=True):
                for each in sent:
                    self._forge(each, local)

    def _forge(self, what: Forged, local: tuple[str, int]) -> None:
        server, last = self._servers[local], next(
            frame for frame in reversed(self._answers.heard) if frame.dst_port == local[1])
        assert server is not None
        expected = {True: last.ack, False: last.seq + len(last.payload)}
        if what.inward:
            port, ends = self._outside[what.beside], (local, (EXTERNAL, PORT))
            eth, sender = (port.mac, self._macs[0]), "198.51.100.250" if what.beside else local[0]
        else:
            port = self._inside[next(each for each in SERVERS if (each == server) != what.beside)]
            ends = (server, SERVER_PORT), local
            eth, sender = (port.mac, self._macs[1]), server
        if what.error:
            # About a packet of whom it is sent to.
            number = (expected[not what.inward] + what.off) % 2**32
            about = frames.tcp(eth, ends[1], ends[0], ACK, seq=number)
            port.send(frames.icmp_error(eth, sender, ends[1][0], what.error, about, mtu=what.mtu))
        else:
            number = (expected[what.inward] + what.off) % 2**32
            port.send(frames.tcp(eth, *ends, what.flags, seq=number, ack=what.ack, payload=what.payload))

    def broken(self) -> dict[int, list[str]]:
        """What is wrong with the connections, by the numbers of the attacks."""
        found: dict[int, list[str]] = {}

        def wrong(local: tuple[str, int], what: str) -> None:
            number = next(group.index(local) for group in self.locals if local in group)
            found.setdefault(number, []).append(what)

        for talk, local in zip(self._talks, self.locals[0], strict=True):
            if not talk.goes_on(3, 3 * talk._patience):
                wrong(local, f"talks: {talk.error or 'no answer'}")
        silent = {local[1]: local for local in self.locals[1]}
        for problem in self._quiet.broken():
            port = next((port for port in silent if str(port) in problem), None)
            wrong(silent[port] if port else self.locals[1][0], f"was silent: {problem}")
        for local, server in self._servers.items():
            now = self._server(local)
            if now != server:
                wrong(local, f"its entry leads to {now}, and not to {server}")
        return found

    def __enter__(self) -> Attacked:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def take_effect() -> None:
    """What lingers, and what runs out, has. No test fails if that takes longer."""
    time.sleep(LINGER + 0.3)


def played(bed: Bed, attacks: Sequence[Attack]) -> dict[int, list[str]]:
    """What the attacks have broken, by their numbers."""
    with Attacked(bed, len(attacks)) as attacked:
        attacked.forge([first for first, _ in attacks])
        take_effect()
        attacked.forge([then for _, then in attacks])
        take_effect()
        return attacked.broken()


def test_forged_packets_break_no_connection(live: Bed) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
              print_blob=True, phases=(Phase.explicit, Phase.reuse, Phase.generate))
    @example([((RESET,), (OPEN,)), ((CLOSE,), (OPEN,)), ((RESET, OPEN), ()), ((OPEN, RESET), (CLOSE,)),
              ((segment(RST, False),), (segment(SYN, False),)),
              ((segment(RST, beside=True),), (segment(SYN, beside=True),))])
    @given(attacks)
    def none_breaks(attacks: list[Attack]) -> None:
        broken = played(live, attacks)
        assert not broken, "\n".join(f"{attacks[number]}: {what}" for number, what in broken.items())

    none_breaks()


def test_they_break_it_where_they_are_believed(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_forged.py", *APPS)
    quiet_bed.start_controller()
    assert played(quiet_bed, [((each,), ()) for each in (RESET, CLOSE, OPEN)]).keys() == {0, 1, 2}


# Half-closed connections.

@contextlib.contextmanager
def half_closed(bed: Bed) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection whose client has sent its FIN: the client's and the server's end."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(own_server(bed, server, SERVER_PORT)) for server in SERVERS]
        near = stack.enter_context(connect(bed.clients[0], EXTERNAL))
        [listener], _, _ = select.select(listeners, [], [], limit(5))
        far = stack.enter_context(listener.accept()[0])
        near.shutdown(socket.SHUT_WR)
        far.settimeout(limit(5))
        assert far.recv(1) == b""
        yield near, far


def carries(near: socket.socket, far: socket.socket) -> bool:
    """From the server to the client; or the server is told that there is no connection."""
    far.sendall(b"more")
    poll = select.poll()
    poll.register(near, select.POLLIN)
    poll.register(far, 0)  # errors alone: it has been at its end since the FIN
    ready = [number for number, _ in poll.poll(1000 * limit(5))]
    return ready == [near.fileno()] and near.recv(4) == b"more"


def until_it_ends(bed: Bed, near: socket.socket) -> None:
    """Nobody says anything, until its entry is gone."""
    local = near.getsockname()
    eventually(bed, lambda: not entries_of(bed, local) and not entry_flows_of(bed, local), "it is silent", 15.0)


def test_what_is_half_closed_ends_when_it_is_silent_and_not_before(live: Bed) -> None:
    with half_closed(live) as (near, far):
        eventually(live, lambda: [entry["state"] for entry in entries_of(live, near.getsockname())] == ["half-closed"],
                   "its FIN is known", 10.0)
        end = time.monotonic() + 2 * HALF_CLOSED_TIMEOUT
        while time.monotonic() < end:
            assert carries(near, far)
            time.sleep(0.3)
        assert entries_of(live, near.getsockname()), "it carries something"
        until_it_ends(live, near)
        assert carries(near, far) and entries_of(live, near.getsockname()), "and it speaks again"


def test_where_that_is_the_end_it_cannot_speak_again(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_half_closed.py", *APPS)
    quiet_bed.start_controller()
    with half_closed(quiet_bed) as (near, far):
        until_it_ends(quiet_bed, near)
        assert not carries(near, far)
