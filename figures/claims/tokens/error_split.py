"""The value gradient minus the attention costate is a sum of covariances, to rounding, everywhere in the sweep."""

from typing import Any

import pandas as pd
import torch

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from figures.drawing.panels import gap_panel, legend_above
from figures.harness.claim import Claim, Part
from figures.harness.rows import Row, vanishes
from figures.measures.token_systems import SplitSetting, split_settings, split_world, with_own_world
from theory.tokens.error_split import ErrorSplit, error_split
from theory.tokens.forward_mode import forward_value_gradient, logit_slopes
from theory.tokens.prefix_tree import grow

_ROUNDING = 1e-10  # of the value gradient
_SMALLEST = 1e-14  # of the largest term: where terms cancel, a value gradient has no digits below
_IDENTITY, _ROADS, _INCOMPLETE = "identity", "value gradient by both roads", "without its largest covariance"
_LOOKS = {_IDENTITY: ("costate", "o"), _ROADS: ("score", "s"), _INCOMPLETE: ("control", "^")}


def measure(setting: SplitSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Gaps of the identity, of the value gradient by forward mode, and of the identity without its largest covariance."""
    world, policy = split_world(setting, device)
    split = error_split(world, policy, setting.alpha, setting.site, setting.whole_prompt)
    forward = forward_value_gradient(world, policy, setting.alpha, setting.site, setting.whole_prompt)
    gaps = {_IDENTITY: split.residual, _ROADS: (split.value_gradient - forward).norm(dim=-1)}
    if setting.alpha > 0:  # at alpha = 0 there is no covariance to leave out
        gaps[_INCOMPLETE] = _gap_without_largest(split)
    size = split.value_gradient.norm(dim=-1).clamp(min=1e-300)
    labels = {"world": setting.world, "alpha": setting.alpha, "H": float(split.entropy.mean())}
    rounding = _ROUNDING + torch.zeros_like(size)
    # added to every row it would decide the same; it is computed where it decides at all
    if any(bool((gaps[part] > rounding * size).any()) for part in (_IDENTITY, _ROADS)):
        rounding = rounding + _SMALLEST * _largest_term(world, policy, setting) / size
    rows: list[Row] = []
    for part, gap in gaps.items():
        rows += vanishes(part, gap / size, rounding, labels=labels, axes=("prompt",))
    return rows


def _largest_term(world: TokenMDP, policy: TokenPolicy, setting: SplitSetting) -> float:
    """Largest slope of a logit times largest value of a prefix: what the sums are made of before their terms cancel."""
    slopes = logit_slopes(world, policy, setting.alpha, setting.site, setting.whole_prompt)
    with torch.no_grad():
        values = grow(world, policy, setting.alpha).V
    return max(float(w.norm(dim=-1).max()) for w in slopes) * max(float(V.abs().max()) for V in values)


def _gap_without_largest(split: ErrorSplit) -> torch.Tensor:
    """Gap (prompts,) of the identity whose sum lacks each prompt's largest covariance."""
    largest = split.sampling.norm(dim=-1).argmax(0)
    kept = split.sampling.sum(0) - split.sampling[largest, torch.arange(len(largest), device=largest.device)]
    gap: torch.Tensor = (split.value_gradient - split.attention - kept).norm(dim=-1)
    return gap


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Relative gap of every part against entropy, one panel per alpha."""
    alphas = sorted(rows["alpha"].unique())
    axes = figure.subplots(1, len(alphas), sharey=True, squeeze=False)[0]
    for axis, alpha in zip(axes, alphas, strict=True):
        gap_panel(axis, rows[rows["alpha"] == alpha], "H", _LOOKS, _ROUNDING)
        axis.set(title=f"alpha = {alpha:g}", xlabel="mean entropy (nats)")
    axes[0].set_ylabel("gap / |grad V| (0 shown at 1e-17)")
    legend_above(figure, axes[-1])


CLAIM = Claim(
    name="error_split",
    statement="The attention costate misses the value gradient by a sum of covariances, exactly",
    formula=r"\nabla V_\alpha - \mathbb{E}[E_1] = \sum_{k\ge t}\gamma^{k-t}\,\mathbb{E}"
    r"\,\mathrm{Cov}_{a\sim\pi_k}(w_k(a),Q_k(a))",
    source="our theorem (theory page section 3)",
    assumptions=("A5",),
    must_hold="All token worlds, alpha in [0, 1], temperature and offset knobs",
    must_fail="The identity without the largest of its covariances",
    how_to_read="Each point is one world and policy: the gap between both sides of the identity over the size of the value"
    " gradient, against entropy; blue and yellow must stay under the dashed rounding limit. Orange leaves out "
    "one covariance of the sum: the gap is then plain to see.",
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
