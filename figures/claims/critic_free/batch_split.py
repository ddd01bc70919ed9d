"""Which normalisers depend on how a batch is cut into micro-batches, and on the order of its parts."""

from typing import Any

import pandas as pd
import torch

from agents.recipes.learners import Learner, build_learner
from agents.recipes.surrogates import NORMALISERS
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from figures.drawing.batch_cuts import draw_cuts
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, report, vanishes
from figures.measures import micro_batches as cutting
from figures.measures.micro_batches import BatchSplitSetting, Sampled, accumulated, equal_parts, gap, gradient, stepwise
from figures.measures.token_mean import expected_token_mean
from figures.measures.token_systems import build_policy, build_world
from theory.groups.binary_rewards import alignment
from theory.tokens.exact_ascent import exact_ascent

EQUAL, ORDER = "whole groups, equally many", "order of the rows"
SHARED, KEPT = "parts weighted by what is averaged", "computed before the cut"
TOKENS, UNEVEN = "token mean, plain mean of the parts", "parts of 5 and 3 groups, plain mean"
WRONG, ANEW = "parts weighted by another share", "halved groups, advantages anew"
LENGTHS, BASELINE = "halved groups, lengths of the half", "baseline over the batch"
STEPS, BIASED = "a step after each part, either order", "token mean is unbiased"
_ROUNDING, _GROUPS = 1e-9, 8
_MEAN, _BATCH, _COUPLED = "token mean", "batch baseline", ("group token mean", "token mean")  # normalisers
_RATIO, _COSINE = "ratio", "cosine"


def settings(preset: Preset) -> list[BatchSplitSetting]:
    """One point for each policy."""
    return [BatchSplitSetting(seed) for seed in range({"tiny": 1, "quick": 4, "full": 60}[preset])]


def learners() -> dict[str, Learner]:
    """GRPO with each normaliser, and REINFORCE with a baseline over the batch."""
    by_normaliser = {name: build_learner("grpo", length=name) for name in NORMALISERS}
    return by_normaliser | {_BATCH: build_learner("reinforce", baseline=True)}


def part_of(normaliser: str, cut: str) -> str:
    """The part that judges a normaliser under a cut."""
    if cut == cutting.ALL_KEPT or (cut == cutting.ADVANTAGES_KEPT and normaliser not in _COUPLED):
        return KEPT
    if normaliser == _BATCH:
        return BASELINE
    if cut in (cutting.BY_TOKENS, cutting.BY_GROUPS):
        return SHARED if (cut == cutting.BY_TOKENS) == (normaliser == _MEAN) else WRONG
    if cut in cutting.EVEN_CUTS:
        return TOKENS if normaliser == _MEAN else EQUAL
    return {cutting.UNWEIGHTED: UNEVEN, cutting.ANEW: ANEW, cutting.ADVANTAGES_KEPT: LENGTHS}[cut]


