"""GAE(lambda) and VGL(lambda) with a wrong critic: one mean, two spreads; and what the critic's error does to tokens."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from agents.policies.prefix_table import PrefixTable
from figures.drawing.wrong_critics import draw_wrong_critics
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, equals, report, vanishes
from figures.measures.token_systems import build_world
from figures.measures.wrong_critics import (
    EXACT_CRITIC,
    NOISY,
    SHORT_SYSTEMS,
    TIME,
    both_gradients,
    scaled_critic,
    short_system,
    wrong_critic_update,
)
from theory.continuous.lambda_gradient import lambda_gradient
from theory.continuous.lq_gradients import policy_gradient

GAE, VGL, POLYNOMIAL = "GAE = closed form", "VGL = closed form", "tokens: bias = polynomial in lambda"
RIGHT, ONE_LENGTH = "no bias: exact critic, or lambda = 1", "error of time alone, one length: no bias"
UNBIASED, END_TOKEN = "wrong critic, lambda < 1: no bias", "error of time alone, end token: no bias"
UNIFORM = "uniform noise: GAE = VGL"
_GAIN, _CURVE, _SPREAD, _TOKENS = "gain", "exact gain", "spread", "token bias"  # reported, for the picture
_LAMS, _TOKEN_LAMS = (0.0, 0.5, 1.0), (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
_CRITICS = {"exact": 1.0, "40 % too large": 1.4, "40 % too small": 0.6}
_ROUNDING = 1e-10


@dataclass(frozen=True)
class GaeMeetsVglSetting:
    """A token world with one kind of error at a random table, or a system with additive noise and its sampled paths."""

    world: str
    kind: str  # of the error in a token world, of the noise in a system
    seed: int
    paths: int = 0
    size: float = knob(0.3)  # standard deviation of the errors at prefixes


def settings(preset: Preset) -> list[GaeMeetsVglSetting]:
    """Worlds of one length and of many by kinds of error; two systems by families of noise."""
    worlds = ["garnet (2,3)", "lock (2,3)", "stop (2,3)", "stop (2,4)", "stop (3,3)"]
    worlds = {"tiny": worlds[::2][:2], "quick": worlds[:4], "full": worlds}[preset]
    paths = {"tiny": 2**8, "quick": 2**17, "full": 2**20}[preset]
    families = [("scalar, 5 steps", "gaussian"), ("random, 4 steps", "laplace")]
    if preset == "full":
        families += [("scalar, 5 steps", "logistic"), ("random, 4 steps", "gumbel")]
    seeds = range(8 if preset == "full" else 1)
    tokens = itertools.product(worlds, (EXACT_CRITIC, NOISY, TIME), seeds)
    return [
        *(GaeMeetsVglSetting(*token) for token in tokens),
        *(GaeMeetsVglSetting(system, noise, 0, paths) for system, noise in families),
        *(GaeMeetsVglSetting(system, "uniform", 0, paths // 8) for system in SHORT_SYSTEMS),
    ]


def measure(setting: GaeMeetsVglSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Exact means over completions, or means over paths against the closed form."""
    labels: Row = {"world": setting.world, "kind": setting.kind, "seed": setting.seed}
    if setting.world in SHORT_SYSTEMS:
        return _system_rows(setting, labels, rng, device)
    world = build_world(setting.world).to(device)
    policy = PrefixTable(world, seed=2 * setting.seed).to(device)
    update = wrong_critic_update(world, policy, setting.kind, 2 * setting.seed + 1, _TOKEN_LAMS, setting.size)
    size, rows = update.gradient.norm(), list[Row]()
    labels["lengths"] = "one" if world.end is None else "several"
    for i, lam in enumerate(_TOKEN_LAMS):
        own, bias = labels | {"lam": lam}, update.bias[i].norm() / size
        rows += vanishes(POLYNOMIAL, (update.bias[i] - update.predicted[i]).norm() / size, _ROUNDING, labels=own)
        rows += report(_TOKENS, bias, labels=own) + report(_SPREAD, update.spread[i] / size, labels=own)
        rows += vanishes(_token_part(setting.kind, lam, world.end is not None), bias, _ROUNDING, labels=own)
    return rows


