"""The exact gradient of a token world whose rewards are sparse: only prefixes after which something can still be paid.

A prefix is *sealed* when no continuation pays anything; its value is 0 under every policy, so it adds nothing to the return or
to its gradient. The prefixes that are left, the *live* ones, are read as whole contexts in one pass. In a world with one right
answer for every prompt these are as many contexts as prompts, where the prefix tree has V^H; in a world of dense rewards the
tree, which shares the reading of common beginnings, is faster.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from envs.policy import ContextPolicy
from envs.record import short_repr
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.tokens.prefix_tree import possible_log_probs


@short_repr
@dataclass(frozen=True)
class LiveLevel:
    """The N live prefixes of one length k.

    Attributes:
        context: row of `LivePrefixes.contexts` that begins with the prefix.
        parent: the live prefix of the length before that it extends.
        token: by which token it extends its parent.
        child: index of the live prefix of the next length after each token, -1 where that is sealed.
        rewards: `r_k` of every token, in expectation over the abstract state.
        spoken: the environment's law where it speaks, and zeros where the policy does; None where it never does.
    """

    context: Int[Tensor, "N"]
    parent: Int[Tensor, "N"]
    token: Int[Tensor, "N"]
    child: Int[Tensor, "N V"]
    rewards: Float[Tensor, "N V"]
    spoken: Float[Tensor, "N V"] | None = None

    def to(self, device: torch.device) -> "LiveLevel":
        """The same on a device.

        Args:
            device: where the tensors shall be.

        Returns:
            A copy.
        """
        moved: dict[str, Any] = {name: None if x is None else x.to(device) for name, x in self.__dict__.items()}
        return LiveLevel(**moved)


@short_repr
@dataclass(frozen=True)
class LivePrefixes:
    """All live prefixes of a world, and the contexts in which a policy reads them.

    Attributes:
        world: the token world.
        contexts: prompts with H - 1 tokens, filled up with token 0 after the longest live prefix of each.
        levels: the live prefixes, length by length.
    """

    world: TokenMDP
    contexts: Int[Tensor, "rows places"]
    levels: list[LiveLevel]

    def to(self, like: Tensor) -> "LivePrefixes":
        """The same on the device and in the dtype of a tensor.

        Args:
            like: a tensor on that device, in that dtype.

        Returns:
            A copy.
        """
        world = self.world.to(str(like.device), like.dtype)
        levels = [level.to(like.device) for level in self.levels]
        return LivePrefixes(world, self.contexts.to(like.device), levels)

    @property
    def positions(self) -> int:
        """How many positions a policy reads."""
        return self.contexts.numel()

    def logits(self, policy: ContextPolicy) -> list[Tensor]:
        """Logits of the next token (N, V) at every live prefix, level by level: the policy's, or the environment's.

        Args:
            policy: a policy that reads whole contexts.

        Returns:
            One tensor for each level.
        """
        first = self.world.prompts.shape[1] - 1
        along = policy(policy.embed(self.contexts))[:, first:]
        own = [along[level.context, k] for k, level in enumerate(self.levels)]
        return [_with_speech(z, level.spoken) for z, level in zip(own, self.levels, strict=True)]


def _with_speech(logits: Tensor, spoken: Tensor | None) -> Tensor:
    if spoken is None:
        return logits
    return torch.where(spoken.sum(-1, keepdim=True) > 0, spoken.to(logits).log(), logits)


def live_prefixes(world: TokenMDP) -> LivePrefixes:
    """Enumerate the live prefixes of a world.

    Args:
        world: the token world.

    Returns:
        All live prefixes and their contexts.

    Raises:
        InputError: the world pays a hidden readout, which no table foretells.
    """
    if world.readout is not None:
        raise InputError("world pays a hidden readout, which no table foretells: use a prefix tree")
    pays = [(~sealed).to(world.P) for sealed in _sealed_states(world)]
    parent = torch.arange(len(world.prompts), device=world.P.device)
    parent = parent[world.start_belief(parent) @ pays[0] > 0]
    belief, token, words = world.start_belief(parent), torch.zeros_like(parent), world.prompts[parent]
    levels, spoken = list[LiveLevel](), [words]
    for k in range(world.horizon):
        after, rewards, law = _followed(world, k, belief)
        alive = after @ pays[k + 1] > 0
        child = torch.where(alive, alive.flatten().cumsum(0).reshape(alive.shape) - 1, -1)
        levels.append(LiveLevel(torch.zeros_like(parent), parent, token, child, rewards, law))
        (parent, token), belief = alive.nonzero(as_tuple=True), after[alive]
        spoken.append(torch.cat([spoken[-1][parent], token[:, None]], 1))
    return _placed(world, levels, spoken)


def _followed(
    world: TokenMDP, k: int, belief: Float[Tensor, "N S"]
) -> tuple[Float[Tensor, "N V S"], Float[Tensor, "N V"], Float[Tensor, "N V"] | None]:
    """The belief after each token, its reward, and the environment's law where it may speak."""
    if world.speech is None:
        return torch.einsum("nz,zay->nay", belief, world.P), belief @ world.r[k], None
    tokens = torch.arange(world.V, device=belief.device).expand(len(belief), -1)
    law, heard = world.heard(belief, tokens)
    rewards = torch.einsum("naz,za->na", heard, world.r[k])
    return torch.einsum("naz,zay->nay", heard, world.P), rewards, law


