"""Learning curves at equal samples: an exact critic, a learned one, none at all, and the exact gradient."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from agents.recipes.learners import Learner, grpo, ppo, reinforce, rloo, value_gradient
from agents.training.settings import TrainingSettings
from figures.drawing.learning_curves import curves_panel, shares_panel
from figures.drawing.panels import legend_above, value_of
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, at_least, equals, report
from figures.measures.learning_curves import exact_returns, interquartile, starting_policies
from figures.measures.token_systems import at_least as require
from figures.measures.token_systems import build_world

_CURVE = "exact return"
CLIMBS, FREE, CRITIC = "every learner climbs", "critic-free against learned critic", "exact critic against critic-free"
LIMIT, BASELINE = "critic-free reaches the exact gradient", "no baseline does as well"
WITHIN = "no baseline within a fifth, dense reward"
_MARGIN = 0.2  # of what the exact gradient gains: what counts as "as well"
_RATE = 0.005  # the one that is drawn
_SPARSE, _DENSE = "stop (3,3)", "garnet (3,3)"  # where the controls are judged; elsewhere they are reported
_WORLDS = (_SPARSE, _DENSE, "copy (2,3)", "arithmetic (3,2)", "parity (2,5)")
_EXACT, _EXACT_CRITIC, _LEARNED_CRITIC = "exact gradient", "PPO, exact critic", "PPO, learned critic"
_RLOO, _GRPO, _PLAIN = "RLOO", "GRPO", "REINFORCE, no baseline"
LEARNERS: dict[str, tuple[Learner, int]] = {  # name -> recipe, rows of a group
    _EXACT: (value_gradient(), 1),
    _EXACT_CRITIC: (ppo(lam=0.0, critic="exact"), 1),
    _LEARNED_CRITIC: (ppo(lam=0.95), 1),
    _RLOO: (rloo(), 4),
    _GRPO: (grpo(), 4),
    _PLAIN: (reinforce(), 1),
}
_LOOKS = dict(zip(LEARNERS, ("exact", "critic", "score_value", "costate", "score", "control"), strict=True))


@dataclass(frozen=True)
class CriticOrNotSetting:
    """One world; every learner starts from the same `seeds` policies and takes one pass over `rows` in each update."""

    world: str
    seeds: int
    steps: int
    rate: float = _RATE
    every: int = 5
    rows: int = knob(32)

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to compare, and less than a group."""
        require(8, seeds=self.seeds)
        require(self.every, steps=self.steps)
        require(4, rows=self.rows)


def settings(preset: Preset) -> list[CriticOrNotSetting]:
    """A world of sparse reward and many lengths, one of dense reward; in the full preset several prompts and longer."""
    if preset == "full":
        return [CriticOrNotSetting(world, 128, 100, rate) for world in _WORLDS for rate in (0.002, _RATE)]
    seeds, steps, every = (8, 1, 1) if preset == "tiny" else (64, 30, 5)
    return [CriticOrNotSetting(world, seeds, steps, every=every) for world in (_SPARSE, _DENSE)]


