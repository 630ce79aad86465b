"""The result as one HTML file that needs nothing else: sentence, table, and plots of the probe as inline SVG."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("svg")
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from evaluation.demonstration.report import measures  # noqa: E402
from evaluation.demonstration.results import MoveResult, OrderResult, sentence  # noqa: E402

BIN = 0.01
"""Seconds that one point of the overview stands for: the worst round trip in it."""
CLOSE_UP = (0.15, 0.6)
"""Seconds before and after the beginning of a move that the close-up shows."""
ROUND_TRIPS = (0.1, 3000)
"""Milliseconds: the same for every plot, so that they compare."""
COLOURS = {"transition": "#8e44ad", "copy": "#2471a3", "route": "#b9770e", "normal": "#1e8449", "grace": "#95a5a6"}

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76em; margin: 2em auto; padding: 0 1em; color: #1c2833 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25em .9em; text-align: right }
th:first-child, td:first-child { text-align: left; white-space: pre } tr:nth-child(even) { background: #f4f6f7 }
.result { font-size: 1.15em; border-left: .3em solid; padding-left: .8em }
.yes { border-color: #1e8449 } .no { border-color: #c0392b }
svg { width: 100%; height: auto } dt { font-weight: 600 }
"""


def page(results: Sequence[OrderResult], machine: str) -> str:
    """The HTML text. `machine`: what it ran on, in words."""
    verdict = "yes" if all(result.as_claimed for result in results) else "no"
    orders = "".join(f"<dt>{_text(r.order.name)}</dt><dd>{_text(r.order.explanation)}</dd>" for r in results)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Moving an external IP under load</title>
<style>{STYLE}</style></head><body>
<h1>Moving an external IP under load</h1>
<p class="result {verdict}">{_text(sentence(results))}</p>
<dl>{orders}</dl>
{_table(results)}
<p>Two values in a cell are those of the move there and of the move back. {_text(machine)}</p>
<h2>Round trips of the probe</h2>
<p>A request every millisecond on one TCP connection. Left: the whole time, the worst round trip of each
{BIN * 1000:.0f} ms; red marks are connections that broke. Right: the move there, each answer. Shades are the steps of
the moves.</p>
{_svg(plots(results))}
</body></html>
"""


def _text(text: str) -> str:
    return html.escape(text)


def _table(results: Sequence[OrderResult]) -> str:
    head = "".join(f"<th>{_text(result.order.name)}</th>" for result in results)
    rows = "".join(
        f"<tr><td>{_text(each.name)}</td>{''.join(f'<td>{_text(each.text(result))}</td>' for result in results)}</tr>"
        for each in measures(results)
    )
    return f"<table><tr><th></th>{head}</tr>{rows}</table>"


def plots(results: Sequence[OrderResult]) -> Figure:
    """A row for each order: the whole time, and the first move close up."""
    figure = Figure(figsize=(14, 2.6 * len(results)), facecolor="white")
    grid = figure.subplots(len(results), 2, squeeze=False, width_ratios=(3, 2))
    figure.subplots_adjust(
        left=0.06, right=0.99, top=1 - 0.25 / len(results), bottom=0.2 / len(results), wspace=0.14, hspace=0.4
    )
    for (overview, close_up), result in zip(grid, results, strict=True):
        _overview(overview, result)
        _close_up(close_up, result)
    grid[-1][0].set_xlabel("seconds of traffic")
    grid[-1][1].set_xlabel("milliseconds after the beginning of the move")
    return figure


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _overview(axes: Axes, result: OrderResult) -> None:
    start = result.probe.arrivals[0][0] if result.probe.arrivals else result.began
    worst: dict[int, float] = {}
    for when, trip in result.probe.arrivals:
        place = int((when - start) / BIN)
        worst[place] = max(worst.get(place, 0.0), trip)
    axes.plot(
        [place * BIN for place in worst], [trip * 1000 for trip in worst.values()], linewidth=0.7, color="#1c2833"
    )
    for move in result.moves:
        _shade(axes, move, start, 1.0)
    times = [when - start for when, _ in result.breaks]
    axes.plot(times, [0.95] * len(times), "|", color="#c0392b", markersize=12, transform=axes.get_xaxis_transform())
    _dress(axes, result)


def _close_up(axes: Axes, result: OrderResult) -> None:
    if not result.moves:
        return
    move = result.moves[0]
    begin, end = move.started - CLOSE_UP[0], move.started + CLOSE_UP[1]
    shown = [
        ((when - move.started) * 1000, trip * 1000) for when, trip in result.probe.arrivals if begin <= when <= end
    ]
    axes.plot(*zip(*shown, strict=True) if shown else ((), ()), ".", markersize=2, color="#1c2833")
    _shade(axes, move, move.started, 1000.0)
    axes.set_xlim(-CLOSE_UP[0] * 1000, CLOSE_UP[1] * 1000)
    _dress(axes, result)


def _shade(axes: Axes, move: MoveResult, start: float, scale: float) -> None:
    for step in move.steps:
        begin = (step.started - start) * scale
        colour = COLOURS.get(step.name, "#7f8c8d")
        axes.axvspan(begin, begin + step.seconds * scale, color=colour, alpha=0.25, linewidth=0.4, label=step.name)


def _dress(axes: Axes, result: OrderResult) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*ROUND_TRIPS)
    axes.set_ylabel("round trip, ms")
    axes.set_title(result.order.name, loc="left", fontsize=10, fontweight="bold")
    axes.grid(alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), fontsize=7, loc="lower right", ncols=5)
