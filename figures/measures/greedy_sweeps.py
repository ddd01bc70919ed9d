"""Value-gradient learning under a greedy policy on paths: updates, backpropagation through the return, sweeps of one weight."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from agents.sampling.value_gradient_targets import vgl_targets
from envs.linear_quadratic import LinearQuadratic, random_system, symmetric_root
from envs.noise import Noise
from theory.continuous.costates import path_derivatives
from theory.continuous.greedy_value_gradient import greedy_policy


@dataclass(frozen=True)
class GreedyProblem:
    """A world with a critic `-s'C_t s + w_t's` at the times 1 ... T, whose `w = F p` is learned.

    Attributes:
        world: of finite horizon T.
        C: quadratic parts.
        F: features of the shared weights p, one row for each number of w.
    """

    world: LinearQuadratic
    C: Float[Tensor, "T n n"]
    F: Float[Tensor, "numbers weights"]


_SCALAR = {  # action cost, C_1, C_2, features of the one weight
    "VGL(0) diverges": (0.02, 0.0025, 0.0025, (1.0, -0.43)),
    "VGL(1) diverges": (0.05, 20.0, 0.0025, (1.0, -0.69)),
    "all converge": (0.01, 0.99, 0.99, (1.0, -0.5)),
}
PROBLEMS = tuple(_SCALAR)


def scalar_problem(name: str) -> GreedyProblem:
    """One state and action, two steps, paid for the last state and the actions; one weight."""
    cost, first, second, features = _SCALAR[name]
    world = LinearQuadratic(
        A=[[1.0]], B=[[1.0]], Q=[[0.0]], R=[[cost]], Q_f=[[1.0]], m_0=[1.0], S_0=[[0.0]], S_x=[[0.01]], horizon=2
    ).to()
    C = torch.tensor([[[first]], [[second]]], dtype=torch.float64)
    return GreedyProblem(world, C, torch.tensor(features, dtype=torch.float64)[:, None])


def random_problem(seed: int, rng: torch.Generator) -> GreedyProblem:
    """1 to 3 states, 1 or 2 actions, 2 to 5 steps and 1 to 3 weights, with a cross cost and linear ones."""
    n, m, T = 1 + seed % 3, 1 + seed % 2, 2 + seed % 4
    world = random_system(n, m, seed=seed, horizon=T, gamma=(0.9, 1.0)[seed % 2]).to()

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    mix = normal(n, m)
    cross = symmetric_root(world.Q) @ (0.5 * mix / mix.norm()) @ symmetric_root(world.R)
    world = world.replace(N=cross, q=normal(n), q_a=normal(m), q_f=normal(n))
    root = normal(T, n, n)
    return GreedyProblem(world, root @ root.mT / n, normal(T * n, 1 + seed % 3))


def still(world: LinearQuadratic) -> Noise:
    """One path without noise from the mean first state."""
    T = world.horizon or 1
    zeros = [torch.zeros(1, T, k, dtype=torch.float64) for k in (world.m, world.n)]
    return Noise(world.m_0[None], *zeros)


def mirrored(world: LinearQuadratic, noise: Noise) -> Noise:
    """The same noise with the opposite sign, the first state's too: where all is affine, the mean of both is without noise."""
    return Noise(2 * world.m_0.to(noise.s_0) - noise.s_0, -noise.xi, -noise.w)


def path_updates(
    problem: GreedyProblem, w: Float[Tensor, "T n"], lam: float, Omega: Tensor, noise: Noise
) -> Float[Tensor, "batch T n"]:
    """`Omega_t (g_t - grad V_t(s_t))` of VGL(lam) on sampled paths of the greedy policy, for t = 1 ... T."""
    policy = LinearPolicy(*greedy_policy(problem.world, problem.C, w)).to(noise.xi.device)
    with torch.no_grad():
        states = rollout(problem.world, policy, noise).states
    command = lambda s, t: policy(s[None, None], t)[0]  # noqa: E731
    Dr, Df, terminal = path_derivatives(problem.world, command, states, noise.xi, noise.w)
    critic = torch.zeros_like(states)
    critic[:, 1:] = w.to(states) - 2 * torch.einsum("tij,btj->bti", problem.C.to(states), states[:, 1:])
    targets = vgl_targets(Dr, Df, terminal, critic, problem.world.gamma, lam)
    return torch.einsum("tij,btj->bti", Omega.to(states), (targets - critic)[:, 1:]).detach()


@dataclass(frozen=True)
class _Greedy:
    """The greedy policy as a function of w, attached to autograd's graph."""

    K: Tensor
    k: Tensor
    window: int = 1

    def __call__(self, history: Tensor, t: int) -> Tensor:
        return -history[:, -1] @ self.K[t].mT - self.k[t]


def backpropagated(problem: GreedyProblem, w: Float[Tensor, "T n"]) -> Float[Tensor, "T n"]:
    """dJ/dw of the greedy policy by backpropagation through the world and the policy, without noise."""
    free = w.detach().clone().requires_grad_()
    returns = rollout(
        problem.world, _Greedy(*greedy_policy(problem.world, problem.C, free)), still(problem.world)
    ).returns
    (slope,) = torch.autograd.grad(returns.sum(), free)
    return slope


def sweeps(
    problem: GreedyProblem, lam: float, Omega: Tensor, step: float, count: int
) -> Float[Tensor, "steps weights"]:
    """The shared weights p after 0 ... `count` updates `p <- p + step F' dw` on the path without noise, from p = 1.

    Args:
        problem: the world and its critic.
        lam: lambda.
        Omega: the weight of the update at the times 1 ... T.
        step: of the update.
        count: number of updates.
    """
    noise, p = still(problem.world), torch.ones(problem.F.shape[1], dtype=torch.float64)
    path = [p]
    for _ in range(count):
        dw = path_updates(problem, (problem.F @ p).reshape(len(problem.C), -1), lam, Omega, noise)[0]
        p = p + step * problem.F.mT @ dw.flatten()
        path.append(p)
    return torch.stack(path)
