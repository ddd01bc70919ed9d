"""Exact answers for a policy in training: return, entropy, gradient, and the values of a perfect critic."""

from collections.abc import Callable
from functools import cached_property, partial

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from agents.recipes.learner import Target
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.settings import Oracle
from agents.training.tasks import Rollouts, Task
from agents.training.token_task import TokenTask
from envs.linear_quadratic import LinearQuadratic
from envs.policy import Policy, TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError, World
from theory.continuous.lq_gradients import expected_return, offset_gradient, policy_gradient
from theory.continuous.lyapunov import linear_value
from theory.continuous.model_gradients import action_value_gradient
from theory.continuous.riccati import riccati
from theory.groups.kl import sequence_kl
from theory.groups.targets import max_at_k
from theory.tokens.completions import mean_entropy
from theory.tokens.live_prefixes import LivePrefixes, live_prefixes, live_surrogate
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import score_surrogate
from theory.tokens.tree_size import DEFAULT_BUDGET, check_size, node_count

_SCIPY = {"gaussian": stats.norm, "laplace": stats.laplace, "logistic": stats.logistic, "gumbel": stats.gumbel_r}


class TokenOracle:
    """Exact answers from the prefix tree of a token world, grown anew for every policy in at most `budget` bytes."""

    def __init__(self, world: TokenMDP, budget: int = DEFAULT_BUDGET):
        self.world, self.budget = world, budget

    def answers(self, actor: Copies) -> tuple[Tensor, Tensor, list[Tensor]]:
        """J, the mean entropy of a completion's steps, and `grad J`, for every copy of the policy."""

        def whole(policy: TokenPolicy) -> tuple[Tensor, Tensor, Tensor]:
            tree = grow(self.world, policy, budget=self.budget)
            return tree.J, mean_entropy(tree), score_surrogate(tree)

        J, H, surrogate = actor.run(whole)
        return J.detach(), H, list(torch.autograd.grad(surrogate.sum(), actor.parameters))

    def gradient(self, actor: Copies) -> tuple[Tensor, list[Tensor]]:
        """J and `grad J`: by the live prefixes where these are fewer positions to read than the tree has."""
        live = self._live
        if live is None:
            J, _, gradients = self.answers(actor)
            return J, gradients
        J, surrogate = actor.run(partial(live_surrogate, live.to(actor.like)))
        return J.detach(), list(torch.autograd.grad(surrogate.sum(), actor.parameters))

    def target_gradient(self, actor: Copies, target: Target, reference: Copies | None) -> list[Tensor] | None:
        """The gradient of `max@k - beta KL(pi || ref)`, for every copy of the policy against its own copy of the reference."""

        def logits(policy: TokenPolicy) -> tuple[Tensor, ...]:
            return tuple(level.logits for level in grow(self.world, policy, budget=self.budget).levels)

        def climbed(policy: TokenPolicy, *compared: Tensor) -> Tensor:
            tree = grow(self.world, policy, budget=self.budget)
            return max_at_k(target.k)(tree) - (target.beta * sequence_kl(tree, compared) if compared else 0.0)

        compared: tuple[Tensor, ...] = () if reference is None or not target.beta else reference.run(logits)
        return list(torch.autograd.grad(actor.run(climbed, *compared).sum(), actor.parameters))

    @cached_property
    def _live(self) -> LivePrefixes | None:
        live = live_prefixes(self.world)
        return live if live.positions < node_count(self.world) else None

    def values(self, actor: Copies, rows: Rollouts) -> Float[Tensor, "S rows T"]:
        """`gamma^k V_k` of the prefixes of every row."""

        def along(policy: TokenPolicy, tokens: Tensor, node: Tensor) -> Tensor:
            columns, V = [], grow(self.world, policy, budget=self.budget).V
            for k in range(self.world.horizon):
                columns.append(self.world.gamma**k * V[k][node])
                node = node * self.world.V + tokens[:, k]
            return torch.stack(columns, 1)

        with torch.no_grad():
            values: Tensor = actor.run(along, rows.seen[0][..., -self.world.horizon :], rows.prompt)
        return values.double()


