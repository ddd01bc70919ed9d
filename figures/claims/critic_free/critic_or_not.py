"""Learning curves at equal samples: an exact critic, a learned one, none at all, and the exact gradient."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import bootstrap, trim_mean

from agents.policies.transformer import Transformer
from agents.recipes.learners import Learner, grpo, ppo, reinforce, rloo, value_gradient
from agents.training.settings import TrainingSettings
from agents.training.tasks import TokenTask
from agents.training.trainer import Trainer
from envs.token_mdp import TokenMDP
from figures.harness.claim import Claim, Part, Preset, Row, compare
from figures.measures.oracles import TokenOracle
from figures.measures.token_systems import at_least, build_policy, build_world

_ROWS = 32  # an update, of every learner
_CURVE = "exact return"
CLIMBS, FREE, CRITIC = "every learner climbs", "critic-free against learned critic", "exact critic against critic-free"
LIMIT, BASELINE = "critic-free reaches the exact gradient", "no baseline does as well"
WITHIN = "no baseline within a fifth, dense reward"
_MARGIN = 0.2  # of what the exact gradient gains: what counts as "as well"
_RATE = 0.005  # the one that is drawn
_SPARSE, _DENSE = "stop (3,3)", "garnet (3,3)"  # where the controls are judged; elsewhere they are reported
# name -> recipe, rows of a group
LEARNERS: dict[str, tuple[Learner, int]] = {
    "exact gradient": (value_gradient(), 1),
    "PPO, exact critic": (ppo(lam=0.0, critic="exact"), 1),
    "PPO, learned critic": (ppo(lam=0.95), 1),
    "RLOO": (rloo(), 4),
    "GRPO": (grpo(), 4),
    "REINFORCE, no baseline": (reinforce(), 1),
}


@dataclass(frozen=True)
class CriticOrNotSetting:
    """One world; every learner from the same `seeds` policies, one pass over the same number of rows an update."""

    world: str
    seeds: int
    steps: int
    rate: float = _RATE
    every: int = 5

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to compare."""
        at_least(8, seeds=self.seeds)
        at_least(self.every, steps=self.steps)


def settings(preset: Preset) -> list[CriticOrNotSetting]:
    """A world of sparse reward and many lengths, one of dense reward; in the full preset several prompts and longer."""
    if preset == "quick":
        return [CriticOrNotSetting(world, 64, 30) for world in (_SPARSE, _DENSE)]
    worlds = (_SPARSE, _DENSE, "copy (2,3)", "arithmetic (3,2)", "parity (2,5)")
    return [CriticOrNotSetting(world, 128, 100, rate) for world in worlds for rate in (0.002, _RATE)]


