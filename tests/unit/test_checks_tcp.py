"""The TCP client of health checks: whatever the network does to the server's segments, a verdict is the server's own.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.frames.packets import ACK, FIN, PSH, RST, SYN, Packet
from lbctl.health_checks.tcp import LONGEST_LINE, MOST_PIECES, HttpQuestion, TcpCheck
from lbctl.health_checks.udp import UdpCheck
from lbctl.health_checks.verdict import Judgement, Segment, Verdict

NUMBERS = 1 << 32
ISN, SERVER_ISN = NUMBERS - 3, NUMBERS - 2
"""So that both sides' numbers run over."""
QUESTION = HttpQuestion("/well", "www.example", ((200, 299), (304, 304)))
SIZE = len(QUESTION.request)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ANSWERS = {
    OK: True,
    b"HTTP/1.0 204\r\n\r\n": True,
    b"HTTP/1.1 304 Not Modified\r\n\r\n": True,
    b"HTTP/1.1 503 Busy\r\n\r\n": False,
    b"HTTP/1.1 303 See Other\n\n": False,
    b"SSH-2.0-OpenSSH_9.2\r\n": False,
    b"": False,
    b"HTTP/1.1 20": False,
    b"x" * (LONGEST_LINE + 5): False,
    b"HTTP/1.1 2000 OK\r\n": False,
    b"\r\nHTTP/1.1 200 OK\r\n": False,
}


def packet(flags: int, seq: int, ack: int, payload: bytes = b"") -> Packet:
    return Packet(
        bytes(6), bytes(6), 6, bytes(4), bytes(4), 80, 600, flags, seq % NUMBERS, ack % NUMBERS, 0, len(payload), 64
    )


def check(question: HttpQuestion | None = QUESTION) -> TcpCheck:
    made = TcpCheck(ISN, 1.0, question)
    assert made.begin() == [Segment(SYN, ISN)]
    return made


def accepted(question: HttpQuestion | None = QUESTION) -> TcpCheck:
    made = check(question)
    said, verdict = made.received(packet(SYN | ACK, SERVER_ISN, ISN + 1), b"")
    assert verdict is None and said == [
        Segment(ACK | PSH, (ISN + 1) % NUMBERS, (SERVER_ISN + 1) % NUMBERS, QUESTION.request)
    ]
    return made


def tell(made: TcpCheck, place: int, payload: bytes = b"", flags: int = ACK,
         ack: int = ISN + 1 + SIZE) -> tuple[list[Segment], Verdict | None]:
    """What the server says at that place of what it says."""
    return made.received(packet(flags, SERVER_ISN + 1 + place, ack, payload), payload)


# One after the other.


def test_a_server_that_accepts_is_up_and_keeps_nothing() -> None:
    said, verdict = check(None).received(packet(SYN | ACK, SERVER_ISN, ISN + 1), b"")
    assert said == [Segment(RST, (ISN + 1) % NUMBERS)] and verdict == Verdict(True, "passed", "accepts connections")


@pytest.mark.parametrize("question", [None, QUESTION])
def test_refused(question) -> None:
    assert check(question).received(packet(RST | ACK, 0, ISN + 1), b"") == (
        [],
        Verdict(False, "refused", "connection refused"),
    )


@pytest.mark.parametrize(("answer", "right"), ANSWERS.items())
def test_the_status_line_decides(answer: bytes, right: bool) -> None:
    said, verdict = tell(accepted(), 0, answer, ACK | FIN)
    assert verdict is not None and verdict.passed is right
    assert said == [Segment(RST, (ISN + 1 + SIZE) % NUMBERS)]
    if b"503" in answer:
        assert verdict.reason == "status 503"


def test_what_has_come_is_acknowledged_until_the_line_is_whole() -> None:
    made = accepted()
    assert tell(made, 0) == ([], None), "the bare ACK of our request"
    assert tell(made, 0, OK[:5]) == ([Segment(ACK, (ISN + 1 + SIZE) % NUMBERS, (SERVER_ISN + 6) % NUMBERS)], None)
    assert tell(made, 5, OK[5:])[1] == Verdict(True, "status", "status 200")


def test_an_old_connections_answer_is_reset_and_changes_nothing() -> None:
    made = check()
    assert made.received(packet(ACK, 77, 1234), b"") == ([Segment(RST, 1234)], None)
    assert made.received(packet(RST | ACK, 77, 1234), b"") == ([], None)
    assert made.received(packet(SYN | ACK, 77, ISN + 2), b"") == ([Segment(RST, (ISN + 2) % NUMBERS)], None)
    assert made.received(packet(RST, 77, 0), b"") == ([], None)
    assert made.again() == [Segment(SYN, ISN)]


def test_what_is_lost_is_said_again() -> None:
    made = check()
    assert made.again() == made.begin()
    made = accepted()
    assert made.again() == [Segment(ACK | PSH, (ISN + 1) % NUMBERS, (SERVER_ISN + 1) % NUMBERS, QUESTION.request)]
    assert made.received(packet(SYN | ACK, SERVER_ISN, ISN + 1), b"") == (made.again(), None), (
        "the server has not heard us"
    )


