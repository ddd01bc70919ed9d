"""What is known of a policy in training that thinks in relaxed tokens: its return, entropy and gradient.

For two tokens and at most two thoughts the thoughts are integrated out by quadrature (`theory.tokens.soft_thoughts`). For
others, and for the clamped noise of the paper's code, the return is a mean over noise that is drawn once, exact in the answer
given the thoughts: an estimate, on the same noise at every step.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.learner import Target
from agents.recipes.soft_thoughts import CLAMP, SoftThoughts
from agents.sampling.soft_thoughts import thought_law
from agents.training.copies import Copies
from agents.training.settings import Oracle
from agents.training.soft_task import SoftThoughtTask
from agents.training.tasks import Rollouts
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.completions import mean_entropy
from theory.tokens.prefix_tree import Roots, Tree, grow, prompt_roots
from theory.tokens.soft_thoughts import Rule, drawn_rules, logistic_rule, think
from theory.tokens.tree_gradients import score_surrogate
from theory.tokens.tree_size import check_size

NODES, DRAWS = 40, 256  # of a thought's integral; of the noise where there is none
_SEED = 0x50F7  # of the noise that is drawn once


class SoftOracle:
    """Answers of all prompts from trees that begin after the thoughts.

    Attributes:
        note: what is to be said of the numbers; "" where they are exact.

    Args:
        world: the token world.
        soft: how rows think.
        budget: bytes that the trees may take.
        draws: of the noise, where it is not integrated out.
    """

    def __init__(self, world: TokenMDP, soft: SoftThoughts, budget: int, draws: int = DRAWS):
        self.world, self.soft, self.budget, self.draws = world, soft, budget, draws
        self.exact = world.V == 2 and soft.thoughts <= 2 and not soft.official
        self.note = "" if self.exact else f"J and cosine are estimates from {draws} draws of the thoughts' noise"

    @property
    def roots(self) -> int:
        """Number of contexts from which trees are grown."""
        return len(self.world.prompts) * (NODES**self.soft.thoughts if self.exact else self.draws)

    def rules(self) -> list[Rule]:
        """How thoughts are followed, one rule for each."""
        if self.exact:
            return [logistic_rule(self.soft.tau, NODES)] * self.soft.thoughts
        rng = torch.Generator().manual_seed(_SEED)
        uniforms = torch.rand(self.draws, self.soft.thoughts, self.world.V, generator=rng, dtype=torch.float64)
        noise = -(-uniforms.clamp(min=2.0**-54).log()).log()
        return drawn_rules(self.soft.tau, noise.clamp(*CLAMP) if self.soft.official else noise, self._law)

    def _law(self, logits: Tensor) -> Tensor:
        return thought_law(logits, self.soft)

    def tree(self, policy: TokenPolicy) -> Tree:
        """Trees of answers after all thoughts that are followed, attached to the thoughts' graph."""
        like = next(policy.parameters())
        world = self.world.to(str(like.device), like.dtype)
        start = prompt_roots(world, policy)
        drawn = think(policy, start.x, self.rules())
        n = len(drawn.x) // len(start.x)
        reach = start.reach.repeat_interleave(n) * drawn.weight
        roots = Roots(drawn.x, start.belief.repeat_interleave(n, 0), reach)
        return grow(world, policy, budget=self.budget, roots=roots)

    def answers(self, actor: Copies) -> tuple[Tensor, Tensor, list[Tensor]]:
        """J, the mean entropy of the answer's steps, and grad J through answers and thoughts, for every copy."""

        def whole(policy: TokenPolicy) -> tuple[Tensor, Tensor, Tensor]:
            tree = self.tree(policy)
            return tree.J, mean_entropy(tree), score_surrogate(tree)

        J, H, surrogate = actor.run(whole)
        return J.detach(), H, list(torch.autograd.grad(surrogate.sum(), actor.parameters))

    def gradient(self, actor: Copies) -> tuple[Tensor, list[Tensor]]:
        """J and its gradient."""
        J, _, gradients = self.answers(actor)
        return J, gradients

    def target_gradient(self, actor: Copies, target: Target, reference: Copies | None) -> list[Tensor] | None:
        """None: no other target than the return is computed here."""
        return None

    def values(self, actor: Copies, rows: Rollouts) -> Float[Tensor, "S rows T"]:
        """Refused: thoughts have no values here."""
        raise InputError("critic must be left out with soft thoughts: their values are not computed")


def soft_task_and_oracle(
    world: object, soft: SoftThoughts, policy: TokenPolicy, copies: int = 1, budget: int = 2**31
) -> tuple[SoftThoughtTask, Oracle | None, str]:
    """Return (task, oracle, reason) as `figures.measures.oracles.task_and_oracle`, for rows with soft thoughts.

    Raises InputError for a world without tokens.
    """
    if not isinstance(world, TokenMDP):
        raise InputError("learner with soft thoughts thinks in tokens: take a token world")
    task, oracle = SoftThoughtTask(world, soft), SoftOracle(world, soft, budget // copies)
    try:
        check_size(world, policy, oracle.roots, True, oracle.budget)
    except InputError as error:
        return task, None, str(error)
    return task, oracle, ""
