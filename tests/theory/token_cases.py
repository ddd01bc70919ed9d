"""Token worlds, policies and a brute-force road to every answer of the prefix tree: whole contexts, no cache, no autograd."""

import itertools
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from agents.policies.transformer import Transformer
from envs.token_mdp import TokenMDP
from envs.token_tasks import arithmetic, copy, garnet, parity


def several_prompts(horizon: int = 2) -> TokenMDP:
    """Stochastic tables, two prompts of two tokens with unlike start states and weights, a discount."""
    g = garnet(V=3, states=4, horizon=horizon, gamma=0.8, seed=3)
    return TokenMDP(g.P, g.r, [[0, 1], [2, 2]], [1, 3], horizon, 0.8, weights=[0.3, 0.7])


def worlds() -> dict[str, TokenMDP]:
    """name -> world: stochastic, weighted prompts, every prompt its own answer, dense with a discount, long credit."""
    return {
        "garnet": garnet(V=3, states=4, horizon=3, gamma=0.9, seed=1),
        "several_prompts": several_prompts(),
        "arithmetic": arithmetic(3, 2),
        "dense_copy": copy(2, 2, sparse=False, gamma=0.8),
        "parity": parity(2, 4),
    }


def with_readout(world: TokenMDP, width: int = 8) -> TokenMDP:
    """The same world, paying a hidden readout besides."""
    rng = torch.Generator().manual_seed(8)
    return replace(world, readout=torch.randn(width, generator=rng, dtype=torch.float64))


def transformer(world: TokenMDP, temperature: float = 1.0, seed: int = 0, **own) -> Transformer:
    """A narrow transformer with two layers."""
    return Transformer(world.V, width=8, heads=2, length=8, temperature=temperature, seed=seed, **own)


class Recurrent(nn.Module):
    """A user's network: a plain recurrent cell over embeddings, float64. It knows nothing of this suite."""

    def __init__(self, V: int, width: int = 5, seed: int = 0):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        draw = lambda *shape: nn.Parameter(torch.randn(*shape, generator=rng, dtype=torch.float64))  # noqa: E731
        self.E, self.inward, self.around, self.outward = draw(V, width), *(draw(width, k) for k in (width, width, V))

    def forward(self, x: Tensor) -> Tensor:
        h, out = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] @ self.inward + h @ self.around)
            out.append(h @ self.outward)
        return torch.stack(out, 1)