def _token_part(kind: str, lam: float, end: bool) -> str:
    """The part that the bias of a kind of error belongs to, at a lambda, in a world with or without an end token."""
    if kind == EXACT_CRITIC or lam == 1:
        return RIGHT
    return UNBIASED if kind == NOISY else END_TOKEN if end else ONE_LENGTH


def _system_rows(setting: GaeMeetsVglSetting, labels: Row, rng: torch.Generator, device: str) -> list[Row]:
    """Both estimators on the same paths against their closed form; under uniform noise against each other."""
    world, K = short_system(setting.world, setting.kind)
    exact, critics = policy_gradient(world, K).flatten(), [scaled_critic(world, K, x) for x in _CRITICS.values()]
    both, size = both_gradients(world, K, critics, _LAMS, setting.paths, rng, device), float(exact.norm())
    rows: list[Row] = []
    for (i, name), (j, lam) in itertools.product(enumerate(_CRITICS), enumerate(_LAMS)):
        own = labels | {"critic": name, "lam": lam}
        gae, vgl = (both.mean[e, i, j] for e in range(2))
        if setting.kind == "uniform":  # the score is 0 inside the support, and so is the estimator
            rows += equals(UNIFORM, vgl, gae.mean, size, labels=own, axes=("entry",))
            continue
        target = lambda_gradient(world, K, critics[i], lam).flatten()
        for e, part in enumerate((GAE, VGL)):
            rows += equals(part, both.mean[e, i, j], target, size, labels=own, axes=("entry",))
            shown = own | {"estimator": part.split()[0]}
            rows += report(_GAIN, both.gain[e, i, j], float(target @ exact) / size**2, labels=shown)
            variance = both.square.mean[e, i, j] - np.square(both.mean.mean[e, i, j]).sum() / size**2
            rows += report(_SPREAD, np.sqrt(max(variance, 0.0)), labels=shown)
        if name != "exact" and lam < 1:
            rows += equals(UNBIASED, vgl, exact, size, labels=own, axes=("entry",))
    if setting.kind != "uniform":
        grid = list(itertools.product(enumerate(_CRITICS), np.linspace(0, 1, 21).tolist()))
        curve = [lambda_gradient(world, K, critics[i], lam).flatten() @ exact / size**2 for (i, _), lam in grid]
        for ((_, name), lam), y in zip(grid, curve, strict=True):
            rows += report(_CURVE, y, labels=labels | {"critic": name, "lam": lam})
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """What both estimators keep of the gradient, and their spread, against lambda; the bias of tokens."""
    draw_wrong_critics(figure, *(rows[rows["part"] == part] for part in (_GAIN, _CURVE, _SPREAD, _TOKENS)))


CLAIM = Claim(
    name="gae_meets_vgl",
    statement="GAE(lambda) and VGL(lambda) follow the same gradient, whatever the critic",
    formula=r"\mathbb{E}\sum_t\gamma^t\nabla\log\pi(a_t|s_t)\,(R^\lambda_t-\hat V_t)="
    r"\mathbb{E}\sum_t\gamma^t(\mathrm{d}_K\mu_t)^{\top}\,\mathrm{d}R^\lambda_t/\mathrm{d}a_t",
    source="J. Schulman et al., arXiv:1506.02438 (GAE); M. Fairbank and E. Alonso, Value-gradient learning (2012); "
    "theory page section 6",
    assumptions=("A1", "A2", "A3", "A5"),
    must_hold="Both means are one closed form for critics of any error, Gaussian and Laplace noise; in token worlds the bias "
    "is a polynomial in lambda; an exact critic, lambda = 1, or an error of time alone where all completions have one length "
    "leave no bias",
    must_fail="A wrong critic leaves no bias at lambda < 1; an error of time alone leaves none where an end token exists; GAE "
    "and VGL agree under uniform noise",
    how_to_read="Left and middle, one linear-quadratic system: how much of the gradient's length the mean of each estimator "
    "keeps (dashed: the closed form of both), and the spread of one path. Right, token worlds: exact bias of GAE where "
    "the critic's error depends on time alone, or differs at each prefix.",
    parts=(
        *(Part(name, "claim", "holds") for name in (GAE, VGL, POLYNOMIAL)),
        *(Part(name, "control", "holds") for name in (RIGHT, ONE_LENGTH)),
        *(Part(name, "control", "fails", every="world") for name in (UNBIASED, END_TOKEN, UNIFORM)),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
