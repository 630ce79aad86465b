"""A Ryu app for a bed: every move is a naive one, table first. See evaluation/demonstration/naive_app.py."""

import os

from evaluation.demonstration.orders import NAIVE_ORDER, TABLE_FIRST

os.environ[NAIVE_ORDER] = TABLE_FIRST.name

import evaluation.demonstration.naive_app  # noqa: E402, F401