def test_a_reset_counts_only_where_it_can_be_the_servers() -> None:
    made = accepted()
    assert tell(made, -1, flags=RST) == ([], None)
    assert tell(made, 1 << 20, flags=RST) == ([], None)
    assert tell(made, 0, flags=RST) == ([], Verdict(False, "reset", "connection reset"))


def test_time_is_over() -> None:
    assert check().expired() == ([Segment(RST, (ISN + 1) % NUMBERS)], Verdict(False, "timeout", "no answer within 1 s"))
    assert accepted().expired() == (
        [Segment(RST, (ISN + 1 + SIZE) % NUMBERS)],
        Verdict(False, "timeout", "no HTTP status within 1 s"),
    )


def test_what_is_kept_is_bounded() -> None:
    made = accepted()
    for place in range(1, 3 * LONGEST_LINE, 2):
        tell(made, place, b"x")
    assert len(made._pieces) <= MOST_PIECES


# Anything may happen on the way.


@st.composite
def deliveries(draw):
    """An answer cut into segments, and the order in which they (and what is not the server's) arrive: some twice,
    some never."""
    answer = draw(st.sampled_from(list(ANSWERS)))
    cuts = sorted(draw(st.lists(st.integers(0, len(answer)), max_size=4)))
    bounds = [0, *cuts, len(answer)]
    pieces = [(start, answer[start:end], ACK) for start, end in zip(bounds, bounds[1:], strict=False)]
    pieces += [(start, answer[start:start + size], ACK) for start, size in draw(st.lists(st.tuples(
        st.integers(0, max(0, len(answer) - 1)), st.integers(1, 1400)), max_size=3))]
    pieces.append((len(answer), b"", ACK | FIN))
    arrivals = draw(st.lists(st.integers(0, len(pieces) - 1), max_size=12))
    whole = draw(st.booleans())
    if whole:
        rest = list(range(len(pieces)))
        random.Random(draw(st.integers(0, 1 << 16))).shuffle(rest)
        arrivals += rest
    strangers = st.tuples(st.integers(0, 4), st.sampled_from([ACK, ACK | PSH, ACK | FIN, SYN | ACK]), st.integers(0, 3),
                          st.integers(SIZE + 2, NUMBERS - 1))
    return answer, pieces, arrivals, whole, draw(st.lists(strangers, max_size=4))


@given(deliveries())
def test_never_up_by_mistake_and_never_undecided_when_all_has_come(delivery) -> None:
    answer, pieces, arrivals, whole, strangers = delivery
    made, found = accepted(), None
    for turn, number in enumerate([*arrivals, -1]):
        for when, flags, seq, ack in strangers:
            if when == turn:
                # Acknowledges what we never said: of another connection.
                assert tell(made, seq, OK, flags, ISN + ack)[1] is None
        if number >= 0:
            place, payload, flags = pieces[number]
            said, found = tell(made, place, payload, flags)
            assert all(len(segment.payload) <= SIZE for segment in said)
        if found:
            break
    if found:
        assert found.passed is ANSWERS[answer] and found.result in ("status", "closed")
    else:
        assert not whole, "all of the answer has come, in some order"


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(-5, 5) | st.integers(0, NUMBERS - 1), st.integers(-5, 5)
                          | st.integers(0, NUMBERS - 1), st.binary(max_size=40)), max_size=20))
def test_any_segments_are_survived(segments) -> None:
    for question in (None, QUESTION):
        made = check(question)
        for flags, seq, ack, payload in segments:
            said, verdict = made.received(packet(flags, SERVER_ISN + seq, ISN + ack, payload), payload)
            assert all(0 <= segment.seq < NUMBERS and 0 <= segment.ack < NUMBERS for segment in said)
            if verdict:
                break
        made.expired()


# UDP.


def test_a_datagram_is_answered_by_one_that_begins_right() -> None:
    made = UdpCheck(b"ping", b"po", 1.0)
    assert made.begin() == made.again() == [b"ping"]
    assert made.received(packet(0, 0, 0), b"pong")[1].passed
    assert made.received(packet(0, 0, 0), b"no")[1] == Verdict(False, "answer", "another answer than expected")
    assert made.expired()[1] == Verdict(False, "timeout", "no answer within 1 s")


def test_silence_is_right_where_no_answer_is_named() -> None:
    made = UdpCheck(b"", None, 1.0)
    assert made.begin() == [b""] and made.again() == []
    assert made.received(packet(0, 0, 0), b"")[1].passed and made.expired()[1].passed


# Rise and fall.


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.booleans(), max_size=60))
def test_as_many_in_a_row_as_it_takes(rise: int, fall: int, outcomes: list[bool]) -> None:
    judgement, up, since = Judgement(rise, fall), True, 0
    for number, passed in enumerate(outcomes, 1):
        changed = judgement.note(passed)
        needed = fall if up else rise
        last = outcomes[max(since, number - needed):number]
        expected = len(last) == needed and not any(outcome is up for outcome in last)
        if expected:
            up, since = not up, number
        assert (changed, judgement.up) == (expected, up)