def _sealed_states(world: TokenMDP) -> Bool[Tensor, "times S"]:
    """For every step the abstract states from which nothing can be paid any more, whatever is said."""
    sealed = [torch.ones(world.S, dtype=torch.bool, device=world.P.device)]
    for k in reversed(range(world.horizon)):
        leads_on = (world.P @ (~sealed[0]).to(world.P)).amax(-1) > 0
        sealed.insert(0, ~(world.r[k] != 0).any(-1) & ~leads_on)
    return torch.stack(sealed)


def _placed(world: TokenMDP, levels: list[LiveLevel], spoken: list[Tensor]) -> LivePrefixes:
    """Give every live prefix a context: its own where it has no live child, else that of its last live child."""
    places, contexts, count = world.longest - 1, list[Tensor](), 0
    below = torch.zeros(1, dtype=torch.int64, device=world.P.device)
    for k in reversed(range(len(levels))):
        child = levels[k].child.amax(1)
        own = child < 0
        row = torch.where(own, count + own.cumsum(0) - 1, below[child.clamp(min=0)])
        contexts.append(torch.nn.functional.pad(spoken[k][own], (0, places - spoken[k].shape[1])))
        levels[k], count, below = replace(levels[k], context=row), count + int(own.sum()), row
    if not count:  # nothing is paid anywhere: one context, so that a policy has something to read
        contexts.append(torch.nn.functional.pad(world.prompts[:1], (0, places - world.prompts.shape[1])))
    return LivePrefixes(world, torch.cat(contexts), levels)


def live_values(live: LivePrefixes, logits: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """V (N,) and Q (N, V) of all live prefixes, and the probabilities (N,) that they are reached, level by level, as constants.

    `Q_k = r_k + gamma V_{k+1}`, V of a sealed prefix being 0.

    Args:
        live: the live prefixes of a world.
        logits: at each of them, level by level, as `LivePrefixes.logits` gives them.

    Returns:
        V, Q and the probabilities, one tensor for each level.
    """
    pi = [torch.softmax(z.detach(), -1) for z in logits]
    V, Q = list[Tensor](), list[Tensor]()
    for level, p in zip(reversed(live.levels), reversed(pi), strict=True):
        after = torch.cat(
            [V[0] if V else p.new_zeros(0), p.new_zeros(1)]
        )  # the last entry stands for all sealed prefixes
        later = after[torch.where(level.child < 0, len(after) - 1, level.child)]
        Q.insert(0, level.rewards.to(p) + live.world.gamma * later)
        V.insert(0, (p * Q[0]).sum(-1))
    reach = [live.world.weights.to(pi[0])[live.levels[0].parent]]
    for level, p in zip(live.levels[1:], pi[:-1], strict=True):
        reach.append(reach[-1][level.parent] * p[level.parent, level.token])
    return V, Q, reach


def live_surrogate(live: LivePrefixes, policy: ContextPolicy) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """J as a constant, and a scalar whose gradient in the policy's parameters is `grad J`.

    `sum_k gamma^k sum over live prefixes of P(prefix) sum_a pi(a) (Q(a) - V) log pi(a)`, its weights constant.

    Args:
        live: the live prefixes of a world.
        policy: a policy that reads whole contexts.

    Returns:
        J, and the surrogate.
    """
    logits = live.logits(policy)
    V, Q, reach = live_values(live, logits)
    total = torch.zeros_like(logits[0][..., 0].sum())
    for k, (z, value, quality, weight) in enumerate(zip(logits, V, Q, reach, strict=True)):
        advantage = torch.log_softmax(z.detach(), -1).exp() * (quality - value[:, None])
        total = total + live.world.gamma**k * (weight @ (advantage * possible_log_probs(z)).sum(-1))
    return reach[0] @ V[0], total
