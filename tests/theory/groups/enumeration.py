"""All completions of a token world by plain loops: the independent road to every answer about groups."""

import itertools
import math

import torch

from envs.token_mdp import TokenMDP
from envs.token_tasks import combination_lock, garnet, sum_and_stop
from tests.theory.token_cases import transformer


def two_prompts():
    """Dense rewards, a discount, two prompts of unequal weight."""
    g = garnet(V=2, states=3, horizon=2, gamma=0.8, seed=3)
    return TokenMDP(g.P, g.r, [[0, 1], [1, 1]], [1, 2], 2, 0.8, weights=[0.3, 0.7])


WORLDS = {
    "two prompts": two_prompts(),
    "numbers and stop": sum_and_stop(2, 3, gamma=0.9),
    "when to stop": sum_and_stop(1, 3, gamma=0.7),
    "lock": combination_lock(2, 2),
}


def policy_of(world, seed=0):
    return transformer(world, temperature=0.3, seed=seed)


def words_of(world):
    """Every completion once: up to its end token, or of all steps; by plain loops."""
    words = []
    for prompt in range(len(world.prompts)):
        for word in itertools.product(range(world.V), repeat=world.horizon):
            n = word.index(world.end) + 1 if world.end in word else world.horizon
            if not any(word[n:]):  # what follows the end is written 0, once
                words.append((prompt, word, n))
    return words


def paths_of(world, prompt, word, n):
    """All states on the way of a word's own steps, with their probability given the word; by plain loops."""
    paths = [([int(world.starts[prompt])], 1.0)]
    for token in word[: n - 1]:
        paths = [
            ([*states, z], chance * float(world.P[states[-1], token, z]))
            for states, chance in paths
            for z in range(world.S)
            if world.P[states[-1], token, z] > 0
        ]
    return paths


class Enumeration:
    """All completions of a world, words and states: rewards as drawn, log-probabilities by running whole contexts.

    `words` has an entry for every completion: a word with several paths of states is there several times.
    """

    def __init__(self, world):
        found = [(word, states, chance) for word in words_of(world) for states, chance in paths_of(world, *word)]
        self.world, self.words = world, [word for word, _, _ in found]
        self.given = torch.tensor([chance for _, _, chance in found], dtype=torch.float64)
        self.states = [states for _, states, _ in found]
        self.prompt = torch.tensor([prompt for prompt, _, _ in self.words])
        self.tokens = torch.tensor([word for _, word, _ in self.words])
        self.mask = torch.tensor([[t < n for t in range(world.horizon)] for _, _, n in self.words])
        self.rewards = torch.tensor(
            [self._rewards_of(*both) for both in zip(self.words, self.states, strict=True)], dtype=torch.float64
        )
        self.ended = torch.tensor([world.end in word[:n] for _, word, n in self.words])

    def _rewards_of(self, spoken, states):
        (_, word, n), rewards = spoken, [0.0] * self.world.horizon
        for k in range(n):
            rewards[k] = self.world.gamma**k * float(self.world.r[k, states[k], word[k]])
        return rewards

    def evaluate(self, policy, probes=None, rows=slice(None)):
        """`log pi` and entropies, (rows, H)."""
        context = torch.cat([self.world.prompts[self.prompt[rows]], self.tokens[rows, :-1]], 1)
        log_pi = torch.log_softmax(policy(policy.embed(context), probes), -1)[:, self.world.prompts.shape[1] - 1 :]
        return log_pi.gather(-1, self.tokens[rows, :, None])[..., 0], -(log_pi.exp() * log_pi).sum(-1)

    def chances(self, policy):
        """Probability of every completion given its prompt."""
        return (self.evaluate(policy)[0].detach() * self.mask).sum(1).exp() * self.given

    def nodes(self, k):
        """Index of every completion's prefix of k tokens among the nodes of level k."""
        place = self.prompt.clone()
        for t in range(k):
            place = place * self.world.V + self.tokens[:, t]
        return place

    def values(self, critic):
        """`gamma^k V_k` along every completion."""
        return torch.stack([self.world.gamma**k * V[self.nodes(k)] for k, V in enumerate(critic)], 1)

    def fields(self, behaviour=None, reference=None, critic=None):
        """What a batch holds of every completion."""
        fields = {"rewards": self.rewards, "mask": self.mask}
        if behaviour is not None:
            fields["old"] = self.evaluate(behaviour)[0].detach()
        if reference is not None:
            fields["reference"] = self.evaluate(reference)[0].detach()
        if critic is not None:
            fields["values"] = self.values(critic)
        return fields | ({} if self.world.end is None else {"ended": self.ended})

    def groups(self, policy, G):
        """Every ordered group of completions of one prompt, with its probability times the prompt's weight."""
        p = self.chances(policy)
        for prompt, weight in enumerate(self.world.weights.tolist()):
            rows = (self.prompt == prompt).nonzero()[:, 0].tolist()
            for group in itertools.product(rows, repeat=G):
                yield list(group), weight * math.prod(float(p[i]) for i in group)
