"""Does entropy control the error of the attention costate? It depends on the knob that lowers the entropy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from envs.token_mdp import TokenMDP
from figures.drawing.panels import corner_text, legend_above
from figures.drawing.style import COLOURS, EXACT
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, at_most, report
from figures.harness.statistics import estimate
from figures.measures.token_systems import build_policy, build_world
from theory.tokens.error_split import error_split

_WORLDS = ("garnet", "lock", "arithmetic", "distractor")
_KNOBS = {"temperature": np.geomspace(0.1, 10, 7), "offset": np.linspace(0, 10, 7)}
_LOOKS = {"temperature": ("control", 0.04), "offset": ("costate", 0.10)}  # knob -> colour, height of its text
_BOUND, _SWEEP, _RANK = "the bound is kept", "sweep", "rank correlation with "
_NOTHING = 1e-12  # errors below this are rounding and count as equal
_VISIBLE = 1e-8  # smaller errors are not drawn


@dataclass(frozen=True)
class EntropyKnobsSetting:
    """One knob, swept for several random policies in every world."""

    knob: str
    seeds: int


def settings(preset: Preset) -> list[EntropyKnobsSetting]:
    """Both knobs, in the tiny preset one."""
    knobs = ("offset",) if preset == "tiny" else tuple(_KNOBS)
    return [EntropyKnobsSetting(knob, {"tiny": 1, "quick": 4, "full": 80}[preset]) for knob in knobs]


def measure(setting: EntropyKnobsSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Largest rise of ln error along each sweep of falling entropy, exact; the bound; rank correlations, reported."""
    ranks: list[list[float]] = []
    rows: list[Row] = []
    for name in _WORLDS:
        world = build_world(name).to(device)
        for seed in range(setting.seeds):
            error, H, bound = _sweep(world, seed, setting.knob)
            labels = {"knob": setting.knob, "world": name, "seed": seed}
            rise = np.diff(np.log(np.maximum(error, _NOTHING))).max()
            rows += at_most(f"{setting.knob}: the error never rises", rise, 0.0, tolerance=1e-6, labels=labels)
            rows += at_most(_BOUND, error, bound, tolerance=1e-12, labels=labels)
            for e, h, b in zip(error, H, bound, strict=True):
                rows += report(_SWEEP, e, b, labels={**labels, "H": float(h)})
            ranks.append([spearmanr(H, error)[0], spearmanr(bound, error)[0]])
    mean = estimate(np.array(ranks))
    for i, quantity in enumerate(("entropy", "bound")):
        rows += report(_RANK + quantity, mean[i], 1.0, labels={"knob": setting.knob})
    return rows


def _sweep(world: TokenMDP, seed: int, knob: str) -> np.ndarray:
    """(error, entropy, bound of tier 2) at every value of the knob, entropy falling: means over the prompts at alpha = 1."""
    points = []
    for value in _KNOBS[knob]:
        split = error_split(world, build_policy(world, seed, **{knob: float(value)}), 1.0, "layer1")
        points.append((float(split.error.mean()), float(split.entropy.mean()), float(split.tiers[2].mean())))
    return np.array(sorted(points, key=lambda point: -point[1])).T


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Error against entropy and against the bound, both knobs, every world and seed."""
    left, right = figure.subplots(1, 2, sharey=True)
    sweep = rows[rows["part"] == _SWEEP]
    for knob in _LOOKS:
        ranks = rows[(rows["knob"] == knob) & rows["part"].str.startswith(_RANK)].set_index("part")["measured"]
        visible = sweep[(sweep["knob"] == knob) & (sweep["measured"] > _VISIBLE)]
        if not visible.empty:
            _draw_knob(left, visible, "H", f"{knob}: rank corr. {ranks[_RANK + 'entropy']:.2f}")
            _draw_knob(right, visible, "target", f"{knob}: rank corr. {ranks[_RANK + 'bound']:.2f}")
            left.plot([], [], "o-", color=COLOURS[_LOOKS[knob][0]], label=f"entropy lowered by {knob}")
    ends = [sweep["target"].clip(lower=_VISIBLE).min(), sweep["target"].max()]
    right.plot(ends, ends, label="error = bound (exact limit)", **EXACT)
    left.set(xscale="log", yscale="log", xlabel="mean entropy (nats)", ylabel="|grad V - E1|", xlim=(1e-3, 2))
    right.set(xscale="log", xlabel="sum E[ D_w osc(Q) min(1/4, G/2) ]")
    legend_above(figure, left, right)


def _draw_knob(axis: Any, rows: pd.DataFrame, x: str, text: str) -> None:
    """One line per policy, and in the corner `text` with the spread of the points."""
    name, height = _LOOKS[rows["knob"].iloc[0]]
    for _, line in rows.groupby(["world", "seed"]):
        axis.plot(line[x], line["measured"], "o-", color=COLOURS[name], ms=3, lw=0.7, alpha=0.45)
    spread = _spread(rows[x].to_numpy(), rows["measured"].to_numpy())
    corner_text(axis, f"{text}, spread {spread:.2f}", height, color=COLOURS[name])


def _spread(x: np.ndarray, error: np.ndarray) -> float:
    """Standard deviation of ln error about a straight line in ln x: 0 where all points lie on one line."""
    keep = (error > _VISIBLE) & (x > _VISIBLE)
    u, v = np.log(x[keep]), np.log(error[keep])
    return float(np.std(v - np.polyval(np.polyfit(u, v, 1), u)))


CLAIM = Claim(
    name="entropy_knobs",
    statement="Entropy controls the attention costate's error: lowering it never raises the error",
    formula=r"H(\pi') < H(\pi) \;\Rightarrow\; \|\nabla V_{\pi'} - \mathbb{E}[E_1]\| \le \|\nabla V_{\pi} - \mathbb{E}[E_1]\|",
    source="arXiv:2605.21654: error controlled by the sampling gap and policy entropy",
    assumptions=("A5",),
    must_hold="For both knobs the bound D_w osc(Q) min(1/4, G/2) is kept, and ranks the error far better than entropy "
    "does",
    must_fail="Entropy lowered by temperature (d logits / d state grows like 1/tau), and also by an offset on one "
    "token's logit",
    how_to_read="Each line is one random policy whose entropy is lowered from right to left, all numbers exact: for both "
    "knobs many lines rise before they fall. Against the bound (right) they follow the dashed limit; printed "
    "are the mean rank correlation and the spread of ln error about one line.",
    parts=(
        Part("temperature: the error never rises", "claim", "fails"),
        Part("offset: the error never rises", "claim", "fails"),
        Part(_BOUND, "control", "holds"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
