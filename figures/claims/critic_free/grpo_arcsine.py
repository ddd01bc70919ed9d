"""What GRPO with std climbs: the sum of F_G(P) over prompts at group size G, 2 arcsin sqrt P as G grows."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.learners import grpo
from envs.token_mdp import TokenMDP
from figures.harness.claim import Claim, Part, Preset, Row, compare
from figures.measures.token_systems import build_policy, build_world
from theory.groups.binary_rewards import alignment, arcsine, grpo_kappa, grpo_objective
from theory.groups.expected_update import expected_update
from theory.tokens.completions import completion_log_probs, completions
from theory.tokens.prefix_tree import grow

ZETA = -1.4603545088095868  # zeta(1/2): what Riemann sums of 1 / sqrt x leave at 0
_STEP = 2e-4  # of the differences, along directions of length 1
_DIFFERENCES = 1e-8  # their error, relative to the gradient
_ROUNDING = 1e-12
_PARALLEL = 1e-9
_FINITE, _SMALL, _BELOW, _WEIGHT, _OBJECTIVE = (
    "finite G: the gradient of F_G", "G = 2 and 3: parallel to grad J", "weight below its limit", "weight: error 1/G",
    "objective: error 1/sqrt G",
)  # fmt: skip
_ARCSINE, _J, _FASTER = "2 arcsin sqrt P at finite G", "GRPO climbs J", "objective: error 1/G"
_COSINE, _SHARE = "cosine", "share of the update"
_LARGEST = (2, 4, 8, 16, 32, 64, 128, 256, 512)
CHANCES = (0.1, 0.3, 0.5, 0.8)


@dataclass(frozen=True)
class GrpoArcsineSetting:
    """One world, one random policy, its group sizes; the world "any" stands for the closed forms alone."""

    world: str
    groups: tuple[int, ...]
    temperature: float = 1.0
    seed: int = 0
    directions: int = 3


def settings(preset: Preset) -> list[GrpoArcsineSetting]:
    """Worlds of several prompts x temperatures x seeds, and the limit by itself."""
    quick = preset == "quick"
    temperatures, seeds = ((0.5, 1.0), 2) if quick else ((0.3, 0.5, 1.0, 3.0), 5)
    groups, directions = ((2, 3, 4, 16), 2) if quick else ((2, 3, 4, 8, 16), 10)
    return [GrpoArcsineSetting("any", _LARGEST)] + [
        GrpoArcsineSetting(world, groups, tau, seed, directions)
        for world in ("arithmetic (3,2)", "copy (2,3)")
        for tau in temperatures
        for seed in range(seeds)
    ]


def measure(setting: GrpoArcsineSetting, rng: torch.Generator, device: str) -> list[Row]:
    """The update of one policy against central differences and against other objectives; or the limit."""
    if setting.world == "any":
        return _limit_rows(setting.groups)
    world = build_world(setting.world)
    policy = build_policy(world, setting.seed, setting.temperature)
    labels = {"world": setting.world, "temperature": setting.temperature, "seed": setting.seed}
    P, slopes = prompt_gradients(world, policy)
    rows = _weighing_rows(world, P, slopes, labels)
    for G in setting.groups:
        for std in ("population", "sample") if G == 4 else ("population",):
            update = expected_update(world, policy, grpo(std, "row sum"), G)
            found = torch.cat([part.flatten() for part in update.mean.parameters])
            own = {**labels, "G": G, "std": std}
            rows += _finite_rows(world, policy, found, G, std, setting.directions, rng, own)
            # c_2 = 1 and c_3 = sqrt 2 for every P: there, and there only, no prompt counts more than in J
            for part, objective in ((_ARCSINE, (P * (1 - P)).rsqrt()), (_SMALL if G < 4 else _J, torch.ones_like(P))):
                bias = alignment(found, (world.weights * objective) @ slopes)[2]
                rows += compare(part, bias, 0.0, tolerance=_PARALLEL, labels=own)
    return rows


def prompt_gradients(
    world: TokenMDP, policy: Any
) -> tuple[Float[Tensor, "prompts"], Float[Tensor, "prompts parameters"]]:
    """P of every prompt, and grad_theta P through the live products `P = sum_o R(o) prod_k pi(c_k)`: no surrogate."""
    tree = grow(world, policy)
    found, live = completions(tree), completion_log_probs(tree).sum(-1)
    success, parameters = (live.exp() * found.returns).sum(1), list(policy.parameters())
    slopes = [
        torch.cat([g.flatten() for g in torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True,
                                                            materialize_grads=True)])
        for one in success
    ]  # fmt: skip
    return found.success(), torch.stack(slopes)


def objective_slope(
    world: TokenMDP, policy: Any, direction: Float[Tensor, "parameters"], G: int, population: bool
) -> float:
    """Slope of `sum_prompts weight F_G(P)` along a direction of the parameters, by differences of fourth order."""
    parameters = list(policy.parameters())
    steps = direction.split([p.numel() for p in parameters])

    def at(h: float) -> float:
        """The objective h along the direction; the parameters are put back."""
        with torch.no_grad():
            for p, step in zip(parameters, steps, strict=True):
                p += h * step.reshape(p.shape)
            P = completions(grow(world, policy)).success()
            for p, step in zip(parameters, steps, strict=True):
                p -= h * step.reshape(p.shape)
        return float(world.weights @ grpo_objective(P, G, population))

    near, far = at(_STEP) - at(-_STEP), at(2 * _STEP) - at(-2 * _STEP)
    return (8 * near - far) / (12 * _STEP)


def _finite_rows(
    world: TokenMDP, policy: Any, found: Tensor, G: int, std: str, directions: int, rng: torch.Generator, labels: Row
) -> list[Row]:
    rows: list[Row] = []
    for i in range(directions):
        # half along the update, so that no direction is blind to it
        noise = torch.randn(len(found), generator=rng, dtype=found.dtype)
        direction = noise / noise.norm() + found / found.norm()
        direction = direction / direction.norm()
        slope = objective_slope(world, policy, direction, G, std == "population")
        size = float(found.norm())
        rows += compare(_FINITE, float(found @ direction) / size, slope / size, tolerance=_DIFFERENCES,
                        labels={**labels, "direction": i})  # fmt: skip
    return rows


def _weighing_rows(world: TokenMDP, P: Tensor, slopes: Tensor, labels: Row) -> list[Row]:
    """Report: cosines of the update at any G with two gradients, and each prompt's share in it over its share in grad J."""
    own, rows = world.weights[:, None] * slopes, list[Row]()
    limit, J = (P * (1 - P)).rsqrt() @ own, own.sum(0)
    size = own.norm(dim=1) / own.norm(dim=1).sum()
    for G in _LARGEST:
        weight = grpo_kappa(P, G)
        for target, truth in (("J", J), ("2 arcsin sqrt P", limit)):
            cosine = alignment(weight @ own, truth)[0]
            rows += compare(_COSINE, cosine, 1.0, relation="report", labels={**labels, "G": G, "of": target})
        if G in (2, 8, 64):
            shares = weight / (weight @ size)
            for prompt, share in enumerate(shares):
                given = {**labels, "G": G, "P": float(P[prompt]), "prompt": prompt}
                rows += compare(_SHARE, share, 1.0, relation="report", labels=given)
    return rows


