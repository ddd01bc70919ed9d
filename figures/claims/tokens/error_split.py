"""The value gradient minus the attention costate is a sum of covariances, to rounding, everywhere in the sweep."""

from typing import Any

import pandas as pd
import torch

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from figures.drawing.entries import Mark, entries_panel, first_of, same_heights
from figures.drawing.panels import gap_panel, legend_above, with_columns
from figures.harness.claim import Claim, Part
from figures.harness.rows import Row, report, vanishes
from figures.measures.token_systems import SplitSetting, split_settings, split_world, with_own_world
from theory.tokens.error_split import ErrorSplit, error_split
from theory.tokens.forward_mode import forward_value_gradient, logit_slopes
from theory.tokens.prefix_tree import grow

_ROUNDING = 1e-10  # of the value gradient
_SMALLEST = 1e-14  # of the largest term: where terms cancel, a value gradient has no digits below
_IDENTITY, _ROADS, _INCOMPLETE = "identity", "value gradient by both roads", "without its largest covariance"
_SHOWN, _ALONE = "components at one prompt", "attention costate E1 alone"
_MARKS = {
    _ALONE: Mark("attention", "D", _ALONE, 8, open=True),
    _INCOMPLETE: Mark("control", "^", "E1 + all covariances but the largest", 5),
    _IDENTITY: Mark("costate", "o", "E1 + covariances", 6),
}
_POLICY = ("temperature", "offset", "seed", "site", "whole_prompt")
_LOOKS = {_IDENTITY: ("costate", "o"), _ROADS: ("costate", "s"), _INCOMPLETE: ("control", "^")}
_NAMES = {_IDENTITY: _MARKS[_IDENTITY].name, _ROADS: "grad V, two roads", _INCOMPLETE: _MARKS[_INCOMPLETE].name}


def measure(setting: SplitSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Gaps of the identity, of the value gradient by forward mode, and of the identity without its largest covariance."""
    world, policy = split_world(setting, device)
    split = error_split(world, policy, setting.alpha, setting.site, setting.whole_prompt)
    forward = forward_value_gradient(world, policy, setting.alpha, setting.site, setting.whole_prompt)
    gaps = {_IDENTITY: split.residual, _ROADS: (split.value_gradient - forward).norm(dim=-1)}
    sums = {_IDENTITY: split.attention + split.sampling.sum(0), _ALONE: split.attention}
    if setting.alpha > 0:  # at alpha = 0 there is no covariance to leave out
        kept = _without_largest(split)
        sums[_INCOMPLETE] = split.attention + kept
        gaps[_INCOMPLETE] = (split.value_gradient - split.attention - kept).norm(dim=-1)
    size = split.value_gradient.norm(dim=-1).clamp(min=1e-300)
    labels = {"world": setting.world, "alpha": setting.alpha, "H": float(split.entropy.mean())}
    rounding = _ROUNDING + torch.zeros_like(size)
    # added to every row it would decide the same; it is computed where it decides at all
    if any(bool((gaps[part] > rounding * size).any()) for part in (_IDENTITY, _ROADS)):
        rounding = rounding + _SMALLEST * _largest_term(world, policy, setting) / size
    rows: list[Row] = []
    for part, gap in gaps.items():
        rows += vanishes(part, gap / size, rounding, labels=labels, axes=("prompt",))
    x = int(size.argmax())
    for kind, g in sums.items():
        rows += report(_SHOWN, g[x], forward[x], labels={**labels, "prompt": x, "shown": kind}, axes=("component",))
    return rows


def _largest_term(world: TokenMDP, policy: TokenPolicy, setting: SplitSetting) -> float:
    """Largest slope of a logit times largest value of a prefix: what the sums are made of before their terms cancel."""
    slopes = logit_slopes(world, policy, setting.alpha, setting.site, setting.whole_prompt)
    with torch.no_grad():
        values = grow(world, policy, setting.alpha).V
    return max(float(w.norm(dim=-1).max()) for w in slopes) * max(float(V.abs().max()) for V in values)


def _without_largest(split: ErrorSplit) -> torch.Tensor:
    """Sum (prompts, D) of the covariances without each prompt's largest."""
    largest = split.sampling.norm(dim=-1).argmax(0)
    left_out: torch.Tensor = split.sampling[largest, torch.arange(len(largest), device=largest.device)]
    return split.sampling.sum(0) - left_out


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Components of the value gradient and of both sides of the split, for three alphas; gaps of all worlds by alpha."""
    rows = with_columns(rows, "shown", "component", "H")
    alphas = sorted(rows["alpha"].unique())
    few = sorted({alphas[0], alphas[len(alphas) // 2], alphas[-1]})
    *shown, right = figure.subplots(1, len(few) + 1, squeeze=False)[0]
    one = first_of(rows[rows["part"] == _SHOWN], "world", *_POLICY)
    for axis, alpha in zip(shown, few, strict=True):
        entries_panel(axis, one[one["alpha"] == alpha], "component", _MARKS, "exact grad V")
        axis.set(title=f"alpha = {alpha:g}", xlabel="components, sorted")
    same_heights(shown)
    shown[0].set_ylabel("value gradient, and its parts")
    gap_panel(right, rows.assign(alpha=rows["alpha"].map("{:g}".format)), "alpha", _LOOKS, _ROUNDING, names=_NAMES)
    right.set(title="every world and policy", xlabel="alpha", ylabel="gap / |grad V|")
    legend_above(figure, *shown[::-1], right)


CLAIM = Claim(
    name="error_split",
    statement="The attention costate misses the value gradient by a sum of covariances, exactly",
    formula=r"\nabla V_\alpha - \mathbb{E}[E_1] = \sum_{k\ge t}\gamma^{k-t}\,\mathbb{E}"
    r"\,\mathrm{Cov}_{a\sim\pi_k}(w_k(a),Q_k(a))",
    source="our theorem (theory page section 3)",
    assumptions=("A5",),
    must_hold="All token worlds, alpha in [0, 1], temperature and offset knobs",
    must_fail="The identity without the largest of its covariances",
    how_to_read="The value gradient at a prompt of one world, component by component (dashed). The attention costate alone "
    "(green) is it at alpha = 0 and, with a reward for tokens, 0 at alpha = 1; with the covariances of all steps "
    "(blue) it is the value gradient at every alpha, without the largest of them (orange) it is not. Last, the gap in "
    "every world: blue must stay under the dashed rounding limit.",
    parts=(
        Part(_IDENTITY, "claim", "holds"),
        Part(_ROADS, "claim", "holds"),
        Part(_INCOMPLETE, "control", "fails", every="world"),
    ),
    settings=split_settings,
    own_settings=with_own_world(split_settings),
    own_kind="tokens",
    measure=measure,
    draw=draw,
)
