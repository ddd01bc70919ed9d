"""InstructGPT's optimum `ref exp(R / b) / Z`: which KL penalties end there, and where the others end."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from agents.policies.prefix_table import PrefixTable
from envs.token_mdp import TokenMDP
from figures.drawing.kl_ends import draw_ends
from figures.harness.claim import Claim, Part, Preset
from figures.harness.rows import Row, at_least, equals, report, vanishes
from figures.measures.penalty_ends import loss_path, penalised_field, reward_path, token_by_token
from figures.measures.tables import table_of, word_distance
from figures.measures.token_systems import build_world
from theory.groups.kl import sequence_kl
from theory.groups.targets import kl_regularised
from theory.tokens.completions import words
from theory.tokens.prefix_tree import grow
from theory.tokens.soft_control import SoftOptimum, rational_optimum, soft_optimum

REWARD_END, LOSS_END = "k1 in the reward ends at pi*", "k3 in the loss ends at pi*"
RATIONAL, AT_REST = "k3 in the loss ends at the rational tilt", "the mean updates are 0 at these ends"
TILT, REGRET = "backward recursion = tilt of completions", "J_b(pi*) - J_b(pi) = b KL(pi || pi*)"
BY_TOKEN, K1_LOSS = "tilt token by token = pi*", "k1 in the loss moves the policy"
_PATH = "path"
_ROUNDING, _END = 1e-10, 1e-8  # of one evaluation; of an ascent that has come to rest
SIMPLEX = "one choice of 3"  # drawn as paths on the simplex of its three tokens


@dataclass(frozen=True)
class KlOptimumSetting:
    """One world, one coefficient b, and a seed of three random tables: the reference, the start, and one for the identity."""

    world: str
    beta: float
    seed: int


def settings(preset: Preset) -> list[KlOptimumSetting]:
    """Worlds of one step, of one length and of many, by coefficients and seeds."""
    worlds = (SIMPLEX, "lock (2,3)") if preset == "tiny" else (SIMPLEX, "lock (2,3)", "garnet (2,3)", "stop (2,4)")
    betas = {"tiny": (0.3,), "quick": (0.3, 1.0), "full": (0.03, 0.1, 0.3, 1.0, 3.0)}[preset]
    seeds = range(4 if preset == "full" else 1)
    return [KlOptimumSetting(world, beta, seed) for world in worlds for beta in betas for seed in seeds]


def measure(setting: KlOptimumSetting, rng: torch.Generator, device: str) -> list[Row]:
    """Both ways by exact mean updates from one start, their ends against the two laws, and the laws against identities."""
    world = build_world(setting.world).to(device)
    reference, start, other = (PrefixTable(world, seed=3 * setting.seed + i).to(device) for i in range(3))
    tree = grow(world, reference)
    best = soft_optimum(tree, setting.beta)
    optimum, rational = (table_of(world, x) for x in (best.log_pi, rational_optimum(tree, setting.beta)))
    labels: Row = {"world": setting.world, "beta": setting.beta, "seed": setting.seed}
    rows = _identities(world, reference, best, (start, other), labels)
    for penalty, path, law, part in (
        ("k1 in the reward", reward_path, optimum, REWARD_END),
        ("k3 in the loss", loss_path, rational, RATIONAL),
    ):
        drawn, given = setting.world == SIMPLEX, (world, start, reference, setting.beta)
        steps = path(*given, rate=0.5) if drawn else path(*given)  # small steps where the way is drawn
        own = {**labels, "penalty": penalty}
        rows += vanishes(part, word_distance(world, law, steps[-1]), _END, labels=own)
        if law is rational:
            rows += vanishes(LOSS_END, word_distance(world, optimum, steps[-1]), _END, labels=own)
        if drawn:
            rows += _path_rows(steps, own)
        place, estimator = ("kl_reward", "k1") if law is optimum else ("kl_loss", "k3")
        rest = penalised_field(world, reference, place, estimator, setting.beta)(law)
        rows += vanishes(AT_REST, rest.abs().max(), _ROUNDING, labels=own)
    by_token = word_distance(world, optimum, token_by_token(world, reference, setting.beta))
    own = {**labels, "penalty": "token by token"}
    rows += (
        report(BY_TOKEN, by_token, labels=own) if world.horizon == 1 else vanishes(BY_TOKEN, by_token, _END, labels=own)
    )
    return rows + _k1_in_the_loss(world, reference, start, setting.beta, labels)


def _identities(
    world: TokenMDP, reference: PrefixTable, best: SoftOptimum, policies: tuple[PrefixTable, ...], labels: Row
) -> list[Row]:
    """The optimum against the tilt of whole completions, and the regret of random policies."""
    beta, objective = labels["beta"], kl_regularised(reference, labels["beta"])
    with torch.no_grad():
        of_ref, of_best = words(grow(world, reference)), words(grow(world, table_of(world, best.log_pi)))
        own = torch.where(of_ref.mask, of_ref.log_probs, 0.0).sum(-1) + of_ref.returns / beta
        log_tilt = own - torch.where(of_best.mask, of_best.log_probs, 0.0).sum(-1)
        rows = vanishes(TILT, (log_tilt - best.W[0][:, None] / beta).abs().max(), _ROUNDING, labels=labels)
        top = float(world.weights @ best.W[0])
        for policy in policies:
            tree = grow(world, policy)
            regret = beta * float(sequence_kl(tree, best.log_pi))
            rows += equals(REGRET, (top - float(objective(tree))) / regret, 1.0, tolerance=_ROUNDING, labels=labels)
    return rows


def _path_rows(steps: list[PrefixTable], labels: Row) -> list[Row]:
    """The probabilities of the three tokens on the way, reported."""
    laws: list[Tensor] = [torch.softmax(step.logits.detach()[0], -1) for step in steps]
    return report(_PATH, torch.stack(laws), labels=labels, axes=("step", "token"))


def _k1_in_the_loss(
    world: TokenMDP, reference: PrefixTable, policy: PrefixTable, beta: float, labels: Row
) -> list[Row]:
    """How far the mean update moves when k1 in the loss is added, over its size."""
    with_it, without = (penalised_field(world, reference, "kl_loss", "k1", b)(policy) for b in (beta, 0.0))
    return at_least(K1_LOSS, (with_it - without).norm() / without.norm(), 1e-6, labels=labels)


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """The two ways and ends on the simplex of three tokens; how far each end is from the optimum."""
    ends = rows[rows["part"].isin((REWARD_END, LOSS_END, BY_TOKEN))]
    draw_ends(figure, rows[rows["part"] == _PATH], ends)


CLAIM = Claim(
    name="kl_optimum",
    statement="A KL penalty leads to InstructGPT's optimum ref exp(R / b) / Z, in the reward as in the loss",
    formula=r"\pi^\ast=\frac{\pi_{\mathrm{ref}}\,e^{R/\beta}}{Z}\qquad"
    r"\mathrm{k3\ in\ the\ loss:}\quad\pi(a)=\frac{\beta\,\pi_{\mathrm{ref}}(a)}{\beta+V-Q(a)}",
    source="arXiv:2203.02155 (the penalty and its optimum); arXiv:2402.03300 (k3 in the loss); theory page section 6",
    assumptions=("A5",),
    must_hold="k1 in the reward ends at the optimum; k3 in the loss at a rational tilt; the optimum by a backward recursion; "
    "the regret is b times a KL divergence",
    must_fail="k3 in the loss ends at the optimum; the tilt token by token is the optimum; k1 in the loss moves the policy",
    how_to_read="Tables over prefixes follow the exact mean update of REINFORCE with each penalty until it is at rest. "
    "Left, one choice of three tokens: both ways begin at one policy and end at two. Right, how far the law of "
    "completions at each end is from the optimum, in total variation (dashed: the optimum itself).",
    parts=(
        Part(REWARD_END, "claim", "holds"),
        Part(LOSS_END, "claim", "fails", every="world"),
        *(Part(name, "control", "holds") for name in (RATIONAL, AT_REST, TILT, REGRET)),
        Part(BY_TOKEN, "control", "fails", every="world"),
        Part(K1_LOSS, "control", "fails", every="world"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
