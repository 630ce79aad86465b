"""Looking into what the core asks of the world."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lbctl.control import ControlFunction
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.move_record import MoveRecord
from lbctl.openflow.flow import Place
from lbctl.openflow.messages import Message
from lbctl.site.model import ExternalIp, Site
from lbctl.switches.resync import resync
from lbctl.switches.switch import Switch


def sent(out: Outbox, lb: str | None = None) -> list[Message]:
    """The messages to switches, in order: to that LB's, or to all."""
    return [effect.message for effect in out if isinstance(effect, ToSwitch) and lb in (None, effect.lb)]


def use_file(control: ControlFunction, file: Site, now: float) -> Outbox:
    """Another site file, with nothing in between."""
    return [effect for out in control.services.use_file(file, now) for effect in out]


def fail_over(control: ControlFunction, name: str, now: float) -> tuple[list[MoveRecord], Outbox]:
    """By order, all at once: the moves, and what is sent."""
    steps = list(control.relief.order(name, now))
    return [record for records, _ in steps for record in records], [effect for _, out in steps for effect in out]


def brought_up_to_date(
    switch: Switch, external_ips: Iterable[ExternalIp], there: Mapping[Place, int] | None = None
) -> list[Message]:
    """What is sent for it, with nothing in between. there: what was read back from it, if it has just connected."""
    if there is not None:
        switch.held.clear()
    steps = resync(switch, switch.portions(external_ips), there or {})
    return [message for messages, _ in steps for message in messages]