class CommandOracle:
    """Exact answers from the closed forms of a linear-quadratic world under a linear policy.

    Raises InputError for a world without closed forms.
    """

    def __init__(self, world: World):
        if type(world) is not LinearQuadratic:
            raise InputError(f"world must be linear-quadratic for closed forms; got {type(world).__name__}")
        self.world = world.to()
        family = _SCIPY.get(world.noise, stats.uniform)
        scale = 1 / family.std()
        _, log_det = torch.linalg.slogdet(self.world.L_x)
        self.entropy = float(world.m * family(scale=scale).entropy() + log_det)

    def answers(self, actor: Copies) -> tuple[Tensor, Tensor, list[Tensor]]:
        """J, the differential entropy of the action noise, and the gradient in K (and k), for every copy of the policy."""
        policies = [_exact_policy(actor, i) for i in range(actor.count)]
        J = torch.stack([expected_return(self.world, K, k) for K, k in policies])
        by_copy = [policy_gradient(self.world, K, k) for K, k in policies]
        columns = [by_copy, [offset_gradient(self.world, K, k) for K, k in policies if k is not None]]
        gradients = [torch.stack(column).to(actor.like) for column in columns if column]
        return J, torch.full_like(J, self.entropy), gradients if actor.count > 1 else [x[0] for x in gradients]

    def gradient(self, actor: Copies) -> tuple[Tensor, list[Tensor]]:
        """J and its gradient in K (and k)."""
        J, _, gradients = self.answers(actor)
        return J, gradients

    def critic(self, actor: Copies, index: int, steps: int) -> Callable[..., Tensor]:
        """The exact critic that ends SVG(steps): `grad_a Q(s, a)` for 0 steps, else `grad V(s)`."""
        K, k = _exact_policy(actor, index)
        value = linear_value(self.world, K, k)

        def of_action(states: Tensor, actions: Tensor, t: int) -> Tensor:
            return action_value_gradient(self.world, K, states.cpu(), actions.cpu(), t, k).to(states)

        def of_state(states: Tensor, t: int) -> Tensor:
            return value.gradient(states.cpu(), t).to(states)

        return of_state if steps else of_action

    def target_gradient(self, actor: Copies, target: Target, reference: Copies | None) -> list[Tensor] | None:
        """None: other targets than the return have no closed form here."""
        return None

    def values(self, actor: Copies, rows: Rollouts) -> Float[Tensor, "S rows T"]:
        """`gamma^t V_t(s_t)` of the states of every row."""
        by_copy = []
        for i, states in enumerate(rows.seen[0].double().cpu()):
            value = linear_value(self.world, *_exact_policy(actor, i))
            columns = [self.world.gamma**t * value.value(states[:, t], t) for t in range(states.shape[1])]
            by_copy.append(torch.stack(columns, 1))
        return torch.stack(by_copy).to(rows.old.device)


def _exact_policy(actor: Copies, index: int) -> tuple[Tensor, Tensor | None]:
    """Gain and offset of one copy of a linear policy, float64."""
    policy = actor.network_of(index)
    k = policy.k
    return policy.K.detach().double().cpu(), None if k is None else k.detach().double().cpu()


def task_and_oracle(
    world: TokenMDP | World, policy: TokenPolicy | Policy, copies: int = 1, budget: int = 2**31
) -> tuple[Task, Oracle | None, str]:
    """Return (task, oracle, reason); oracle is None when the world is too large, and reason says why.

    A token world is too large when the prefix trees of `copies` policies need more than `budget` bytes. Among the other
    worlds, only linear-quadratic ones have an oracle. Where there is an oracle, reason is "". Raises InputError for a policy
    that does not fit the world.
    """
    budget //= copies
    if isinstance(world, TokenMDP):
        if not isinstance(policy, TokenPolicy):
            raise InputError(f"policy must be one over tokens in a token world; got {type(policy).__name__}")
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


def best_return(world: TokenMDP | World) -> float | None:
    """The largest expected return of any policy, or None where it is not known."""
    if isinstance(world, TokenMDP):
        return world.optimal_return
    if type(world) is not LinearQuadratic:
        return None
    best = riccati(world.to())
    return float(expected_return(world.to(), best.K, best.k if world.has_linear else None))
