"""Small worlds, one policy of every kind, and plain loops that share no code with the sampler or the estimators."""

import torch
from torch import nn

from agents.policies.linear import ClosedPath, ConstantPolicy, LinearPolicy, PositionAttention
from agents.sampling.rollout import rollout
from envs.linear_quadratic import LinearQuadratic, random_system, scalar
from envs.noise import FAMILIES, draw_noise

SCORES, T = [[0.3, -0.4, 0.8], [-1.0, 0.5, 0.1]], 4


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def world(**changes):
    """Three states, two actions, four steps, everything full rank."""
    return random_system(3, 2, seed=5, horizon=T, gamma=0.8).replace(**changes)


def small(noise="gaussian", steps=3):
    """The scalar world, short and strongly discounted: a lost or doubled gamma^t is easily seen."""
    return scalar(horizon=steps, gamma=0.7, action_noise=0.5, noise=noise)


def one_step(r, sigma):
    """`R_0 = -r (K + sigma eps)^2`: the start is -1 for sure, so u = K, and nothing else costs."""
    zero = [[0.0]]
    return LinearQuadratic(
        A=zero, B=zero, Q=zero, R=[[r]], S_x=[[sigma**2]], m_0=[-1.0], S_0=zero, horizon=1, gamma=0.9
    )


class Network(nn.Module):
    """Not one of ours: a network that reads the mean of all the history that it is given, and the last state."""

    def __init__(self, window=None):
        super().__init__()
        self.window = window
        self.inner, self.bias = nn.Parameter(0.5 * draws(5, 6)), nn.Parameter(0.5 * draws(5, seed=1))
        self.outer = nn.Parameter(0.5 * draws(2, 5, seed=2))

    def forward(self, history, t):
        seen = torch.cat([history.mean(1), history[:, -1]], 1)
        return (1 + 0.1 * t) * torch.tanh(seen @ self.inner.T + self.bias) @ self.outer.T


def attention():
    return PositionAttention(SCORES, 0.4 * draws(2, 2, 3, seed=1))


POLICIES = {
    "linear": lambda: LinearPolicy(0.4 * draws(2, 3)),
    "time-varying": lambda: LinearPolicy(0.4 * draws(T, 2, 3)),
    "attention": attention,
    "constant": lambda: ConstantPolicy([0.5, -0.2]),
    "network": Network,
    "network of two states": lambda: Network(window=2),
    "attention, past closed": lambda: ClosedPath(attention(), "past"),
    "network, all closed": lambda: ClosedPath(Network(), "all"),
}


def sample(world, policy, batch, rng, steps=None):
    """The noise and the paths of one rollout."""
    noise = draw_noise(world, batch, steps or world.horizon, rng)
    return noise, rollout(world, policy, noise)


def plain_path(world, policy, noise, i):
    """States (1, times, n), commands, actions and rewards of sample i, one step at a time, with autograd's graph."""
    A, B, Q, R, Q_f = (torch.as_tensor(getattr(world, name)) for name in ("A", "B", "Q", "R", "Q_f"))
    states, commands, actions, rewards = [noise.s_0[i]], [], [], []
    for t in range(noise.xi.shape[1]):
        seen = torch.stack(states if policy.window is None else states[-policy.window :])
        commands.append(policy(seen[None], t)[0])
        actions.append(commands[-1] + noise.xi[i, t])
        s, a = states[-1], actions[-1]
        rewards.append(-(s @ Q @ s + a @ R @ a))
        states.append(A @ s + B @ a + noise.w[i, t])
    if world.horizon is not None:
        rewards.append(-(states[-1] @ Q_f @ states[-1]))
    return states, commands, actions, rewards


def return_from(rewards, gamma, t=0):
    return sum(gamma ** (k - t) * rewards[k] for k in range(t, len(rewards)))


def autograd_of(scalar_value, policy):
    """Name -> gradient of one number in every parameter (zeros where it does not depend on one)."""
    names, parameters = zip(*policy.named_parameters(), strict=True)
    slopes = torch.autograd.grad(scalar_value, parameters, allow_unused=True)
    return {k: torch.zeros_like(p) if g is None else g for k, p, g in zip(names, parameters, slopes, strict=True)}


def same(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-9, atol=1e-11)


MANY = 20_000
K_SMALL = torch.tensor([[0.8]], dtype=torch.float64)
MEANS = {
    "finite": (world(), 0.3 * draws(2, 3), T),
    "time-varying": (world(), 0.3 * draws(T, 2, 3), T),
    "endless": (small(steps=None), K_SMALL, 45),  # 0.7^45 = 1e-7 is cut off, far below the standard error
    **{noise: (small(noise), K_SMALL, 3) for noise in FAMILIES},
}
