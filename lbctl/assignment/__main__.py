"""`python -m lbctl.assignment`: computes one assignment, in a process of its own. What it reads and writes is pickled.

It reads an algorithm; a problem without external IPs; these (Demand) in portions; where they are now, (address, LB), in
portions. It writes a plan without target and moves, and these in portions; or the Unassignable that says why
there is none.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from dataclasses import replace
from itertools import chain
from typing import BinaryIO

from lbctl.assignment import Demand, Problem, Unassignable, assign
from lbctl.values.addresses import Address
from lbctl.values.portions import portions

EXACT_SECONDS = 5.0
"""For the exact algorithm, which then gives the best that it knows."""
NICE = 10
PORTION = 200
"""Addresses or moves that the reader unpickles in one go."""


def read(file: BinaryIO) -> Problem:
    """A problem in portions, to the end of the file."""
    bare: Problem = pickle.load(file)
    demands: list[Demand] = []
    current: dict[Address, str] = {}
    with contextlib.suppress(EOFError):
        while portion := pickle.load(file):
            if isinstance(portion[0], tuple):
                current.update(portion)
            else:
                demands += portion
    return replace(bare, demands=tuple(demands), current=current)


def main() -> None:
    """Solves one problem."""
    os.nice(NICE)
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # HiGHS prints now and then
    algorithm = pickle.load(sys.stdin.buffer)
    with answer:
        try:
            plan = assign(read(sys.stdin.buffer), algorithm, EXACT_SECONDS)
        except Unassignable as error:
            pickle.dump(error, answer)
            return
        pickle.dump(replace(plan, target={}, moves=()), answer)
        for some in chain(portions(plan.target.items(), PORTION), portions(plan.moves, PORTION)):
            pickle.dump(some, answer)


if __name__ == "__main__":
    main()
