"""Which external IP is best on which LB (the seed's "computing the assignment"), and the moves that lead there.

`assign` is a pure function: it reads no clock and does no I/O, and its arguments and result can be pickled, so that it
can run in a process or a thread of its own. The model and the choice of an algorithm: docs/assignment.md.

The room uses addresses (lbctl.values), numpy and scipy, and nothing else. lbctl.load makes problems of measured loads,
and the Ryu app has them solved by `python -m lbctl.assignment`, in a process of its own.
"""

from __future__ import annotations

from lbctl.assignment.planning import ALGORITHMS, assign
from lbctl.assignment.problem import MOVE_COST, TOLERANCE, Capacity, Demand, Plan, PlannedMove, Problem, Unassignable

__all__ = ["ALGORITHMS", "MOVE_COST", "TOLERANCE", "Capacity", "Demand", "Plan", "PlannedMove", "Problem",
           "Unassignable", "assign"]
