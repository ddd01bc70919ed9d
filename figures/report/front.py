"""The README's picture: what a costate is, which backward pass carries it, and how GRPO scales it; computed, never typed.

`python -m figures.report.front figures/gallery/front.png` draws it again.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from agents.policies.linear import LinearPolicy
from agents.recipes.learners import grpo
from agents.sampling.rollout import rollout
from envs.linear_quadratic import scalar
from envs.noise import draw_noise
from figures.drawing.figures import WIDTH
from figures.drawing.frame import picture
from figures.drawing.style import COLOURS, EXACT, MARKERS, house_style, new_figure
from figures.harness.records import write_atomically
from figures.harness.statistics import estimate
from figures.measures.token_systems import build_policy, build_world, changed_policies
from theory.continuous.costates import autograd_costates
from theory.continuous.lyapunov import linear_value, mean_states
from theory.groups.binary_rewards import grpo_kappa
from theory.groups.expected_update import expected_update
from theory.tokens.costates import expected_costates
from theory.tokens.tree_gradients import tree_gradients

_PATHS, _SHOWN, _STEPS, _GAIN = 4000, 25, 12, 0.6
_GROUPS = (2, 4, 16)
_ASCENT = (0, 3, 6, 10, 16, 30)  # of exact ascent, for policies of several success rates


def draw_front(figure: Any, rng: torch.Generator) -> None:
    """The three panels.

    Args:
        figure: an empty one.
        rng: of the paths of the first panel; the others are exact.
    """
    paths, passes, kappas = figure.subplots(1, 3)
    _paths_panel(paths, rng)
    _passes_panel(passes)
    _kappa_panel(kappas)


def _paths_panel(axis: Any, rng: torch.Generator) -> None:
    """Costates of noisy paths, their mean, and the value gradient."""
    world, K = scalar(horizon=_STEPS), torch.tensor([[_GAIN]], dtype=torch.float64)
    trajectory = rollout(world, LinearPolicy(K), draw_noise(world, _PATHS, _STEPS, rng))
    costates = autograd_costates(trajectory.returns, trajectory.state_probe, world.gamma)[..., 0]
    times = range(costates.shape[1])
    for path in costates[1:_SHOWN]:
        axis.plot(times, path, color=COLOURS["costate"], lw=0.6, alpha=0.25)
    axis.plot(times, costates[0], color=COLOURS["costate"], lw=1.8, label="costate of one path")
    mean = estimate(costates.numpy())
    bars = {"color": COLOURS["control"], "ms": 4, "capsize": 2, "zorder": 3}
    axis.errorbar(times, mean.mean, 2 * mean.standard_error, fmt=MARKERS[0], label=f"mean of {_PATHS} paths", **bars)
    value, states = linear_value(world, K), mean_states(world, K)
    exact = [float(value.gradient(states[t], t)[0]) for t in times]
    axis.plot(times, exact, label="value gradient (exact)", **EXACT)
    axis.set(title="One path's costate is noisy;\nits mean is the value gradient", xlabel="time", ylabel="costate")
    axis.legend(fontsize="small")


def _passes_panel(axis: Any) -> None:
    """Means of two backward passes at every prefix against the value gradient, one point for each number."""
    world = build_world("lock")
    policy = build_policy(world, 0)
    levels = slice(0, world.horizon - 1)  # more than one step to go: one step before the end E1b is exact too
    truth = torch.cat([x.flatten() for x in tree_gradients(world, policy, sites="layer1").costates["layer1"][levels]])
    for name, text, colour, marker in (
        ("E2", "E2: through log pi of the tokens", "costate", "o"),
        ("E1b", "E1b: through attention alone", "control", "x"),
    ):
        found = torch.cat([x.flatten() for x in expected_costates(world, policy, name, "layer1")[levels]])
        axis.plot(truth, found, marker, color=COLOURS[colour], ms=4, alpha=0.7, label=text)
    ends = [float(truth.min()), float(truth.max())]
    axis.plot(ends, ends, label="value gradient (exact)", **EXACT)
    axis.set(
        title="loss.backward() carries it;\nattention alone does not", xlabel="value gradient", ylabel="mean costate"
    )
    axis.legend(fontsize="small", loc="upper left")


def _kappa_panel(axis: Any) -> None:
    """The factor of GRPO with std against the success rate: exact mean updates on the closed form."""
    world = build_world("lock")
    policies = changed_policies(world, 3, "trained", _ASCENT)
    grid = torch.linspace(0, 1, 401, dtype=torch.float64)
    for group, marker, colour in zip(_GROUPS, MARKERS, ("costate", "score", "score_value"), strict=False):
        axis.plot(grid, grpo_kappa(grid, group), **EXACT)
        for policy in policies:
            update = expected_update(world, policy, grpo(length="row sum"), group)
            style = {"color": COLOURS[colour], "ms": 6, "zorder": 3}
            label = f"G = {group}" if policy is policies[0] else None
            axis.plot(float(update.J), update.alignment.scale, marker, label=label, **style)
    axis.plot([], [], label="closed form (exact)", **EXACT)
    axis.set(
        title="GRPO's update is the gradient\ntimes a factor kappa", xlabel="success rate of the prompt", ylabel="kappa"
    )
    axis.set(ylim=(0, 6))
    axis.legend(fontsize="small", loc="upper center")


def main() -> None:
    """Draw it into the file that is named."""
    with house_style():
        figure = new_figure(3.6, WIDTH)
        draw_front(figure, torch.Generator().manual_seed(0))
        write_atomically(Path(sys.argv[1]), picture(figure, "png", None))


if __name__ == "__main__":
    main()
