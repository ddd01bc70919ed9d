"""Estimators of the gradient with two evaluations: all unbiased, and which of them vary less than RLOO."""

import itertools
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from figures.drawing.catalogue import draw_catalogue
from figures.harness.claim import Claim, Part, Preset, knob
from figures.harness.rows import Row, at_most, equals, report, vanishes
from figures.measures.token_systems import GROUPED, build_policy, build_world
from figures.measures.two_draws import RELAXED, WEIGHTS_P, WRONG, pathwise_mean, rebar_of_one_draw
from theory.groups.estimator_table import estimator_table, outcomes
from theory.groups.estimators import ESTIMATORS, pair_second_moments
from theory.groups.one_bit import one_bit
from theory.groups.variance import hoeffding
from theory.tokens.prefix_tree import grow

UNBIASED, CLOSED = "unbiased", "variance = closed form"
SET, DISARM = "unordered set, baseline <= RLOO", "DisARM <= RLOO"
PATHWISE, ONE_DRAW = "Gumbel-softmax pathwise: unbiased", "REBAR, c(z) in the place of c(z~): unbiased"
IMPORTANCE, REPLACED = "pairs, weights p unnormalised: unbiased", "pairs taken as independent: unbiased"
_RATIO, _BIT = "variance over RLOO's", "variance on one bit"
ONE_BIT = "one bit"
_F0, _F1 = 0.2, 1.0  # values of the bit
_ETAS = (0.0, 0.5, 1.0)
_ROUNDING = 1e-9


@dataclass(frozen=True)
class EstimatorCatalogueSetting:
    """One token world and a random transformer at a temperature; or one bit, at several logits and temperatures of REBAR."""

    world: str
    seed: int
    temperature: float = 1.0
    ells: tuple[float, ...] = ()
    taus: tuple[float, ...] = ()
    spread: float = knob(4.0)  # of the policy's head


