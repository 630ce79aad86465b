"""Switches that are to be brought up to date with the site: one after the other, a few flows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lbctl.ground.effects import Outbox, to_switch
from lbctl.site.model import ExternalIp
from lbctl.switches.resync import Resync
from lbctl.switches.switch import Switch

FLOWS_AT_ONCE = 350
"""That are made and compared: some 8 ms."""


class Resyncs:
    """configs: every external IP as the flows are made from it now. state: another object once these are others."""

    def __init__(self, configs: Callable[[], list[ExternalIp]], state: Callable[[], object]) -> None:
        self._configs, self._state = configs, state
        self._waiting: dict[str, Switch] = {}
        """By LB, in the order of their turns."""
        self._running: Resync | None = None
        """Of the first one."""
        self._from: tuple[object, object] = None, None
        """What it was begun from."""

    @property
    def hurried(self) -> bool:
        """Is there more to do?"""
        return bool(self._waiting)

    def begin(self, switches: Iterable[Switch]) -> Outbox:
        """They are to hold what the site wants now. The first flows are compared at once: of a small site, all."""
        for switch in switches:
            if self._waiting.get(switch.lb.name) is not switch:
                self._waiting[switch.lb.name] = switch
        self._running = None
        return self.step()

    def step(self) -> Outbox:
        """What comes next."""
        out: Outbox = []
        left = FLOWS_AT_ONCE
        while self._waiting and left > 0:
            name, switch = next(iter(self._waiting.items()))
            if not switch.ready:  # it will get all of it when it is read back
                self._end(name)
                continue
            now = switch.of_ports, self._state()
            if self._running is None or any(one is not other for one, other in zip(now, self._from, strict=True)):
                self._from = now
                self._running = Resync(switch, switch.portions(self._configs()))
            messages, looked_at = self._running.step(left)
            left -= looked_at
            out += to_switch(name, messages)
            if self._running.ended:
                self._end(name)
        return out

    def _end(self, name: str) -> None:
        self._running = None
        self._waiting.pop(name).held.unwatch()
