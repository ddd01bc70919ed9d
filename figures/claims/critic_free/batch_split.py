"""Which normalisers depend on how a batch is cut into micro-batches, and on the order of its parts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from agents.recipes.learners import Learner, build_learner
from agents.recipes.surrogates import NORMALISERS
from envs.token_mdp import TokenMDP
from figures.harness.claim import Claim, Part, Preset, Role, Row, compare
from figures.harness.statistics import Outcome
from figures.measures.micro_batches import (
    Sampled,
    accumulated,
    advantages_kept,
    expected_token_mean,
    gap,
    gradient,
    halved_groups,
    sample_batch,
    shares,
    stepwise,
    weights_kept,
    whole_groups,
)
from figures.measures.token_systems import build_policy, build_world
from theory.tokens.exact_ascent import exact_ascent

EQUAL, ORDER = "whole groups, equally many", "order of the rows"
TOKENS, UNEVEN = "token mean, plain mean of the parts", "parts of 5 and 3 groups, plain mean"
WRONG, ANEW = "parts weighted by another share", "halved groups, advantages anew"
BASELINE, LENGTHS = "baseline over the batch", "halved groups, lengths of the half"
STEPS, BIASED = "a step after each part, either order", "token mean is unbiased"
SHARED, KEPT = "parts weighted by what is averaged", "computed before the cut"
_ROUNDING, _WORLD, _GROUPS, _ROWS, _LENGTHS = 1e-9, "stop (3,3)", 8, 8, (0.1, 0.03, 0.01)
_SMALL = 1e-3  # smaller differences have the darkest colour
_MEAN, _BATCH, _COUPLED = "token mean", "batch baseline", ("group token mean", "token mean")
_EVEN = ("8 x 1\ngroup", "4 x 2\ngroups", "4 + 4\ngroups")
_CUTS = (
    *_EVEN,
    "5 + 3",
    "5 + 3,\nby groups",
    "5 + 3,\nby tokens",
    "halved\ngroups",
    "halved,\nA before",
    "halved,\nall before",
)


@dataclass(frozen=True)
class BatchSplitSetting:
    """One policy, some steps of exact ascent from a random one, and one sampled batch of 8 prompts x 8 rows."""

    seed: int
    ascended: int = 4


def settings(preset: Preset) -> list[BatchSplitSetting]:
    """Policies."""
    return [BatchSplitSetting(seed) for seed in range(4 if preset == "quick" else 60)]


def learners() -> dict[str, Learner]:
    """GRPO with each normaliser, and REINFORCE with a baseline over the batch."""
    found = {name: build_learner("grpo", length=name) for name in NORMALISERS}
    return found | {_BATCH: build_learner("reinforce", baseline=True)}


def cuts(sampled: Sampled, learner: Learner) -> dict[str, Tensor]:
    """The gradient accumulated under every cut and every way to put its parts together, in the order of the figure."""
    batch = sampled.batch
    kept, everything = advantages_kept(sampled, learner), weights_kept(sampled, learner)
    uneven, halves = whole_groups(batch, 5, 3), halved_groups(batch)
    even = [accumulated(sampled, learner, whole_groups(batch, *[8 // m] * m)) for m in (8, 4, 2)]
    found = [
        *even,
        accumulated(sampled, learner, uneven),
        *(accumulated(sampled, learner, uneven, shares(batch, uneven, of)) for of in ("groups", "tokens")),
        accumulated(sampled, learner, halves),
        accumulated(sampled, learner, halves, fix=kept),
        accumulated(sampled, learner, halves, [1.0, 1.0], everything),
    ]
    return dict(zip(_CUTS, found, strict=True))


def part_of(normaliser: str, cut: str) -> str:
    """The part that judges a cell of the figure."""
    if cut == _CUTS[8] or (cut == _CUTS[7] and normaliser not in _COUPLED):
        return KEPT
    if normaliser == _BATCH:
        return BASELINE
    right = _CUTS[5] if normaliser == _MEAN else _CUTS[4]
    if cut in _CUTS[4:6]:
        return SHARED if cut == right else WRONG
    if cut in _EVEN:
        return TOKENS if normaliser == _MEAN else EQUAL
    return {_CUTS[3]: UNEVEN, _CUTS[6]: ANEW, _CUTS[7]: LENGTHS}[cut]


def measure(setting: BatchSplitSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Every cut under every normaliser; the order of rows and of steps; the exact bias of the token mean."""
    world = build_world(_WORLD)
    policy = exact_ascent(world, build_policy(world, setting.seed, spread=1.0), (setting.ascended,), 0.02)[0]
    sampled = sample_batch(world, policy, _GROUPS, _ROWS, rng)
    shuffled = torch.randperm(_GROUPS * _ROWS, generator=rng)
    rows: list[Row] = []
    for name, learner in learners().items():
        labels = {"seed": setting.seed, "normaliser": name}
        whole = gradient(sampled, learner)
        rows += compare(
            ORDER, gap(gradient(sampled, learner, shuffled), whole), 0.0, tolerance=_ROUNDING, labels=labels
        )
        for cut, found in cuts(sampled, learner).items():
            rows += compare(
                part_of(name, cut), gap(found, whole), 0.0, tolerance=_ROUNDING, labels={**labels, "cut": cut}
            )
    return rows + _steps(sampled, setting.seed) + _by_count(sampled, setting.seed) + _exact(world, policy, setting.seed)


