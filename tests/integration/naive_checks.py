"""A Ryu app for a bed: every verdict of a health check is believed, and its connections are reset at once."""

from lbctl.health_checks.judge import Judge
from lbctl.health_checks.verdict import Judgement
from lbctl.servers.states import ServerStates

note, changed = Judgement.note, Judge._changed


def change_and_reset(judge, target, verdict, now):
    changed(judge, target, verdict, now)
    if not target.judgement.up:
        judge._naive = [*getattr(judge, "_naive", []), target]


def tick(judge, now):
    doomed, judge._naive = getattr(judge, "_naive", []), []
    return [effect for target in doomed for effect in judge._reset(target, now)]


Judgement.note = lambda judgement, passed, heeded=True: note(judgement, passed)
ServerStates._all_down = lambda states, place: False
Judge._changed, Judge.tick = change_and_reset, tick