def measure(setting: CriticOrNotSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Interquartile means over seeds with bootstrap intervals: of the curves, and of paired differences of their means."""
    world = build_world(setting.world)
    first = int(torch.randint(2**31, (1,), generator=rng))
    draws = np.random.default_rng(first)
    curves = {name: _curves(setting, world, *recipe, first) for name, recipe in LEARNERS.items()}
    rows: list[Row] = []
    for name, curve in curves.items():
        for i, numbers in enumerate(curve):
            labels = {"world": setting.world, "rate": setting.rate, "learner": name, "step": i * setting.every,
                      "best": world.optimal_return}  # fmt: skip
            rows += _interquartile(_CURVE, numbers, 0.0, draws, labels, relation="report")
    return rows + _judged(setting, curves, draws)


def _curves(setting: CriticOrNotSetting, world: TokenMDP, learner: Learner, group: int, first: int) -> np.ndarray:
    """Exact return of every seed at every record, (records, seeds)."""
    seeds = [first + i for i in range(setting.seeds)]
    policies, critics = [build_policy(world, seed, spread=1.0) for seed in seeds], None
    if learner.critic == "learned":
        places = world.prompts.shape[1] + world.horizon
        critics = [Transformer(1, world.V, 16, 2, 2, places, seed=seed) for seed in seeds]
    asked = TrainingSettings(
        setting.steps, _ROWS // group, group, rate=setting.rate, critic_rate=setting.rate, every=setting.every
    )
    trainer = Trainer(TokenTask(world), learner, policies, seeds, asked, TokenOracle(world), critics)
    return np.stack([record.J.numpy() for record in trainer.run() if record.step % setting.every == 0])


def _judged(setting: CriticOrNotSetting, curves: dict[str, np.ndarray], draws: np.random.Generator) -> list[Row]:
    """Mean return along the way, as a share of what the exact gradient gains; seeds are pairs, they begin alike."""
    start = curves["RLOO"][0]
    gain = {name: curve.mean(0) - start for name, curve in curves.items()}
    whole = float(gain["exact gradient"].mean())
    share = {name: x / whole for name, x in gain.items()}
    labels = {"world": setting.world, "rate": setting.rate}
    rows: list[Row] = []
    for name, x in share.items():
        rows += _interquartile(CLIMBS, x, 0.0, draws, {**labels, "learner": name}, relation=">=")
    sparse, known = setting.world == _SPARSE, setting.world in (_SPARSE, _DENSE)
    for part, one, other, target, relation in (
        (FREE, "RLOO", "PPO, learned critic", -_MARGIN, ">="),
        (CRITIC, "PPO, exact critic", "RLOO", 0.0 if sparse else -_MARGIN, ">="),
        (LIMIT, "RLOO", "exact gradient", 0.0, "==" if sparse else "report"),
        (BASELINE, "REINFORCE, no baseline", "RLOO", 0.0, "==" if known else "report"),
        (WITHIN, "REINFORCE, no baseline", "RLOO", -_MARGIN, ">=" if setting.world == _DENSE else "report"),
    ):
        difference = share[one] - share[other]
        rows += _interquartile(
            part, difference, target, draws, {**labels, "learner": f"{one} - {other}"}, relation=relation
        )
    return rows


def _interquartile(
    part: str, numbers: np.ndarray, target: float, draws: np.random.Generator, labels: Row, relation: str
) -> list[Row]:
    """Interquartile mean over seeds; its bootstrap standard error, and the 95 % interval for the picture."""
    found = bootstrap((numbers,), lambda x, axis: trim_mean(x, 0.25, axis=axis), n_resamples=2000, rng=draws,
                      method="percentile")  # fmt: skip
    interval = {"low": float(found.confidence_interval.low), "high": float(found.confidence_interval.high)}
    return compare(part, trim_mean(numbers, 0.25), target, found.standard_error, len(numbers), relation=relation,
                   labels={**labels, **interval})  # fmt: skip


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Curves with their 95 % bands, a panel for each world, and the means along the way as shares of the exact gradient's."""
    from figures.drawing.panels import legend_above
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    rows = rows[rows["rate"] == (_RATE if _RATE in set(rows["rate"]) else rows["rate"].iloc[0])]
    curves, worlds = rows[rows["part"] == _CURVE], list(dict.fromkeys(rows["world"]))
    axes = figure.subplots(1, len(worlds) + 1, squeeze=False)[0]
    colours = [COLOURS[key] for key in ("exact", "critic", "score_value", "costate", "score", "control")]
    for axis, world in zip(axes, worlds, strict=False):
        here = curves[curves["world"] == world]
        for i, name in enumerate(LEARNERS):
            one = here[here["learner"] == name]
            line = EXACT if i == 0 else {"color": colours[i], "marker": MARKERS[i], "ms": 4, "lw": 1.3}
            axis.plot(one["step"], one["measured"], label=name, **line)
            axis.fill_between(one["step"], one["low"], one["high"], color=colours[i], alpha=0.15, lw=0)
        axis.axhline(here["best"].iloc[0], color="0.6", lw=0.8, ls=":")
        axis.set(xlabel=f"update ({_ROWS} rows each)", ylabel="exact return J", title=world)
    _shares(axes[-1], rows[rows["part"] == CLIMBS], worlds, colours)
    legend_above(figure, axes[0])


def _shares(axis: Any, rows: pd.DataFrame, worlds: list[str], colours: list[Any]) -> None:
    from figures.drawing.style import EXACT, MARKERS

    for i, name in enumerate(LEARNERS):
        one = rows[rows["learner"] == name].set_index("world").loc[worlds]
        at = [w + 0.12 * (i - 2.5) for w in range(len(worlds))]
        spans = [one["measured"] - one["low"], one["high"] - one["measured"]]
        axis.errorbar(at, one["measured"], spans, fmt=MARKERS[i], color=colours[i], ms=5, capsize=2)
    axis.axhline(1, **EXACT)
    axis.set_xticks(range(len(worlds)), worlds, fontsize=9)
    axis.set(ylabel="mean gain / exact gradient's", title="along the way", ylim=(0, None))


CLAIM = Claim(
    name="critic_or_not",
    statement="At equal samples a critic-free learner does as well as one that learns its critic",
    formula=r"\mathrm{IQM}_{\text{seeds}}\left[\frac{\bar J_{\text{RLOO}}-\bar J_{\text{PPO}}}{\bar J_{\nabla J}-J_0}\right]"
    r" \ge -0.2,\qquad \bar J = \text{mean of } J(\theta_n)\text{ over updates}",
    source="the claim's premise, that critic-free learning needs no critic; the margin, a fifth, is ours",
    assumptions=("A5",),
    must_hold="RLOO within a fifth (of the exact gradient's gain) of PPO with a learned critic; an exact critic (lambda = 0) "
    "ahead of RLOO where the reward is sparse, within a fifth elsewhere; 32 rows an update, one pass, Adam, one rate for all",
    must_fail="RLOO reaches the exact gradient (sparse reward); REINFORCE without a baseline does as RLOO does (it is better "
    "where the reward is sparse and rare, worse where it is dense: by more than a fifth)",
    how_to_read="Interquartile means over seeds of the exact return, bands are 95 % bootstrap intervals; black dashed, ascent "
    "on the exact gradient, dotted the best return there is. Right, the mean return along the way, as a share of what the "
    "exact gradient gains. What a learned critic buys over RLOO is within the intervals; what an exact one buys, and what "
    "leaving the baseline out costs, depends on how sparse the reward is.",
    parts=(
        Part(CLIMBS, "claim", "holds"),
        Part(FREE, "claim", "holds"),
        Part(CRITIC, "claim", "holds"),
        Part(LIMIT, "control", "fails"),
        Part(BASELINE, "control", "fails", every="world"),
        Part(WITHIN, "control", "fails"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
