"""Questions after lessons 1 to 3: one path and many, a cut path, beliefs, and backprop through chaos."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.linear import ClosedPath, LinearPolicy
from agents.sampling.rollout import rollout
from envs.noise import draw_noise
from envs.registry import make_world
from figures.report.question import Question, four_digits
from theory.continuous.chaotic_map import circle_moments
from theory.continuous.costates import autograd_costates
from theory.tokens.dynamic_programming import bellman_costates

_GAIN, _START, _PATHS = 0.4, 2.0, 10_000


def _first_costates(cut: bool) -> Float[Tensor, "paths"]:
    """`lambda_0` of paths that begin in one state, with or without the policy's path."""
    world = make_world("LQScalar", horizon=8).to()
    start = torch.full((1,), _START, dtype=torch.float64)
    world = replace(world, m_0=start, S_0=torch.zeros(1, 1, dtype=torch.float64))
    linear = LinearPolicy(torch.tensor([[_GAIN]], dtype=torch.float64))
    noise = draw_noise(world, _PATHS, world.horizon, torch.Generator().manual_seed(0))
    with torch.enable_grad():
        path = rollout(world, ClosedPath(linear, "all") if cut else linear, noise)
        return autograd_costates(path.returns, path.state_probe, world.gamma)[:, 0, 0].detach()


def one_costate_is_far_off() -> Question:
    """One path is one sample."""
    costates = _first_costates(cut=False)
    mean, sd = costates.mean(), costates.std()
    return Question(
        "My one costate is far from the value gradient. Is the backward pass wrong?",
        "No: one path is one sample.",
        "A costate depends on all the noise that comes after it; the value gradient is its mean. Compare the mean over many "
        "paths, and give it a standard error. A wrong backward pass shows itself by a mean that stays away.",
        (
            (f"mean of lambda_0 over {_PATHS:,} paths, LQScalar with 8 steps", four_digits(mean)),
            ("standard deviation of one path, and standard error of the mean", _pair(sd, sd / _PATHS**0.5)),
        ),
        lesson=1,
        claims=("costate_mean", "costate_covariance"),
        terms=("costate", "value gradient"),
    )


def detached_state() -> Question:
    """A cut path changes the mean."""
    whole, cut = _first_costates(cut=False), _first_costates(cut=True)
    return Question(
        "I detached the state that the policy reads. Do more paths repair the costate?",
        "No: its mean is another one.",
        "More paths make the standard error smaller, not the bias. The return depends on a state through the dynamics and "
        "through the policy that reads it, and a detach drops the second.",
        (
            ("mean of lambda_0, nothing cut; policy's path cut", _pair(whole.mean(), cut.mean())),
            ("standard errors of both", _pair(*(x.std() / _PATHS**0.5 for x in (whole, cut)))),
        ),
        lesson=1,
        claims=("assumption_removed",),
        terms=("costate",),
    )


def which_of_the_two() -> Question:
    """V for a belief, grad V for a vector."""
    world = make_world("TokenGarnet", V=3, states=4, horizon=5, gamma=0.8)
    pi = torch.full((world.S, world.V), 1 / world.V, dtype=torch.float64)
    costates = bellman_costates(world, pi)[0]
    return Question(
        "Is a costate V or grad V?",
        "V if the state is a belief, grad V if it is a vector.",
        "A costate is the derivative of the return in the state. A belief has one number for each state of the world, and the "
        "derivative in the probability of the state s is the return expected from s: V(s). A hidden vector has directions, "
        "and the derivative says how V changes along them.",
        (("costates of time 0 in a TokenGarnet of 4 states, each a V(s)", "; ".join(map(four_digits, costates))),),
        lesson=2,
        claims=("bellman_costate",),
        terms=("belief", "costate", "value", "value gradient"),
    )


def jumps_between_states() -> Question:
    """The belief is smooth although states are not."""
    world = make_world("TokenLock", V=3, horizon=4)
    costates = bellman_costates(world, torch.full((world.S, world.V), 1 / world.V, dtype=torch.float64))
    start = world.start_belief(0)
    return Question(
        "My world jumps from state to state. How can there be a derivative?",
        "The belief does not jump.",
        "The probabilities of the next states are a sum of products of the probabilities before, which is smooth however the "
        "world jumps, even if it is a lock that opens for one word. The return is linear in the belief, so that its derivative "
        "is the same wherever it is taken.",
        (
            ("lock, 3 tokens, 4 steps, tokens equally likely: belief times costate", four_digits(start @ costates[0])),
            ("chance of the one right word of 4 tokens", four_digits(world.V**-world.horizon)),
        ),
        lesson=2,
        claims=("bellman_costate",),
        terms=("belief", "return"),
    )


def backprop_in_chaos() -> Question:
    """Unbiased, with an exploding spread."""
    exact = circle_moments(make_world("ChaoticMap", beta=2.5, horizon=20), 1.0)
    lines = [(T, _pair(exact.pathwise_sd[T - 1], exact.score_sd[T - 1])) for T in (1, 5, 20)]
    return Question(
        "Why is backprop worse than REINFORCE in chaos? Its derivatives are exact.",
        "Exact for each path, but the paths disagree.",
        "The derivative of one path is a product of one factor for each step. In a chaotic map most factors are above 1 in "
        "size, and paths that begin alike get derivatives of either sign that are exponentially large. The mean is still "
        "right, but it takes exponentially many paths to see it. The score function adds up terms, and its spread grows like "
        "the root of the horizon.",
        tuple((f"T = {T}: standard deviation of one path, backprop; REINFORCE", pair) for T, pair in lines),
        lesson=3,
        claims=("chaos", "estimator_variance"),
        terms=("chaos", "pathwise gradient", "score"),
    )


def clipped_norm() -> Question:
    """A clip makes the step small, and biased."""
    world = make_world("ChaoticMap", beta=2.5, horizon=20)
    exact, rng = circle_moments(world, 1.0), torch.Generator().manual_seed(0)
    s, slope = torch.full((_PATHS,), world.start, dtype=torch.float64), torch.zeros(_PATHS, dtype=torch.float64)
    for _ in range(20):
        slope = world.beta * s.cos() * slope + 1
        s = world.beta * s.sin() + 1.0 + world.sd * torch.randn(_PATHS, generator=rng, dtype=torch.float64)
    clipped = (-s.sin() * slope).clamp(-1, 1)
    return Question(
        "I clip the norm of the gradient. Does that cure backprop in chaos?",
        "It cures the size, not the direction.",
        "A clip of single paths keeps little but their signs, and the mean of the signs is not the gradient. A clip of the "
        "batch's mean keeps a direction that is mostly noise. Shorten the horizon, or take the score function.",
        (
            ("exact gradient at T = 20", four_digits(exact.gradient[-1])),
            (
                f"mean of {_PATHS:,} paths, each clipped to 1; standard error",
                _pair(clipped.mean(), clipped.std() / _PATHS**0.5),
            ),
        ),
        lesson=3,
        claims=("chaos",),
        terms=("chaos", "pathwise gradient"),
    )


def _pair(x: float | Tensor, y: float | Tensor) -> str:
    return f"{four_digits(x)}; {four_digits(y)}"