def objective_gap(P: Float[Tensor, "..."], G: int) -> Float[Tensor, "..."]:
    """`2 arcsin sqrt P - F_G(P)` to order 1/G: `-zeta(1/2) / sqrt G + (2P - 1) / (4 G sqrt(P(1-P)))`."""
    return -ZETA / G**0.5 + (2 * P - 1) / (4 * G * (P * (1 - P)).sqrt())


def _limit_rows(groups: tuple[int, ...]) -> list[Row]:
    """Weight and objective against their limits and the first terms of their errors."""
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)[1:-1]
    P = torch.tensor(CHANCES, dtype=torch.float64)
    sd, rows = (P * (1 - P)).sqrt(), list[Row]()
    for G in groups:
        labels = {"world": "any", "G": G}
        ratio = grpo_kappa(grid, G) * (grid * (1 - grid)).sqrt()
        rows += compare(_BELOW, ratio, 1.0, relation="<=", tolerance=_ROUNDING, labels=labels, axes=("grid",))
        if G < 64:
            continue
        first = 8 * G * sd**3 * (1 / sd - grpo_kappa(P, G))
        second = (0.75 + 7 / 16 * (1 - 2 * P) ** 2 / sd**2) / G
        rows += compare(_WEIGHT, first, 1.0 + second, tolerance=second, labels=labels, axes=("chance",))
        gap, leading = arcsine(P) - grpo_objective(P, G), -ZETA / G**0.5
        rows += compare(_OBJECTIVE, gap / leading, objective_gap(P, G) / leading, tolerance=1 / G, labels=labels,
                        axes=("chance",))  # fmt: skip
        at_64 = arcsine(P) - grpo_objective(P, 64)
        relation = "report" if G == 64 else "=="
        rows += compare(_FASTER, G * gap / (64 * at_64), 1.0, tolerance=4 / 64, relation=relation, labels=labels,
                        axes=("chance",))  # fmt: skip
    return rows


