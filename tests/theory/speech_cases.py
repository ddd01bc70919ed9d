"""Worlds in which the environment speaks, and all that may be said and happen there, by plain loops."""

import itertools
import math
from functools import cache

import numpy as np
import torch

from envs.token_mdp import TokenMDP
from envs.tool_tasks import ask_oracle
from tests.theory.token_cases import transformer


def talking(horizon=3, gamma=0.8):
    """Chance everywhere, hidden states, rewards at every step; the environment speaks first after the second prompt.

    It speaks in states 3 and 4. The policy's token 0 and the environment's token 2 lead there, all others to states 0, 1, 2.
    """
    rng = np.random.default_rng(5)
    P, speech = np.zeros((5, 3, 5)), np.zeros((5, 3))
    for z, a in np.ndindex(5, 3):
        to = [3, 4] if (z < 3 and a == 0) or (z >= 3 and a == 2) else [0, 1, 2]
        P[z, a, to] = rng.dirichlet(np.ones(len(to)))
    speech[3], speech[4] = [0.6, 0.4, 0.0], [0.2, 0.5, 0.3]
    r = rng.standard_normal((horizon, 5, 3))
    return TokenMDP(P, r, [[0, 1], [2, 2]], [1, 3], horizon, gamma, weights=[0.3, 0.7], speech=speech)


def by_the_clock(horizon=4, gamma=0.9):
    """The environment speaks at every second step, whatever is said, so relaxed tokens leave no doubt about the turn."""
    rng = np.random.default_rng(6)
    P, speech = np.zeros((4, 2, 4)), np.zeros((4, 2))
    for z, a in np.ndindex(4, 2):
        P[z, a, [2, 3] if z < 2 else [0, 1]] = rng.dirichlet([1, 1])
    speech[2:] = [[0.7, 0.3], [0.1, 0.9]]
    return TokenMDP(P, rng.standard_normal((horizon, 4, 2)), [[0], [1]], [0, 1], horizon, gamma, speech=speech)


WORLDS = {
    "talking": talking,
    "by the clock": by_the_clock,
    "oracle": lambda: ask_oracle(2, 1, noise=0.2, cost=0.1, gamma=0.9),
    "sure oracle": ask_oracle,
}


@cache
def world_of(name):
    return WORLDS[name]()


def policy_of(world, seed=0):
    return transformer(world, temperature=0.3, seed=seed)


class Conversations:
    """All tokens with all states on the way, of every prompt: rewards, turns, and the environment's part of the chances.

    What is said after an end token is written 0, once.
    """

    def __init__(self, world):
        self.world, found = world, []
        for prompt, start in enumerate(world.starts.tolist()):
            self._follow(prompt, [], [start], 1.0, found)
        self.prompt = torch.tensor([prompt for prompt, *_ in found])
        self.words = [tuple(word) for _, word, *_ in found]
        self.tokens = torch.tensor(self.words)
        self.states = [states for _, _, states, _ in found]
        self.chance = torch.tensor([chance for *_, chance in found], dtype=torch.float64)
        ends = [word.index(world.end) + 1 if world.end in word else world.horizon for word in self.words]
        self.span = torch.tensor([[k < n for k in range(world.horizon)] for n in ends])
        speaks = [[float(world.speech[z].sum()) > 0 for z in states] for states in self.states]
        self.mask = self.span & ~torch.tensor(speaks)
        self.ended = torch.tensor([world.end in word for word in self.words])
        rewards = [
            [world.gamma**k * float(world.r[k, z, c]) for k, (z, c) in enumerate(zip(states, word, strict=True))]
            for word, states in zip(self.words, self.states, strict=True)
        ]
        self.rewards = torch.tensor(rewards, dtype=torch.float64) * self.span

    def _follow(self, prompt, word, states, chance, found):
        world, z = self.world, states[-1]
        if len(word) == world.horizon:
            found.append((prompt, word, states, chance))
            return
        over = world.end in word
        speaks = float(world.speech[z].sum()) > 0 and not over
        for c in [0] if over else range(world.V):
            said = float(world.speech[z, c]) if speaks else 1.0
            last = len(word) + 1 == world.horizon or over or c == world.end
            ways = [(z, 1.0)] if last else [(y, float(world.P[z, c, y])) for y in range(world.S)]
            for y, p in ways:
                if said * p > 0:
                    after = states if len(word) + 1 == world.horizon else [*states, y]
                    self._follow(prompt, [*word, c], after, chance * said * p, found)

    def log_probs(self, policy, probes=None):
        """`log pi` of every token, and entropies, by running whole contexts."""
        context = torch.cat([self.world.prompts[self.prompt], self.tokens[:, :-1]], 1)
        log_pi = torch.log_softmax(policy(policy.embed(context), probes), -1)[:, self.world.prompts.shape[1] - 1 :]
        return log_pi.gather(-1, self.tokens[..., None])[..., 0], -(log_pi.exp() * log_pi).sum(-1)

    def p(self, policy, probes=None):
        """Probability of everything that is said and happens, given the prompt; it carries the policy's gradient."""
        own = torch.where(self.mask, self.log_probs(policy, probes)[0], 0.0)
        return own.sum(1).exp() * self.chance

    def J(self, policy, probes=None):
        """The expected return."""
        return (self.world.weights[self.prompt] * self.p(policy, probes)) @ self.rewards.sum(1)

    def value(self, policy, prompt, said):
        """(probability of some tokens, mean return from there on, undiscounted to that step), or (0, None)."""
        k = len(said)
        rows = [i for i, w in enumerate(self.words) if int(self.prompt[i]) == prompt and w[:k] == tuple(said)]
        p = self.p(policy).detach()[rows]
        if not len(rows) or float(p.sum()) == 0:
            return 0.0, None
        later = self.rewards[rows][:, k:].sum(1) / self.world.gamma**k
        return float(p.sum()), float(p @ later / p.sum())

    def fields(self):
        """What a batch holds of every conversation."""
        own = {"rewards": self.rewards, "mask": self.mask, "span": self.span}
        return own if self.world.end is None else own | {"ended": self.ended}

    def groups(self, policy, G):
        """Every ordered group of conversations of one prompt, with its probability times the prompt's weight."""
        p = self.p(policy).detach()
        for prompt, weight in enumerate(self.world.weights.tolist()):
            rows = (self.prompt == prompt).nonzero()[:, 0].tolist()
            for group in itertools.product(rows, repeat=G):
                yield list(group), weight * math.prod(float(p[i]) for i in group)
