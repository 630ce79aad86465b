"""Who answers ARP for an address, asked again and again: never two LBs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple, Self

from tests.bed import frames
from tests.bed.namespaces import Namespace
from tests.bed.traffic import RawPort

BETWEEN = 0.02
"""Seconds between two questions about an address."""


class Question(NamedTuple):
    """Who has `address`? sender: the address of the host in `space` that asks, on its device eth0."""

    space: Namespace
    sender: str
    address: str


class Owners:
    """A context manager: asks in a thread of its own until it is left."""

    def __init__(self, questions: Iterable[Question]) -> None:
        self._questions = list(questions)
        self._ports = [RawPort(question.space, "eth0") for question in self._questions]
        self._answers: list[tuple[str, str]] = []
        """(which address, MAC) in the order of time."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for port in self._ports:
            port.close()

    def _ask(self) -> None:
        while not self._over.is_set():
            for port, question in zip(self._ports, self._questions, strict=True):
                port.send(frames.arp_request(port.mac, question.sender, question.address))
            time.sleep(BETWEEN)
            for port, question in zip(self._ports, self._questions, strict=True):
                for frame in port.collect(lambda frame: frame.answers_arp, 0.005):
                    if str(frame.src) == question.address:
                        self._answers.append((question.address, frame.arp_src_mac))

    def turns(self, address: str) -> list[str]:
        """Who has answered, each time that another did."""
        macs = [mac for asked, mac in list(self._answers) if asked == address]
        return [mac for place, mac in enumerate(macs) if place == 0 or macs[place - 1] != mac]