class Recomputing(nn.Module):
    """The thinnest wrap that makes any such network a policy: `extend` keeps all inputs and computes everything anew."""

    sites = ("embedding",)

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def embed(self, u: Tensor) -> Tensor:
        return u @ self.network.E if u.is_floating_point() else self.network.E[u]

    def forward(self, embeddings: Tensor, probes=None) -> Tensor:
        return self.network(embeddings + (probes or {}).get("embedding", 0.0))

    def extend(self, x: Tensor, cache: Tensor | None = None, probes=None) -> tuple[Tensor, Tensor]:
        x = x + (probes or {}).get("embedding", 0.0)
        seen = x if cache is None else torch.cat([cache.repeat_interleave(len(x) // len(cache), 0), x], 1)
        return self.network(seen)[:, -1], seen


@dataclass(frozen=True)
class Rollouts:
    """All prompts and token sequences (L of them, prompt first, last token fastest) under M values of delta."""

    world: TokenMDP
    tokens: Tensor  # (L, H)
    logits: Tensor  # (M, L, H, V)
    rewards: Tensor  # (M, L, H), of the token fed on
    averaged: Tensor  # (M, L, H), averaged over the own token

    @property
    def log_pi(self) -> Tensor:
        """Log-probability of each sequence's tokens, (M, L, H)."""
        index = self.tokens.expand(len(self.logits), -1, -1)[..., None]
        return torch.log_softmax(self.logits, -1).gather(-1, index)[..., 0]

    def chance(self, level: int) -> Tensor:
        """Probability of the tokens from `level` on, (M, L)."""
        return self.log_pi[..., level:].sum(-1).exp()

    def returns(self, level: int, averaged: bool = False) -> Tensor:
        """Discounted rewards from `level` on, (M, L)."""
        rewards = (self.averaged if averaged else self.rewards)[..., level:]
        return rewards @ self.world.gamma ** torch.arange(rewards.shape[-1], dtype=rewards.dtype)

    def by_node(self, values: Tensor, level: int) -> Tensor:
        """Sum of (M, L) numbers over the continuations of each node of `level`: (M, N)."""
        return values.reshape(len(values), len(self.world.prompts) * self.world.V**level, -1).sum(-1)

    def V(self, level: int) -> Tensor:
        """Value of every node, (M, N)."""
        return self.by_node(self.chance(level) * self.returns(level), level)

    def Q(self, level: int) -> Tensor:
        """Value after every token of every node, (M, N, V)."""
        summed = self.by_node(self.chance(level + 1) * self.returns(level), level + 1)
        return summed.unflatten(1, (-1, self.world.V))


@torch.no_grad()
def enumerate_rollouts(world, policy, alpha, site="embedding", level=0, deltas=None) -> Rollouts:
    """Run every sequence with `deltas` (M, positions, D) added at the nodes of `level`: all of the prompt at level 0."""
    words = torch.tensor(list(itertools.product(range(len(world.prompts)), *[range(world.V)] * world.horizon)))
    x = policy.embed(world.prompts[words[:, 0]])
    deltas = torch.zeros(1, x.shape[1] if level == 0 else 1, x.shape[2], dtype=x.dtype) if deltas is None else deltas
    start, M, L = 0 if level == 0 else x.shape[1] + level - 1, len(deltas), len(words)
    x, tokens = x.repeat(M, 1, 1), words[:, 1:].repeat(M, 1)
    belief = torch.eye(world.S, dtype=x.dtype)[world.starts[words[:, 0]]].repeat(M, 1)
    shift, kept = deltas.repeat_interleave(L, 0), []
    for k in range(world.horizon):
        probe = torch.zeros_like(x)
        if k >= level:
            probe[:, start : start + shift.shape[1]] = shift
        logits = policy(x, {site: probe})[:, -1]
        pi = torch.softmax(logits, -1)
        u = (1 - alpha) * pi + alpha * torch.eye(world.V, dtype=x.dtype)[tokens[:, k]]
        r = belief @ world.r[k]
        kept.append((logits, (r * u).sum(-1), (r * pi).sum(-1)))
        belief = sum(u[:, a, None] * (belief @ world.P[:, a]) for a in range(world.V))
        x = torch.cat([x, policy.embed(u)[:, None]], 1)
    if world.readout is not None:
        probe = torch.zeros_like(x)
        probe[:, start : start + shift.shape[1]] = shift
        paid = world.gamma * policy.hidden(x, None, {site: probe})[0] @ world.readout
        kept[-1] = (kept[-1][0], kept[-1][1] + paid, kept[-1][2] + paid)
    logits, rewards, averaged = (torch.stack(part, 1).unflatten(0, (M, L)) for part in zip(*kept, strict=True))
    return Rollouts(world, words[:, 1:], logits, rewards, averaged)


def both_ways(positions: int, width: int, step: float) -> Tensor:
    """Plus and minus one step along every coordinate: (2 positions width, positions, width)."""
    axes = step * torch.eye(positions * width, dtype=torch.float64)
    return torch.cat([axes, -axes]).unflatten(1, (positions, width))


def differences(measure, world, policy, alpha, site, level=0, step=1e-5) -> Tensor:
    """Central differences in delta of `measure(rollouts, rollouts without delta)`: (M, ...) -> (..., positions, D)."""
    width = policy.embed(torch.zeros(1, dtype=torch.int64)).shape[-1]
    positions = world.prompts.shape[1] if level == 0 else 1
    moved = enumerate_rollouts(world, policy, alpha, site, level, both_ways(positions, width, step))
    up, down = measure(moved, enumerate_rollouts(world, policy, alpha)).chunk(2)
    return ((up - down) / (2 * step)).movedim(0, -1).unflatten(-1, (positions, width))


def value_differences(world, policy, alpha, site, level=0) -> Tensor:
    """Value gradient of every node of a level, (N, positions, D)."""
    return differences(lambda moved, _: moved.V(level), world, policy, alpha, site, level)
