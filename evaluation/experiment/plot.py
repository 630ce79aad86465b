"""The runs over time, one above the other, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from evaluation.experiment.results import BIN, Run  # noqa: E402
from evaluation.experiment.shape import EXTERNAL_IPS, LINK, PHASES, UTILISATION, Shape  # noqa: E402

COLOURS = {"static": "#c0392b", "automatic": "#2471a3"}


def plot(runs: Sequence[Run], shape: Shape, file: Path) -> None:
    """Writes a PNG file."""
    figure = Figure(figsize=(10, 8.5), facecolor="white", layout="constrained")
    load, latency, throughput = figure.subplots(3, 1, sharex=True)
    for run in runs:
        style = {"color": COLOURS[run.mode], "label": run.mode, "linewidth": 1.4}
        load.plot(*_steps(run.worst_loads()), **style)
        latency.plot(*_steps([(at, took * 1000) for at, took in run.latencies(0.95)]), **style)
        throughput.plot(*_steps([(at, rate / 1e6) for at, rate in run.throughputs() if at < shape.seconds]), **style)
        _mark_moves(load, run)
    load.axhline(1.0, color="#1c2833", linewidth=0.8, linestyle="--")
    load.axhline(UTILISATION, color="#7f8c8d", linewidth=0.8, linestyle=":")
    load.set_ylabel("worst LB's load\n(asked for / link's rate)")
    load.set_ylim(0, 1.2 * load.get_ylim()[1])  # room for the legend
    _name(load, 1.0, "full")
    _name(load, UTILISATION, "fair")
    latency.set_yscale("log")
    latency.set_ylabel("request latency, 95 %\n(ms)")
    throughput.set_ylabel("answers completed\n(MB/s, all LBs)")
    throughput.axhline(shape.lbs * LINK / 1e6, color="#1c2833", linewidth=0.8, linestyle="--")
    _name(throughput, shape.lbs * LINK / 1e6, "all links")
    throughput.set_ylim(0, None)
    throughput.set_xlabel("seconds; at the grey lines the groups of users change their sizes")
    for axes in (load, latency, throughput):
        axes.grid(alpha=0.25)
        axes.set_xlim(0, shape.seconds)
        for phase in range(1, PHASES):
            axes.axvline(phase * shape.phase, color="#7f8c8d", linewidth=1.2)
    load.legend(loc="upper left", ncols=3, fontsize=8)
    load.set_title(
        f"{shape.lbs} LBs with {LINK * 8 / 1e6:.0f} Mbit/s each, {EXTERNAL_IPS} external IPs; the same users twice",
        loc="left",
        fontsize=10,
    )
    figure.savefig(file, dpi=110)


def _name(axes: Axes, value: float, text: str) -> None:
    """Beside a horizontal line."""
    axes.text(1.005, value, text, va="center", fontsize=8, transform=axes.get_yaxis_transform())


def _steps(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """In the middle of their bins."""
    return [at + BIN / 2 for at, _ in points], [value for _, value in points]


def _mark_moves(axes: Axes, run: Run) -> None:
    starts = [move.started for move in run.moves]
    if starts:
        axes.plot(
            starts,
            [0.04] * len(starts),
            "^",
            color=COLOURS[run.mode],
            markersize=6,
            label=f"moves ({len(starts)})",
            transform=axes.get_xaxis_transform(),
        )
