"""What breaks "a critic-free update is a multiple of the gradient", and what such an update ascends instead.

A *breaker* is one ingredient of a recipe; the recipe without it is *mended*: its mean update is a multiple of the gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.learners import Learner, Penalty, build_learner
from agents.recipes.surrogates import importance, row_sum
from figures.measures.policy_pairs import PolicyPair, ascended_pair
from theory.groups.binary_rewards import baseline_kappa, grpo_kappa
from theory.groups.expected_update import ExpectedUpdate, expected_update
from theory.groups.kl import kl_at_prefixes
from theory.groups.objectives import (
    Objective,
    frozen_objective,
    length_objective,
    row_weights,
    trust_region_objective,
)
from theory.tokens.completions import Completions, Words, completions, words
from theory.tokens.prefix_tree import Tree, grow

LENGTH, TOKENS, STD, CLIP, K3 = BREAKERS = (
    "1/|o|, lengths vary",
    "group token mean, lengths vary",
    "std, dense rewards",
    "clip, several steps",
    "k3 in the loss",
)
NO_STD, WITH_STD = "GRPO without std", "GRPO"
# breaker -> recipes, worlds, group sizes
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]] = {
    LENGTH: ((NO_STD, WITH_STD, "GSPO"), ("stop (2,4)", "stop (3,3)", "lock (2,3)"), (4,)),
    TOKENS: (("DAPO",), ("stop (2,4)", "stop (3,3)"), (4,)),
    STD: ((WITH_STD,), ("dense (2,3)",), (2, 4, 6)),
    CLIP: (("Dr. GRPO",), ("stop (3,3)", "garnet (2,3)"), (2,)),
    K3: (("RLOO",), ("stop (3,3)", "garnet (2,3)"), (2,)),
}
# explanations of an update: the first is true, the others are false
ASCENDED, SHORTER = "what is climbed instead", "E[R/|o|] alone is climbed"
REVERSE, UNCLIPPED = "k3 climbs J - beta KL(pi||ref)", "the clip does nothing"


class Explanation(NamedTuple):
    """The objective that an update is said to ascend."""

    name: str
    update: Float[Tensor, "parameters"]
    objective: Objective


@dataclass(frozen=True)
class BreakerCase:
    """A breaker in a recipe at a group size, and the policies that it is measured on; `beta` is the KL term's coefficient."""

    breaker: str
    recipe: str
    group: int
    pair: PolicyPair
    beta: float = 0.2

    def recipes(self) -> tuple[Learner, Learner]:
        """The recipe with its breaker, and mended."""
        if self.breaker == LENGTH and self.recipe == "GSPO":
            return _and_row_sum(build_learner("gspo"))
        return {
            LENGTH: _and_row_sum(build_learner("grpo", std="none" if self.recipe == NO_STD else "population")),
            TOKENS: _and_row_sum(build_learner("dapo")),
            STD: (build_learner("grpo", length="row sum"), build_learner("dr_grpo")),
            CLIP: (build_learner("dr_grpo"), build_learner("dr_grpo")),
            K3: (build_learner("rloo", kl_loss=Penalty("k3", self.beta)), build_learner("rloo")),
        }[self.breaker]

    def updates(self) -> tuple[ExpectedUpdate, ExpectedUpdate]:
        """Exact mean updates with the breaker and mended; only with the clip do the rows come from the other policy."""
        (broken, mended), pair = self.recipes(), self.pair
        behaviour, reference = (pair.other if self.breaker == breaker else None for breaker in (CLIP, K3))
        return (
            expected_update(pair.world, pair.policy, broken, self.group, behaviour=behaviour, reference=reference),
            expected_update(pair.world, pair.policy, mended, self.group),
        )

    def trees(self) -> tuple[Tree, Tree]:
        """The prefixes under the policy and under the other, as constants."""
        with torch.no_grad():
            return grow(self.pair.world, self.pair.policy), grow(self.pair.world, self.pair.other)

    def completions(self) -> Completions:
        """All completions of the policy."""
        return completions(self.trees()[0])

    def words(self) -> Words:
        """All words of the policy."""
        return words(self.trees()[0])

    def explanations(self, broken: ExpectedUpdate) -> list[Explanation]:
        """A true explanation of the update with the breaker, then a false one where there is one that lies near."""
        explain: dict[str, Callable[[ExpectedUpdate], list[Explanation]]] = {
            LENGTH: self._by_length,
            TOKENS: self._by_weights,
            STD: self._by_weights,
            CLIP: self._by_trust_region,
            K3: self._by_penalty,
        }
        return explain[self.breaker](broken)

    def _by_length(self, broken: ExpectedUpdate) -> list[Explanation]:
        V, G, update = broken.J, self.group, broken.mean.flat
        kappa = baseline_kappa(G) if self.recipe == NO_STD else float(grpo_kappa(V, G))
        return [
            Explanation(ASCENDED, update, length_objective(kappa, V)),
            Explanation(SHORTER, update, length_objective(kappa, 0 * V)),
        ]

    def _by_weights(self, broken: ExpectedUpdate) -> list[Explanation]:
        return [Explanation(ASCENDED, broken.mean.flat, frozen_objective(row_weights(broken, self.words())))]

    def _by_trust_region(self, broken: ExpectedUpdate) -> list[Explanation]:
        pair, learner = self.pair, replace(self.recipes()[0], surrogate=importance)
        unclipped = expected_update(pair.world, pair.policy, learner, self.group, behaviour=pair.other)
        objective = trust_region_objective(self.trees()[1], baseline_kappa(self.group))
        return [
            Explanation(ASCENDED, unclipped.mean.flat, objective),
            Explanation(UNCLIPPED, broken.mean.flat, objective),
        ]

    def _by_penalty(self, broken: ExpectedUpdate) -> list[Explanation]:
        now, other = self.trees()

        def forward(tree: Tree) -> Tensor:
            return tree.J - self.beta * kl_at_prefixes(tree, other, now, forward=True)

        def reverse(tree: Tree) -> Tensor:
            return tree.J - self.beta * kl_at_prefixes(tree, other, tree, forward=False)

        update = broken.mean.flat
        return [Explanation(ASCENDED, update, forward), Explanation(REVERSE, update, reverse)]


def breaker_case(
    breaker: str,
    recipe: str,
    world: str,
    seed: int,
    ascended: int,
    group: int,
    ahead: int = 4,
    beta: float = 0.2,
    device: str = "cpu",
) -> BreakerCase:
    """The case of a setting; the clip's policy is `ahead` exact steps ahead of the one that drew the rows."""
    steps = ahead if breaker == CLIP else 0
    return BreakerCase(breaker, recipe, group, ascended_pair(world, seed, ascended, steps, device), beta)


def _and_row_sum(learner: Learner) -> tuple[Learner, Learner]:
    """The recipe, and the same without a length in its normaliser."""
    return learner, replace(learner, normalise=row_sum)