def measure(setting: CriticOrNotSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Interquartile means over seeds with bootstrap intervals: of the curves, and of paired differences of their means."""
    world = build_world(setting.world).to(device)
    first = int(torch.randint(2**31, (1,), generator=rng))
    draws, seeds = np.random.default_rng(first), [first + i for i in range(setting.seeds)]
    policies, curves = starting_policies(world, seeds), {}
    for name, (learner, group) in LEARNERS.items():
        prompts, rate = setting.rows // group, setting.rate
        training = TrainingSettings(setting.steps, prompts, group, rate=rate, critic_rate=rate, every=setting.every)
        curves[name] = exact_returns(world, learner, training, seeds, policies)
    labels = {"world": setting.world, "rate": setting.rate, "rows": setting.rows}
    rows: list[Row] = []
    for name, curve in curves.items():
        for i, returns in enumerate(curve):
            mean, interval = interquartile(returns, draws)
            at = {"learner": name, "step": i * setting.every, "best": world.optimal_return}
            rows += report(_CURVE, mean, labels=labels | at | interval)
    return rows + _judged(curves, draws, labels)


def _judged(curves: dict[str, np.ndarray], draws: np.random.Generator, labels: dict[str, Any]) -> list[Row]:
    """Mean return along the way, as a share of what the exact gradient gains; seeds are pairs, they begin alike."""
    gain = {name: curve.mean(0) - curves[_RLOO][0] for name, curve in curves.items()}
    whole = float(gain[_EXACT].mean())
    share = {name: x / whole for name, x in gain.items()}
    rows: list[Row] = []
    for name, x in share.items():
        mean, interval = interquartile(x, draws)
        rows += at_least(CLIMBS, mean, 0.0, labels=labels | {"learner": name} | interval)
    sparse, dense = (labels["world"] == world for world in (_SPARSE, _DENSE))
    for part, one, other, make in (
        (FREE, _RLOO, _LEARNED_CRITIC, partial(at_least, bound=-_MARGIN)),
        (CRITIC, _EXACT_CRITIC, _RLOO, partial(at_least, bound=0.0 if sparse else -_MARGIN)),
        (LIMIT, _RLOO, _EXACT, partial(equals, target=0.0, judged=sparse)),
        (BASELINE, _PLAIN, _RLOO, partial(equals, target=0.0, judged=sparse or dense)),
        (WITHIN, _PLAIN, _RLOO, partial(at_least, bound=-_MARGIN, judged=dense)),
    ):
        mean, interval = interquartile(share[one] - share[other], draws)
        rows += make(part, mean, labels=labels | {"learner": f"{one} - {other}"} | interval)
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Curves with their 95 % bands, a panel for each world, and the means along the way as shares of the exact gradient's."""
    rows = rows[rows["rate"] == (_RATE if _RATE in set(rows["rate"]) else rows["rate"].iloc[0])]
    curves, worlds = rows[rows["part"] == _CURVE], list(dict.fromkeys(rows["world"]))
    axes = figure.subplots(1, len(worlds) + 1, squeeze=False)[0]
    for axis, world in zip(axes, worlds, strict=False):
        curves_panel(axis, curves[curves["world"] == world], _LOOKS)
        axis.set(xlabel=f"update ({value_of(rows, 'rows', 32)} rows each)", title=world)
    shares_panel(axes[-1], rows[rows["part"] == CLIMBS], worlds, _LOOKS)
    legend_above(figure, axes[0])


CLAIM = Claim(
    name="critic_or_not",
    statement="At equal samples a critic-free learner does as well as one that learns its critic",
    formula=r"\mathrm{IQM}_{\text{seeds}}\left[\frac{\bar J_{\text{RLOO}}-\bar J_{\text{PPO}}}{\bar J_{\nabla J}-J_0}\right]"
    r" \ge -0.2,\qquad \bar J = \text{mean of } J(\theta_n)\text{ over updates}",
    source="the claim's premise, that critic-free learning needs no critic; the margin, a fifth, is ours",
    assumptions=("A5",),
    must_hold="RLOO within a fifth (of the exact gradient's gain) of PPO with a learned critic; an exact critic (lambda = 0) "
    "ahead of RLOO where the reward is sparse, within a fifth elsewhere; 32 rows in each update, one pass, Adam, one rate",
    must_fail="RLOO reaches the exact gradient (sparse reward); REINFORCE without a baseline does as RLOO does (it is better "
    "where the reward is sparse and rare, worse where it is dense: by more than a fifth)",
    how_to_read="Interquartile means over seeds of the exact return, bands are 95 % bootstrap intervals; black dashed, ascent "
    "on the exact gradient, dotted the best return there is. Right, the mean return along the way, as a share of what the "
    "exact gradient gains. What a learned critic buys over RLOO is within the intervals; what an exact one buys, and what "
    "leaving the baseline out costs, depends on how sparse the reward is.",
    parts=(
        *(Part(name, "claim", "holds") for name in (CLIMBS, FREE, CRITIC)),
        Part(LIMIT, "control", "fails"),
        Part(BASELINE, "control", "fails", every="world"),
        Part(WITHIN, "control", "fails"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
