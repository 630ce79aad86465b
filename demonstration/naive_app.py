"""Makes every move of this ryu-manager a naive one: put it before ryu_apps/load_balancer.py on the command line.

The environment variable LBCTL_NAIVE_ORDER says which. The product has no hook for this, on purpose, so some of its names
are bound anew here, before the app that uses them is loaded.
"""

import os
import sys

import lbctl.control
import lbctl.movement
from demonstration.naive import MOVES, PriorArtConnections
from demonstration.orders import NAIVE_ORDER
from lbctl.pipeline.cookies import BUCKETS

lbctl.movement.Move = MOVES[os.environ[NAIVE_ORDER]]
lbctl.movement.FORGET_AT_ONCE = 2 * BUCKETS
lbctl.movement.FORGET_FLOWS = sys.maxsize
lbctl.control.Connections = PriorArtConnections
