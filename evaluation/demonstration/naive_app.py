"""Makes every move of this ryu-manager a naive one: put it before ryu_apps/load_balancer.py on the command line.

The environment variable LBCTL_NAIVE_ORDER says which. The product has no hook for this, on purpose, so some of its
names are bound anew here, before the app that uses them is loaded.
"""

import os
import sys

import lbctl.control
import lbctl.moves.forgetting
import lbctl.moves.movement
from evaluation.demonstration.naive import MOVES, PriorArtConnections
from evaluation.demonstration.orders import NAIVE_ORDER
from lbctl.entries.access_table import AccessTable
from lbctl.values.keys import BUCKETS

setattr(lbctl.moves.movement, "Move", MOVES[os.environ[NAIVE_ORDER]])  # noqa: B010
# A naive source is not told of all that ends before it forgets: its table does not tell what it still holds.
setattr(AccessTable, "buckets", lambda _table: list(range(BUCKETS)))  # noqa: B010
lbctl.moves.forgetting.AT_ONCE = 2 * BUCKETS
lbctl.moves.forgetting.FLOWS = sys.maxsize
setattr(lbctl.control, "Connections", PriorArtConnections)  # noqa: B010
