"""A simulated day as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib.figure import Figure  # noqa: E402

from evaluation.simulator.day import Record  # noqa: E402
from evaluation.simulator.load import Numbers  # noqa: E402

POINTS = 288
"""Of a line; each stands for the mean and the highest of what it covers."""
LINES = (("static", "#c0392b"), ("automatic", "#2471a3"))


def plot(record: Record, file: Path) -> None:
    """Writes a PNG file."""
    figure = Figure(figsize=(10, 6.5), facecolor="white", layout="constrained")
    load, moves = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for name, colour in LINES:
        hours, mean, highest = _thinned(record.at, getattr(record, name))
        load.plot(hours, mean, color=colour, linewidth=1.3, label=name)
        load.fill_between(hours, mean, highest, color=colour, alpha=0.2, linewidth=0)
    for at, values, style in (
        (record.bound_at, record.bound, {"color": "#1e8449", "label": "lower bound of any assignment"}),
        (record.at, record.fair, {"color": "#1c2833", "linestyle": ":", "label": "fair: loads / capacities"}),
    ):
        load.plot(np.array(at) / 3600, values, linewidth=1.0, **style)
    load.axhline(1.0, color="#1c2833", linewidth=0.8, linestyle="--")
    load.text(1.005, 1.0, "full", va="center", fontsize=8, transform=load.get_yaxis_transform())
    load.set_ylabel("relative load of the most loaded LB\n(line: mean of 5 min, shade: highest)")
    load.set_ylim(0, None)
    load.legend(loc="lower right", ncols=2, fontsize=8)
    hour_of = np.array(record.at) // 3600
    made = np.diff(np.array(record.moves), prepend=0)
    hours = np.unique(hour_of)
    moves.bar(hours + 0.5, [made[hour_of == hour].sum() for hour in hours], width=0.9, color=LINES[1][1])
    moves.set_ylabel("moves in an hour")
    moves.set_xlabel("hour of the day")
    moves.set_xlim(0, (record.at[-1] + 1) / 3600)
    for axes in (load, moves):
        axes.grid(alpha=0.25)
    figure.savefig(file, dpi=110)


def _thinned(at: Sequence[float], values: Sequence[float]) -> tuple[Numbers, Numbers, Numbers]:
    """Hours, means, and highest values of pieces."""
    pieces = np.array_split(np.array(values), min(POINTS, len(values)))
    hours = [piece.mean() / 3600 for piece in np.array_split(np.array(at), len(pieces))]
    return np.array(hours), np.array([piece.mean() for piece in pieces]), np.array([piece.max() for piece in pieces])
