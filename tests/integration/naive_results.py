"""A Ryu app for a bed: what health checks have found is forgotten at a restart. And then they begin so late that a test
is in time for what comes before."""

from lbctl.health_checks.checker import Checker
from lbctl.store import checked

known = checked.checked_of


def checked_of(rows):
    if any(found.down for found in known(rows).values()):
        Checker.tick = lambda checker, now: []
    return {}


checked.checked_of = checked_of
