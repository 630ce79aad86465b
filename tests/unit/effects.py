"""Looking into what the core asks of the world."""

from __future__ import annotations

from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.openflow.messages import Message


def sent(out: Outbox, lb: str | None = None) -> list[Message]:
    """The messages to switches, in order: to that LB's, or to all."""
    return [effect.message for effect in out if isinstance(effect, ToSwitch) and lb in (None, effect.lb)]
