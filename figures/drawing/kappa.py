"""Kappa, the factor of a critic-free update: measured against its closed form, by success probability, by group size."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from figures.drawing.panels import gap_panel, legend_above, no_rows, with_columns
from figures.drawing.style import COLOURS, EXACT, MARKERS
from theory.groups.binary_rewards import arcsine, grpo_kappa, grpo_objective

_LEAST_P = 1e-5  # prompts with a smaller success probability are left out
_ONE_LENGTH = ["DAPO", "GSPO", "CISPO"]  # drawn as one
_GROUPS = ("costate", "score", "score_value", "score_best")


def draw_kappas(
    figure: Any, scales: pd.DataFrame, rows: pd.DataFrame, gaps: Mapping[str, tuple[str, str]], limit: float
) -> None:
    """Measured scales against kappa; deviations against entropy; GRPO's kappa against P.

    Args:
        figure: where to draw.
        scales: rows with a measured scale and its kappa as the target, one for each prompt and recipe.
        rows: rows with deviations and the column H.
        gaps: part -> (name of a colour, marker) of the deviations.
        limit: of their rounding.
    """
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
    scales = with_columns(scales, "P", "recipe", "G")
    scales = scales[scales["P"] > _LEAST_P]
    scale_panel(left, scales, limit)
    gap_panel(middle, rows, "H", gaps, limit, size=4)
    middle.set(
        xlabel="entropy at the prompt (nats)", ylabel="largest deviation, relative", title=_told(rows, gaps, limit)
    )
    kappa_panel(right, scales[scales["recipe"] == "GRPO"])
    legend_above(figure, left, middle)


def _told(rows: pd.DataFrame, parts: Iterable[str], limit: float) -> str:
    """How many deviations of the first part stay under the limit, and how many of the controls."""
    first, *controls = (rows.loc[rows["part"] == part, "measured"] for part in parts)
    told = [f"under the limit: {int((first <= limit).sum())}/{len(first)}"]
    return ",\n".join(told + [f"control {int((own <= limit).sum())}/{len(own)}" for own in controls])


def scale_panel(axis: Any, scales: pd.DataFrame, limit: float) -> Any:
    """Measured scale of every prompt (dots) on its kappa in closed form (black strokes), a line for every recipe.

    Args:
        axis: where to draw.
        scales: rows with a measured scale and its kappa as the target.
        limit: of rounding, relative; the title counts the scales within it.
    """
    if scales.empty:
        return no_rows(axis, "every recipe")
    one_length = scales["recipe"].isin(_ONE_LENGTH)
    names = scales["recipe"].where(~one_length, ", ".join(x for x in _ONE_LENGTH if x in set(scales["recipe"])))
    order = list(dict.fromkeys(names))[::-1]
    at = [order.index(name) for name in names]
    axis.plot(scales["target"], at, "|", color=COLOURS["exact"], ms=15, mew=1.2, label="kappa, closed form")
    axis.plot(scales["measured"], at, "o", color=COLOURS["costate"], ms=5, label="measured scale")
    on_it = (scales["measured"] - scales["target"]).abs() <= limit * scales["target"].abs()
    axis.set(xlabel="update / value gradient", title=f"on kappa: {int(on_it.sum())} of {len(scales)} scales")
    axis.set_yticks(range(len(order)), order, fontsize="x-small")
    axis.set_ylim(-0.7, len(order) - 0.3)
    return axis


def kappa_panel(axis: Any, scales: pd.DataFrame) -> Any:
    """GRPO's kappa over P: a curve for each group size, the measured points, the limit dashed."""
    if scales.empty:
        return no_rows(axis, "GRPO with std")
    P = torch.linspace(-12, 9, 200, dtype=torch.float64).sigmoid()
    for i, (G, group) in enumerate(scales.groupby("G")):
        colour = COLOURS["costate"]
        axis.plot(P, grpo_kappa(P, int(G)), color=colour, lw=1)
        axis.plot(group["P"], group["measured"], MARKERS[i], color=colour, ms=5)
        axis.text(P[3], 1.06 * (G - 1) ** 0.5, f"G = {int(G)}", color=colour, fontsize="small")
    axis.plot(P, (P * (1 - P)).rsqrt(), **EXACT)
    _kappa_axes(axis, ("1e-5", "0.001", "0.1", "0.5", "0.9", "0.999"), (1, 2, 4, 8), 12, fontsize="small")
    axis.set(ylabel="kappa", title=f"GRPO: kappa {scales['measured'].min():.2g} to {scales['measured'].max():.2g}")
    return axis