def measure(setting: BatchSplitSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Every cut under every normaliser; the order of rows and of steps; the exact bias of the token mean."""
    world = build_world(setting.world).to(device)
    policy = exact_ascent(world, build_policy(world, setting.seed, spread=1.0), (setting.ascended,), 0.02)[0]
    sampled = cutting.sample_batch(world, policy, _GROUPS, setting.rows, rng)
    shuffled, rows = torch.randperm(_GROUPS * setting.rows, generator=rng).to(device), list[Row]()
    for name, learner in learners().items():
        labels, whole = {"seed": setting.seed, "normaliser": name}, gradient(sampled, learner)
        rows += vanishes(ORDER, gap(gradient(sampled, learner, shuffled), whole), _ROUNDING, labels=labels)
        for cut, total in cutting.gradients_by_cut(sampled, learner).items():
            rows += vanishes(part_of(name, cut), gap(total, whole), _ROUNDING, labels={**labels, "cut": cut})
    return rows + _steps(sampled, setting) + _by_count(sampled, setting.seed) + _exact(world, policy, setting)


def _steps(sampled: Sampled, setting: BatchSplitSetting) -> list[Row]:
    """Two clipped steps, one part after the other, against the other order; beside it both parts in one step."""
    learner, parts = learners()["row sum"], equal_parts(sampled.batch, 2)
    size, rows = float(gradient(sampled, learner).norm()), list[Row]()
    for length in setting.lengths:
        forth, back = (stepwise(sampled, learner, order, length / size) for order in (parts, parts[::-1]))
        rows += vanishes(STEPS, gap(back, forth), _ROUNDING, labels={"seed": setting.seed, "step": length})
    forth, back = (accumulated(sampled, learner, order) for order in (parts, parts[::-1]))
    return rows + vanishes(ORDER, gap(back, forth), _ROUNDING, labels={"seed": setting.seed, "normaliser": "one step"})


def _by_count(sampled: Sampled, seed: int) -> list[Row]:
    """Token mean: size and direction of the accumulated gradient against the whole batch's, by the number of parts."""
    learner, rows = learners()[_MEAN], list[Row]()
    whole = gradient(sampled, learner)
    for m in (1, 2, 4, 8):
        total, labels = accumulated(sampled, learner, equal_parts(sampled.batch, m)), {"seed": seed, "parts": m}
        rows += report(_RATIO, float(total.norm() / whole.norm()), 1.0, labels=labels)
        rows += report(_COSINE, alignment(total, whole).cosine, 1.0, labels=labels)
    return rows


def _exact(world: TokenMDP, policy: TokenPolicy, setting: BatchSplitSetting) -> list[Row]:
    """The exact bias of the token mean over 1 ... 64 groups of 4 rows, without std: the row sum's would be 0."""
    learner, rows = build_learner("grpo", std="none"), list[Row]()
    for groups in setting.exact_groups:
        update = expected_token_mean(world, policy, learner, 4, groups)
        cosine, scale, bias = alignment(update.mean, update.truth)
        rows += vanishes(
            BIASED, bias / scale, _ROUNDING, labels={"seed": setting.seed, "groups": groups, "cosine": cosine}
        )
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Normaliser x cut; token mean by the number of parts; its exact bias by the number of groups."""
    families = {
        "equal parts": cutting.EVEN_CUTS,
        "unequal parts": cutting.UNEVEN_CUTS,
        "cut groups": cutting.HALVED_CUTS,
    }
    draw_cuts(figure, rows, families, _ROUNDING, {"ratio": _RATIO, "cosine": _COSINE, "bias": BIASED})


CLAIM = Claim(
    name="batch_split",
    statement="Gradients of equal parts, cut between groups, add up to the batch's (group-wise recipes)",
    formula=r"\frac{1}{M}\sum_m \nabla L(\mathrm{part}_m) = \nabla L(\mathrm{batch})\ \Leftarrow\ "
    r"L = \frac{1}{\#\mathrm{groups}}\sum_g \ell(\mathrm{group}_g);\qquad"
    r"\mathrm{token\ mean}:\ \frac{1}{\sum_g |o_g|}\ \mathrm{couples\ the\ groups}",
    source="theory page section 4; gradient accumulation in common libraries",
    assumptions=("A5",),
    must_hold="Row sum, row mean, group token mean on parts of 1, 2, 4 whole groups; any order of rows; parts weighted by "
    "their share of groups (of tokens for the token mean); advantages and weights computed before the cut",
    must_fail="Token mean and a baseline over the batch; 5 + 3 groups unweighted or by another share; groups cut with "
    "advantages or lengths of the part; a clipped step after each part, in the two orders",
    how_to_read="Left: how far the gradient accumulated over parts of one sampled batch (8 groups of 8 rows) is from the "
    "whole batch's, median over batches; 0 is rounding. 'By groups', 'by tokens': parts weighted by that share; 'A before': "
    "advantages before the cut; 'all before': the normaliser's weights too. Right: token mean, size and direction by number "
    "of parts; below, bias / scale of its exact mean, one line a policy: it falls as 1 / groups, so small parts bring it "
    "back.",
    parts=(
        Part(EQUAL, "claim", "holds"),
        *(Part(name, "control", "holds") for name in (ORDER, SHARED, KEPT)),
        Part(TOKENS, "control", "fails", every="cut"),
        *(Part(name, "control", "fails", every="normaliser") for name in (UNEVEN, WRONG, ANEW, LENGTHS)),
        Part(BASELINE, "control", "fails", every="cut"),
        Part(STEPS, "control", "fails", every="step"),
        Part(BIASED, "control", "fails", every="groups"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
