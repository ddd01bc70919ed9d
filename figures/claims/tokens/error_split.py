"""The value gradient minus the attention costate is a sum of covariances, to rounding, everywhere in the sweep."""

from typing import Any

import pandas as pd
import torch

from figures.harness.claim import Claim, Part, Row, compare
from figures.measures.token_systems import SplitSetting, split_settings, split_world
from theory.tokens.error_split import error_split
from theory.tokens.forward_mode import forward_value_gradient

_ROUNDING = 1e-10
_ROBBED = "without its largest covariance"


def measure(setting: SplitSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Residual of the identity, the value gradient by forward mode, and the identity robbed of its last term."""
    world, policy = split_world(setting)
    split = error_split(world, policy, setting.alpha, setting.site, setting.whole_prompt)
    other = forward_value_gradient(world, policy, setting.alpha, setting.site, setting.whole_prompt)
    size = split.value_gradient.norm(dim=-1).clamp(min=1e-300)
    gaps = {
        "identity": split.residual,
        "value gradient by both roads": (split.value_gradient - other).norm(dim=-1),
    }
    if setting.alpha > 0:
        largest = split.sampling.norm(dim=-1).argmax(0)
        kept = split.sampling.sum(0) - split.sampling[largest, torch.arange(len(largest))]
        gaps[_ROBBED] = (split.value_gradient - split.attention - kept).norm(dim=-1)
    rows: list[Row] = []
    for part, gap in gaps.items():
        rows += compare(part, gap / size, 0.0, tolerance=_ROUNDING, axes=("prompt",),
                        labels={"world": setting.world, "alpha": setting.alpha, "H": float(split.entropy.mean())})  # fmt: skip
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Relative gap of every part against entropy, one panel per alpha."""
    from figures.drawing.panels import legend_above
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    alphas = sorted(rows["alpha"].unique())
    axes = figure.subplots(1, len(alphas), sharey=True, squeeze=False)[0]
    for axis, alpha in zip(axes, alphas, strict=True):
        for marker, colour, part in zip(MARKERS, ("costate", "score", "control"), CLAIM.parts, strict=False):
            group = rows[(rows["part"] == part) & (rows["alpha"] == alpha)]
            axis.plot(
                group["H"],
                group["measured"].clip(lower=1e-17),
                marker,
                color=COLOURS[colour],
                ms=5,
                alpha=0.6,
                label=part,
            )
        axis.axhline(_ROUNDING, label="rounding limit", **EXACT)
        axis.set(title=f"alpha = {alpha:g}", xlabel="mean entropy (nats)", yscale="log")
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
        Part("identity", "claim", "holds"),
        Part("value gradient by both roads", "claim", "holds"),
        Part(_ROBBED, "control", "fails", every="world"),
    ),
    settings=split_settings,
    measure=measure,
    draw=draw,
)
