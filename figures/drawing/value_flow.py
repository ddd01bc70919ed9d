"""The drawing of the claim about value-gradient flow: two distances against time, and the efficiency against the divergence."""

from typing import Any

import pandas as pd

from figures.drawing.panels import legend_above, no_rows
from figures.drawing.style import COLOURS, EXACT, MARKERS
from figures.measures.flow_laws import DISTANCE, DIVERGENCE, EXACT_DISTANCE, EXACT_DIVERGENCE
from figures.measures.flow_prompts import EFFICIENCY, LIMIT

_LOOKS = {
    DISTANCE: ("costate", EXACT_DISTANCE, "W2 from the reference, over its bound"),
    DIVERGENCE: ("control", EXACT_DIVERGENCE, "KL from the reference (nats)"),
}
_WORLDS = ("score", "score_value", "critic", "costate", "control")


def draw_value_flow(figure: Any, rows: pd.DataFrame) -> None:
    """Two panels.

    Args:
        figure: where to draw.
        rows: of the claim, those that are reported among them.
    """
    left, right = figure.subplots(1, 2)
    _draw_distances(left, rows[rows["part"].isin([*_LOOKS, EXACT_DISTANCE, EXACT_DIVERGENCE])])
    _draw_efficiency(right, rows[rows["part"] == EFFICIENCY], rows[rows["part"] == LIMIT])
    legend_above(figure, left, right)


def _draw_distances(axis: Any, rows: pd.DataFrame) -> None:
    """One marker for each system."""
    if rows.empty:
        no_rows(axis)
        return
    rows = rows[rows["seed"] == rows["seed"].min()]
    for i, system in enumerate(dict.fromkeys(rows["system"])):
        of_system = rows[rows["system"] == system]
        for part, (colour, exact, _) in _LOOKS.items():
            marks, curve = of_system[of_system["part"] == part], of_system[of_system["part"] == exact].sort_values("t")
            axis.plot(curve["t"], curve["measured"], **EXACT, zorder=2)
            axis.plot(marks["t"], marks["measured"], MARKERS[i % len(MARKERS)], color=COLOURS[colour], ms=7, zorder=3)
        axis.plot([], [], MARKERS[i % len(MARKERS)], color="0.4", label=system)
    for colour, _, name in _LOOKS.values():
        axis.plot([], [], "-", lw=4, color=COLOURS[colour], label=name)
    axis.plot([], [], label="exact", **EXACT)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="time of the flow",
        ylabel="distance from the reference",
        title="the budget bounds W2, not KL",
    )


def _draw_efficiency(axis: Any, rows: pd.DataFrame, limits: pd.DataFrame) -> None:
    """A line for each world, at its first prompt and seed, from the formula for small steps on."""
    if rows.empty:
        no_rows(axis)
        return
    rows, limits = (x[(x["seed"] == x["seed"].min()) & (x["prompt"] == 0)] for x in (rows, limits))
    for i, world in enumerate(dict.fromkeys(rows["system"])):
        own, colour = rows[rows["system"] == world].sort_values("kl"), COLOURS[_WORLDS[i % len(_WORLDS)]]
        axis.plot(own["kl"], own["measured"], "-", marker=MARKERS[i % len(MARKERS)], color=colour, ms=5, label=world)
        for limit in limits[limits["system"] == world]["measured"]:
            axis.axhline(limit, **EXACT, zorder=1)
    axis.axhline(1.0, color="0.2", lw=1.5)
    axis.text(
        0.98,
        1.01,
        "KL-regularised optimum",
        transform=axis.get_yaxis_transform(),
        ha="right",
        va="bottom",
        fontsize="small",
    )
    first = limits["measured"]
    span = f"{100 * first.min():.0f} to {100 * first.max():.0f} %" if len(first) > 1 else f"{100 * first.max():.0f} %"
    axis.set(xlabel="KL from the policy (nats)", ylabel="gain / largest gain at this KL", ylim=(0, 1.12))
    axis.set_title(f"small steps: {span} of the headroom" if len(first) else "tokens")
