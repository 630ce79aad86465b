"""SYNs by which a client uses a port again, while the port's last connection may still be in the datapath's cache: what
follows the SYN would go to that one's server. They wait until the cache follows the new entry's flows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.tokens import Confirmation, Tokens
from lbctl.openflow.messages import Barrier

CACHE_FOLLOWS, SLOWNESS = 0.03, 3.0
"""Seconds in which an idle host's revalidators follow other flows; and how many times as long as the switch takes to
confirm these they need on a busy one."""
AT_MOST, PATIENCE = 1000, 1.0
"""So many SYNs wait, so long: the client sends another by then (RFC 6298)."""


@dataclass(slots=True)
class _Held:
    syn: ToSwitch
    since: float
    until: float


class HeldBack:
    """Those of all switches."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._held: dict[int, _Held] = {}
        """By the token that confirms the flows."""

    def hold(self, syn: ToSwitch, now: float) -> Outbox:
        """To be sent after the new flows. Where too many wait already, it does not."""
        if len(self._held) >= AT_MOST:
            return [syn]
        held = _Held(syn, now, now + PATIENCE)
        token = self._tokens.new(Confirmation(syn.lb, partial(self._confirmed, held)))
        self._held[token] = held
        return [ToSwitch(syn.lb, Barrier(token))]

    @staticmethod
    def _confirmed(held: _Held, now: float) -> Outbox:
        held.until = min(held.until, now + CACHE_FOLLOWS + SLOWNESS * (now - held.since))
        return []

    def tick(self, now: float) -> Outbox:
        """Those whose time has come."""
        due = [token for token, held in self._held.items() if now >= held.until]
        for token in due:
            self._tokens.cancel(token)
        return [self._held.pop(token).syn for token in due]
