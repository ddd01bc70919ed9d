"""What is exact of a policy in training: return, entropy, true gradient, a perfect critic's values."""

from typing import Any

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from agents.training.copies import Copies
from agents.training.tasks import CommandTask, Rollouts, Task, TokenTask
from envs.linear_quadratic import LinearQuadratic
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.continuous.lq_gradients import expected_return, policy_gradient
from theory.continuous.lyapunov import linear_value
from theory.tokens.completions import mean_entropy
from theory.tokens.prefix_tree import DEFAULT_BUDGET, check_size, grow
from theory.tokens.tree_gradients import score_surrogate

_SCIPY = {"gaussian": stats.norm, "laplace": stats.laplace, "logistic": stats.logistic, "gumbel": stats.gumbel_r}


class TokenOracle:
    """The prefix tree of a token world."""

    def __init__(self, world: TokenMDP, budget: int = DEFAULT_BUDGET):
        self.world, self.budget = world, budget

    def answers(self, actor: Copies) -> tuple[Tensor, Tensor, list[Tensor]]:
        """J, mean entropy of the steps of a completion, and `grad J`."""

        def whole(policy: TokenPolicy) -> tuple[Tensor, Tensor, Tensor]:
            tree = grow(self.world, policy, budget=self.budget)
            return tree.J, mean_entropy(tree), score_surrogate(tree)

        J, H, surrogate = actor.run(whole)
        return J.detach(), H, list(torch.autograd.grad(surrogate.sum(), actor.parameters))

    def values(self, actor: Copies, rows: Rollouts) -> Float[Tensor, "S rows T"]:
        """`gamma^k V_k` of the prefixes that the rows went through."""

        def along(policy: TokenPolicy, tokens: Tensor, node: Tensor) -> Tensor:
            found, V = [], grow(self.world, policy, budget=self.budget).V
            for k in range(self.world.horizon):
                found.append(self.world.gamma**k * V[k][node])
                node = node * self.world.V + tokens[:, k]
            return torch.stack(found, 1)

        with torch.no_grad():
            return actor.run(along, rows.seen[0][..., -self.world.horizon :], rows.prompt).double()


class CommandOracle:
    """The closed forms of a linear-quadratic world under a linear policy."""

    def __init__(self, world: Any):
        if type(world) is not LinearQuadratic:
            raise InputError(f"world must be linear-quadratic for closed forms; got {type(world).__name__}")
        self.world = world.to()
        family = _SCIPY.get(world.noise, stats.uniform)
        scale = 1 / family.std()
        _, log_det = torch.linalg.slogdet(self.world.L_x)
        self.entropy = float(world.m * family(scale=scale).entropy() + log_det)

    def answers(self, actor: Copies) -> tuple[Tensor, Tensor, list[Tensor]]:
        """J, the noise's differential entropy, and `grad_K J`."""
        gains = [actor.network_of(i).K.detach().double().cpu() for i in range(actor.count)]
        J = torch.stack([expected_return(self.world, K) for K in gains])
        gradients = torch.stack([policy_gradient(self.world, K) for K in gains]).to(actor.like)
        return J, torch.full_like(J, self.entropy), [gradients if actor.count > 1 else gradients[0]]

    def values(self, actor: Copies, rows: Rollouts) -> Float[Tensor, "S rows T"]:
        """`gamma^t V_t(s_t)`."""
        found = []
        for i, states in enumerate(rows.seen[0].double().cpu()):
            value = linear_value(self.world, actor.network_of(i).K.detach().double().cpu())
            columns = [self.world.gamma**t * value.value(states[:, t], t) for t in range(states.shape[1])]
            found.append(torch.stack(columns, 1))
        return torch.stack(found).to(rows.old.device)


def task_and_oracle(world: Any, policy: TokenPolicy, copies: int = 1, budget: int = 2**31) -> tuple[Task, Any, str]:
    """The world as the training loop sees it, the oracle of so many policies, and why there is none (else "")."""
    budget //= copies
    if isinstance(world, TokenMDP):
        try:
            check_size(world, policy, len(world.prompts), True, budget)
        except InputError as error:
            return TokenTask(world), None, str(error)
        return TokenTask(world), TokenOracle(world, budget), ""
    task = CommandTask(world)
    try:
        return task, CommandOracle(world), ""
    except InputError as error:
        return task, None, str(error)


def best_return(world: Any) -> float | None:
    """The largest expected return that a policy can have, where it is known."""
    if isinstance(world, TokenMDP):
        return world.optimal_return
    if type(world) is not LinearQuadratic:
        return None
    from theory.continuous.riccati import riccati

    return float(expected_return(world.to(), riccati(world.to()).K))