def _steps(sampled: Sampled, seed: int) -> list[Row]:
    """Two clipped steps, one part after the other, against the other order; beside it both parts in one step."""
    learner, parts = learners()["row sum"], whole_groups(sampled.batch, 4, 4)
    rows: list[Row] = []
    for length in _LENGTHS:
        rate = length / float(gradient(sampled, learner).norm())
        forth, back = (stepwise(sampled, learner, order, rate) for order in (parts, parts[::-1]))
        rows += compare(STEPS, gap(back, forth), 0.0, tolerance=_ROUNDING, labels={"seed": seed, "step": length})
    forth, back = (accumulated(sampled, learner, order) for order in (parts, parts[::-1]))
    return rows + compare(
        ORDER, gap(back, forth), 0.0, tolerance=_ROUNDING, labels={"seed": seed, "normaliser": "one step"}
    )


def _by_count(sampled: Sampled, seed: int) -> list[Row]:
    """Token mean: size and direction of the accumulated gradient against the whole batch's, by the number of parts."""
    learner, rows = learners()[_MEAN], list[Row]()
    whole = gradient(sampled, learner)
    for m in (1, 2, 4, 8):
        found = accumulated(sampled, learner, whole_groups(sampled.batch, *[8 // m] * m))
        for name, value in (("ratio", float(found.norm() / whole.norm())), ("cosine", alignment(found, whole)[0])):
            rows += compare(name, value, 1.0, relation="report", labels={"seed": seed, "parts": m})
    return rows


def _exact(world: TokenMDP, policy: Any, seed: int) -> list[Row]:
    """The exact bias of the token mean over 1 ... 64 groups of 4 rows, without std: the row sum's would be 0."""
    rows: list[Row] = []
    for groups in (1, 2, 4, 8, 16, 32, 64):
        found = expected_token_mean(world, policy, build_learner("grpo", std="none"), 4, groups)
        cosine, scale, bias = alignment(found.mean, found.truth)
        labels = {"seed": seed, "groups": groups, "cosine": cosine}
        rows += compare(BIASED, bias / scale, 0.0, tolerance=_ROUNDING, labels=labels)
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """Normaliser x cut; token mean by the number of parts; its exact bias by the number of groups."""
    from figures.drawing.style import COLOURS, EXACT

    grid = figure.add_gridspec(2, 2, width_ratios=(2.5, 1))
    _draw_matrix(figure.add_subplot(grid[:, 0]), rows[rows["part"].isin(PARTS) & rows["cut"].notna()])
    top, bottom = (figure.add_subplot(grid[i, 1]) for i in (0, 1))
    for name, colour, mark in (("ratio", "score", "o"), ("cosine", "costate", "^")):
        group = rows[rows["part"] == name]
        top.plot(group["parts"], group["measured"], mark, color=COLOURS[colour], ms=5, alpha=0.6, label=name)
    top.axhline(1, **EXACT)
    top.legend(fontsize=8, loc="best")
    top.set(xscale="log", xlabel="parts of one batch", title="token mean: parts / whole")
    top.set_xticks((1, 2, 4, 8), ("1", "2", "4", "8"))
    top.set_xticks((), minor=True)
    exact = rows[rows["part"] == BIASED]
    for _, group in exact.groupby("seed"):
        bottom.plot(group["groups"], group["measured"], "o-", color=COLOURS["control"], ms=4, lw=1, alpha=0.7)
    counts = np.unique(exact["groups"])
    bottom.plot(counts, exact["measured"].min() * counts.max() / counts / 2, label="slope 1 / groups", **EXACT)
    bottom.legend(fontsize=8, loc="best")
    bottom.set(xscale="log", yscale="log", xlabel="groups in the batch", title="token mean: exact bias")


def _draw_matrix(axis: Any, rows: pd.DataFrame) -> None:
    """Median relative difference of every cell, as colour and number."""
    from matplotlib.colors import LogNorm

    table = rows.pivot_table(index="normaliser", columns="cut", values="measured", aggfunc="median", sort=False)
    table = table.reindex(columns=list(_CUTS))
    cells = table.to_numpy()
    axis.imshow(cells, norm=LogNorm(_SMALL, 1, clip=True), cmap="cividis", aspect="auto")
    for (i, j), value in np.ndenumerate(cells):
        said = "0" if value < _ROUNDING else f"{value:.0%}" if value > 0.1 else f"{value:.1%}"
        axis.text(j, i, said, ha="center", va="center", fontsize=10, color="black" if value > 0.03 else "white")
    axis.grid(visible=False)
    axis.set_xticks(range(len(_CUTS)), _CUTS, fontsize=8)
    axis.set_yticks(range(len(table)), [name.replace(" ", "\n") for name in table.index], fontsize=9)
    axis.set_title("|accumulated - whole| / |whole|, median over batches")


PARTS: dict[str, tuple[Role, Outcome]] = {
    EQUAL: ("claim", "holds"),
    ORDER: ("control", "holds"),
    SHARED: ("control", "holds"),
    KEPT: ("control", "holds"),
    TOKENS: ("control", "fails"),
    UNEVEN: ("control", "fails"),
    WRONG: ("control", "fails"),
    ANEW: ("control", "fails"),
    LENGTHS: ("control", "fails"),
    BASELINE: ("control", "fails"),
    STEPS: ("control", "fails"),
    BIASED: ("control", "fails"),
}
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
    how_to_read="Left: the gradient accumulated over parts of one sampled batch (8 groups of 8 rows), against the whole "
    "batch's; 0 is rounding. 'By groups', 'by tokens': parts weighted by that share; 'A before': advantages before the cut; "
    "'all before': the normaliser's weights too. Right: token mean, size and direction by number of parts; below, bias / "
    "scale of its exact mean, one line a policy: it falls as 1 / groups, so small parts bring it back.",
    parts=(
        Part(EQUAL, "claim", "holds"),
        Part(ORDER, "control", "holds"),
        Part(SHARED, "control", "holds"),
        Part(KEPT, "control", "holds"),
        Part(TOKENS, "control", "fails", every="cut"),
        Part(UNEVEN, "control", "fails", every="normaliser"),
        Part(WRONG, "control", "fails", every="normaliser"),
        Part(ANEW, "control", "fails", every="normaliser"),
        Part(LENGTHS, "control", "fails", every="normaliser"),
        Part(BASELINE, "control", "fails", every="cut"),
        Part(STEPS, "control", "fails", every="step"),
        Part(BIASED, "control", "fails", every="groups"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
