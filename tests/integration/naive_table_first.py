"""A Ryu app for a bed: every move is a naive one, table first. See demonstration/naive_app.py."""

import os

from demonstration.orders import NAIVE_ORDER, TABLE_FIRST

os.environ[NAIVE_ORDER] = TABLE_FIRST.name

import demonstration.naive_app  # noqa: E402, F401