def draw_objectives(figure: Any, cosines: pd.DataFrame) -> None:
    """The objective that GRPO ascends at several group sizes; its slope; the cosines of its update by group size."""
    left, middle, right = figure.subplots(1, 3)
    P = torch.linspace(-9, 9, 300, dtype=torch.float64).sigmoid()
    objective_panels(left, middle, P, (2, 4, 16, 64))
    cosine_panel(right, cosines)
    legend_above(figure, left, right)


def objective_panels(left: Any, right: Any, P: Tensor, groups: Iterable[int]) -> None:
    """F_G(P) on the left axis and its slope c_G(P) on the right, a curve for each group size, the limits dashed."""
    for G, name in zip(groups, _GROUPS, strict=True):
        left.plot(P, grpo_objective(P, G), color=COLOURS[name], label=f"G = {G}")
        right.plot(P, grpo_kappa(P, G), color=COLOURS[name])
    left.plot(P, arcsine(P), label="2 arcsin sqrt P", **EXACT)
    right.plot(P, (P * (1 - P)).rsqrt(), **EXACT)
    left.set(xlabel="success probability P", ylabel="F_G(P)", title="what is climbed")
    _kappa_axes(right, ("0.001", "0.1", "0.5", "0.9", "0.999"), (1, 2, 4, 8, 16), 20)
    right.set(ylabel="c_G(P)", title="a prompt's weight")


def cosine_panel(axis: Any, cosines: pd.DataFrame) -> Any:
    """Median and range over policies of the update's cosines to the gradients named in the column "of", by group size."""
    cosines = with_columns(cosines, "of")
    if cosines.empty:
        return no_rows(axis, "where the update points")
    for i, (target, colour) in enumerate((("J", "critic"), ("2 arcsin sqrt P", "reference"))):
        of_G = cosines[cosines["of"] == target].groupby("G")["measured"]
        median = of_G.median()
        spans = [(median - of_G.min()).clip(lower=0), (of_G.max() - median).clip(lower=0)]  # cosines of 1 to rounding
        look: dict[str, Any] = {"fmt": MARKERS[4 + i], "ms": 6, "capsize": 2, "color": COLOURS[colour]}
        axis.errorbar(median.index * 1.06 ** (2 * i - 1), median, spans, label=f"cosine to grad {target}", **look)
    axis.axhline(1, **EXACT)
    axis.set(xscale="log", xlabel="group size G", ylabel="cosine (median, range)", title="where the update points")
    axis.set(ylim=(None, 1.02))
    _ticks(axis.xaxis, ("2", "8", "32", "128", "512"))
    axis.minorticks_off()
    return axis


def _kappa_axes(axis: Any, P: tuple[str, ...], kappa: tuple[int, ...], top: float, **text: Any) -> None:
    """P on a logit scale against kappa on a log scale, with plain numbers at the ticks."""
    axis.set(xscale="logit", yscale="log", ylim=(0.8, top), xlabel="success probability P")
    _ticks(axis.xaxis, P, **text)
    _ticks(axis.yaxis, tuple(map(str, kappa)))
    axis.minorticks_off()


def _ticks(axis: Any, numbers: tuple[str, ...], **text: Any) -> None:
    axis.set_ticks([float(number) for number in numbers], numbers, **text)