def draw(rows: pd.DataFrame, figure: Any) -> None:
    """What is climbed, its slope, and where the update points."""
    from figures.drawing.panels import legend_above
    from figures.drawing.style import COLOURS, EXACT, MARKERS

    left, middle, right = figure.subplots(1, 3)
    P = torch.linspace(-9, 9, 300, dtype=torch.float64).sigmoid()
    for G, colour in ((2, "costate"), (4, "score"), (16, "score_value"), (64, "score_best")):
        left.plot(P, grpo_objective(P, G), color=COLOURS[colour], label=f"G = {G}")
        middle.plot(P, grpo_kappa(P, G), color=COLOURS[colour])
    left.plot(P, arcsine(P), label="2 arcsin sqrt P", **EXACT)
    middle.plot(P, (P * (1 - P)).rsqrt(), **EXACT)
    left.set(xlabel="success probability P", ylabel="F_G(P)", title="what is climbed")
    middle.set(xscale="logit", yscale="log", ylim=(0.8, 20), xlabel="success probability P", ylabel="c_G(P)",
               title="a prompt's weight", xticks=(1e-3, 0.1, 0.5, 0.9, 0.999), yticks=(1, 2, 4, 8, 16))  # fmt: skip
    middle.set_xticklabels(("0.001", "0.1", "0.5", "0.9", "0.999"))
    middle.set_yticklabels(("1", "2", "4", "8", "16"))
    middle.minorticks_off()
    cosines = rows[rows["part"] == _COSINE]
    for i, (target, colour) in enumerate((("J", "critic"), ("2 arcsin sqrt P", "reference"))):
        of_G = cosines[cosines["of"] == target].groupby("G")["measured"]
        median = of_G.median()
        spans = [(median - of_G.min()).clip(lower=0), (of_G.max() - median).clip(lower=0)]  # cosines of 1 to rounding
        right.errorbar(median.index * 1.06 ** (2 * i - 1), median, spans, fmt=MARKERS[4 + i], ms=6, capsize=2,
                       color=COLOURS[colour], label=f"cosine to grad {target}")  # fmt: skip
    right.axhline(1, **EXACT)
    right.set(xscale="log", xlabel="group size G", ylabel="cosine (median, range)", title="where the update points",
              xticks=(2, 8, 32, 128, 512), ylim=(None, 1.02))  # fmt: skip
    right.set_xticklabels(("2", "8", "32", "128", "512"))
    right.minorticks_off()
    legend_above(figure, left, right)


CLAIM = Claim(
    name="grpo_arcsine",
    statement="GRPO with std climbs F_G(P), which tends to 2 arcsin sqrt P",
    formula=r"\mathbb{E}[\text{update}] = \nabla_\theta\sum_x w_x F_G(P_x),\qquad F_G(P)=\int_0^P c_G,\qquad"
    r" F_G(P) = 2\arcsin\sqrt P + \frac{\zeta(1/2)}{\sqrt G} + O(1/G)",
    source="theory page section 4; the error terms are ours",
    assumptions=("A5",),
    must_hold="Binary rewards, no length factor, on-policy, any prompts, population and sample std: F_G at every G; "
    "c_G <= 1/sqrt(P(1-P)), with equality only in the limit; c_2 = 1 and c_3 = sqrt 2, where GRPO climbs J",
    must_fail="2 arcsin sqrt P at finite G; J from G = 4 on; an error of the objective that falls like 1/G",
    how_to_read="Left, what GRPO climbs at each group size: straight (J itself) at G = 2, near the dashed 2 arcsin sqrt P at "
    "large G; the gap falls like 1.46 / sqrt G. Middle, the weight of a prompt: it saturates at sqrt(G-1), below the dashed "
    "limit, where P < 1/G. Right, the mean update over prompts (closed form) turns from grad J to the arcsine's.",
    parts=(
        Part(_FINITE, "claim", "holds"),
        Part(_SMALL, "claim", "holds"),
        Part(_BELOW, "claim", "holds"),
        Part(_WEIGHT, "claim", "holds"),
        Part(_OBJECTIVE, "claim", "holds"),
        Part(_ARCSINE, "control", "fails", every="G"),
        Part(_J, "control", "fails", every="G"),
        Part(_FASTER, "control", "fails", every="G"),
    ),
    settings=settings,
    measure=measure,
    draw=draw,
)
