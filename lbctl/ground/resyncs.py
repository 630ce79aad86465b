"""Switches that are to be brought up to date with the site: one after the other, a few flows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import is_not

from lbctl.ground.effects import Outbox, to_switch
from lbctl.openflow.flow import Place
from lbctl.site.model import ExternalIp
from lbctl.switches.resync import Step, resync
from lbctl.switches.switch import Switch

FLOWS_AT_FIRST, FLOWS_AT_ONCE = 400, 200
"""That are made and compared: some 9 ms, 5 ms."""


@dataclass(slots=True)
class Wanting:
    """A switch that waits for its turn. there: what was read back from it when it connected. then: what comes after the
    last flow."""

    switch: Switch
    there: Mapping[Place, int] = field(default_factory=dict)
    then: Callable[[float], Outbox] = lambda _now: []


class Resyncs:
    """configs: every external IP as the flows are made from it now. state: another object once these are others."""

    def __init__(self, configs: Callable[[], list[ExternalIp]], state: Callable[[], object]) -> None:
        self._configs, self._state = configs, state
        self._waiting: dict[str, Wanting] = {}
        """By LB, in the order of their turns."""
        self._running: Iterator[Step] | None = None
        """Of the first one."""
        self._from: tuple[object, object] = None, None
        """What it was begun from."""

    @property
    def hurried(self) -> bool:
        """Is there more to do?"""
        return bool(self._waiting)

    def begin(self, switches: Iterable[Switch], now: float) -> Outbox:
        """They are to hold what the site wants now. The first flows are compared at once: of a small site, all."""
        for switch in switches:
            wanting = self._waiting.get(switch.lb.name)
            if wanting is None or wanting.switch is not switch:
                self._waiting[switch.lb.name] = Wanting(switch)
        self._running = None
        return self._go_on(FLOWS_AT_FIRST, now)

    def connected(
        self, switch: Switch, there: Mapping[Place, int], then: Callable[[float], Outbox], now: float
    ) -> Outbox:
        """It has been read back: these flows are there, nothing has been ordered yet. then: see Wanting."""
        self._waiting[switch.lb.name] = Wanting(switch, there, then)
        return self.begin([switch], now)

    def step(self, now: float) -> Outbox:
        """What comes next."""
        return self._go_on(FLOWS_AT_ONCE, now)

    def _go_on(self, left: int, now: float) -> Outbox:
        out: Outbox = []
        while self._waiting and left > 0:
            name, wanting = next(iter(self._waiting.items()))
            if not wanting.switch.ready:  # it will get all of it when it is read back
                self._end(name)
                continue
            made_from = wanting.switch.of_ports, self._state()
            if self._running is None or any(map(is_not, made_from, self._from)):
                self._from = made_from
                self._running = resync(wanting.switch, wanting.switch.portions(self._configs()), wanting.there)
            running, self._running = self._running, None  # begun anew, should it fail
            step = next(running, None)
            self._running = running
            if step:
                messages, cost = step
                left -= cost
                out += to_switch(name, messages)
            else:
                self._end(name)
                out += wanting.then(now)
        return out

    def _end(self, name: str) -> None:
        self._running = None
        self._waiting.pop(name).switch.held.unwatch()