def settings(preset: Preset) -> list[EstimatorCatalogueSetting]:
    """Worlds whose groups can be enumerated, with spread and with sharpened policies; one bit from rare to likely."""
    worlds = list(GROUPED)[::2][:2] if preset == "tiny" else list(GROUPED)
    temperatures = (1.0, 0.25) if preset == "tiny" else (2.0, 1.0, 0.5, 0.25)
    seeds = {"tiny": 1, "quick": 2, "full": 8}[preset]
    ells = (-1.0, 0.5) if preset == "tiny" else (-4.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
    taus = (0.5,) if preset == "tiny" else (0.1, 0.5, 1.0)
    return [
        *(EstimatorCatalogueSetting(*case) for case in itertools.product(worlds, range(seeds), temperatures)),
        EstimatorCatalogueSetting(ONE_BIT, 0, ells=ells, taus=taus),
    ]


def measure(setting: EstimatorCatalogueSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Exact moments of all estimators, on the completions of a policy or on one bit."""
    if setting.world == ONE_BIT:
        return [row for ell in setting.ells for row in _bit_rows(ell, setting.taus)]
    world = build_world(setting.world).to(device)
    policy = build_policy(world, setting.seed, setting.temperature, spread=setting.spread)
    prompt = setting.seed % len(world.prompts)
    table = estimator_table(world, policy, prompt, WRONG).set_index("estimator")
    p, f, s = outcomes(grow(world, policy), policy, prompt)
    size = float((p @ (f[:, None] * s)).norm())
    labels: Row = {"world": setting.world, "seed": setting.seed, "temperature": setting.temperature}
    unit, rows = float(table.loc["RLOO", "variance"]), list[Row]()
    for name, (bias, variance, noise) in table.iterrows():
        own = labels | {"estimator": name, "likeliest": float(p.max())}
        part = UNBIASED if name in ESTIMATORS else IMPORTANCE if name == WEIGHTS_P else REPLACED
        rows += vanishes(part, bias / size, _ROUNDING, labels=own)
        rows += report(_RATIO, variance / unit, labels=own | {"noise": noise}) if name in ESTIMATORS else []
    pair = "unordered set, baseline"
    # second moments: where the set has hardly any variance, its closed form less the gradient's square has no digits left
    closed = {"RLOO": sum(hoeffding(p, f, s, 2)) + size**2, pair: pair_second_moments(p, f, s)[1]}
    for name, square in closed.items():
        ratio = (table.loc[name, "variance"] + size**2) / square
        rows += equals(CLOSED, ratio, 1.0, tolerance=_ROUNDING, labels=labels | {"estimator": name})
    return rows + at_most(SET, table.loc[pair, "variance"] / unit, 1.0, labels=labels | {"estimator": pair})


def _bit_rows(ell: float, taus: tuple[float, ...]) -> list[Row]:
    """One logit: means against `D p q`, variances against their closed forms."""
    p, q = (float(torch.sigmoid(torch.tensor(x, dtype=torch.float64))) for x in (ell, -ell))
    D, less, labels = _F1 - _F0, min(p, q), {"world": ONE_BIT, "ell": ell, "p": p}
    slope = D * p * q
    closed = {"RLOO": D**2 * p * q * (1 - 2 * p * q) / 2, "DisARM": D**2 * p * q * (1 - less) * (1 - 2 * less) / 2}
    pairs, rows = one_bit(ell, _F0, _F1), list[Row]()
    for name in ("REINFORCE", *closed):
        own = labels | {"estimator": name}
        rows += vanishes(UNBIASED, float(pairs[name].mean) / slope - 1, _ROUNDING, labels=own)
        rows += report(_BIT, pairs[name].variance / D**2, closed.get(name, 0.0) / D**2, labels=own)
        if name in closed:
            rows += equals(CLOSED, (pairs[name].variance - closed[name]) / D**2, 0.0, tolerance=1e-14, labels=own)
    rows += at_most(DISARM, pairs["DisARM"].variance, pairs["RLOO"].variance, labels=labels)
    for tau in taus:
        at = labels | {"estimator": "REBAR", "tau": tau}
        of_eta = [one_bit(ell, _F0, _F1, tau, eta)["REBAR"] for eta in (*_ETAS, 0.3)]
        for eta, found in zip(_ETAS, of_eta, strict=False):
            rows += vanishes(UNBIASED, float(found.mean) / slope - 1, _ROUNDING, labels=at | {"eta": eta})
        none, half, one, other = (found.variance for found in of_eta)
        parabola = none + (4 * half - 3 * none - one) * 0.3 + 2 * (one - 2 * half + none) * 0.3**2
        rows += equals(CLOSED, other / parabola, 1.0, tolerance=_ROUNDING, labels=at)
        rows += report(_BIT, one_bit(ell, _F0, _F1, tau)["REBAR"].variance / D**2, labels=at)
        for relaxed in RELAXED:
            gap = pathwise_mean(ell, _F0, _F1, tau, relaxed) / slope - 1
            rows += vanishes(PATHWISE, gap, _ROUNDING, labels=at | {"relaxed": relaxed, "estimator": "pathwise"})
        rows += vanishes(ONE_DRAW, rebar_of_one_draw(ell, _F0, _F1, tau) / slope - 1, _ROUNDING, labels=at)
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Variances over RLOO's against the probability of the likeliest completion; variances on one bit."""
    draw_catalogue(figure, rows[rows["part"] == _RATIO], rows[rows["part"] == _BIT])


CLAIM = Claim(
    name="estimator_catalogue",
    statement="Every estimator of the catalogue is unbiased, and two of them never vary more than RLOO",
    formula=r"\frac{(1-\pi_a)(1-\pi_b)}{2-\pi_a-\pi_b}(R_a-R_b)(\psi_a-\psi_b)\quad\mathrm{without\ replacement}"
    r"\qquad\mathrm{RLOO:}\ \frac{1}{2}(R_a-R_b)(\psi_a-\psi_b)",
    source="arXiv:2002.06043 (unordered sets); arXiv:1810.04777 (sum and sample); arXiv:2006.10680 (DisARM); "
    "arXiv:1703.07370 (REBAR); theory page section 6",
    assumptions=("A5",),
    must_hold="Unbiased: REINFORCE, also with the exact value as baseline, RLOO, unordered set and sum and sample with and "
    "without a baseline, DisARM, REBAR. Never above RLOO: the set with its baseline, and DisARM on one bit",
    must_fail="The pathwise slope of a Gumbel-softmax, REBAR without its second draw, pairs without replacement with weights p "
    "or taken as independent: unbiased",
    how_to_read="Exact variances at two evaluations. Left, one mark for each policy and estimator, over the variance of RLOO "
    "(dashed): the unordered set with its baseline is never above it, and where one completion has nearly all of the "
    "probability it saves nearly all. Right, one bit: marks on closed forms (dashed).",
    parts=(
        *(Part(name, "claim", "holds") for name in (UNBIASED, SET, DISARM)),
        Part(CLOSED, "control", "holds"),
        *(Part(name, "control", "fails", every="world") for name in (IMPORTANCE, REPLACED)),
        *(Part(name, "control", "fails", every="ell") for name in (PATHWISE, ONE_DRAW)),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
