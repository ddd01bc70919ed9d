"""All completions of a prompt with their probabilities and rewards, from the prefix tree."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from envs.world import InputError
from theory.tokens.prefix_tree import Tree
from theory.tokens.softmax_bounds import entropy


@dataclass(frozen=True)
class Completions:
    """All L completions of every prompt: tokens, what each step adds to the return (`gamma^k r_k`), and probabilities.

    Tokens after an end token are masked. Completions that differ only there are separate rows, equal in everything else.
    """

    tokens: Int[Tensor, "prompts L H"]
    p: Float[Tensor, "prompts L"]
    rewards: Float[Tensor, "prompts L H"]
    mask: Bool[Tensor, "prompts L H"]
    log_probs: Float[Tensor, "prompts L H"]

    @property
    def returns(self) -> Float[Tensor, "prompts L"]:
        """`R = sum_k gamma^k r_k`."""
        return self.rewards.sum(-1)

    def success(self) -> Float[Tensor, "prompts"]:
        """Success probability P of every prompt; raises InputError unless all returns are 0 or 1."""
        R = self.returns
        if not bool(((R - R.round()).abs() < 1e-9).all() and (R > -0.5).all() and (R < 1.5).all()):
            raise InputError("rewards are not binary: only returns of 0 and 1 have a success probability")
        return (self.p * R).sum(-1)


def completions(tree: Tree) -> Completions:
    """The completions of a tree with every token followed (alpha = 1), as constants."""
    world, prompts = tree.world, len(tree.levels[0].reach)
    if world.readout is not None:
        raise InputError("world pays a hidden readout, which no group of rewards holds: use a world without it")
    count = tree.levels[-1].tokens.numel()
    tokens = torch.stack([_along(level.tokens, count) for level in tree.levels], -1)
    discount = [world.gamma**k for k in range(world.horizon)]
    by_level = [_along(level.rewards.detach(), count) * g for level, g in zip(tree.levels, discount, strict=True)]
    rewards = torch.stack(by_level, -1)
    log_probs, mask = completion_log_probs(tree).detach(), world.mask(tokens)
    tokens, rewards, mask = (x.unflatten(0, (prompts, -1)) for x in (tokens, rewards * mask, mask))
    return Completions(tokens, log_probs.sum(-1).exp(), rewards, mask, log_probs)


def completion_log_probs(tree: Tree) -> Float[Tensor, "prompts L H"]:
    """`log pi` of every token of every completion, tokens after an end token included; attached to autograd's graph."""
    count, prompts = tree.levels[-1].tokens.numel(), len(tree.levels[0].reach)
    log_pi = [torch.log_softmax(level.logits, -1).gather(1, level.tokens) for level in tree.levels]
    log_probs: Tensor = torch.stack([_along(x, count) for x in log_pi], -1).unflatten(0, (prompts, -1))
    return log_probs


def _along(x: Tensor, count: int) -> Tensor:
    """A number of every edge of a level, repeated for those of the `count` completions that take the edge."""
    repeated: Tensor = x.flatten().repeat_interleave(count // x.numel())
    return repeated


def mean_entropy(tree: Tree) -> Float[Tensor, ""]:
    """Mean entropy in nats over the steps that belong to a completion."""
    alive = torch.ones_like(tree.levels[0].reach)
    total, steps = torch.zeros_like(tree.J), torch.zeros_like(tree.J)
    for level in tree.levels:
        weight = level.reach * alive
        total, steps = total + weight @ entropy(level.pi.detach()), steps + weight.sum()
        if tree.world.end is not None:
            alive = (alive[:, None] * (level.tokens != tree.world.end)).flatten()
        else:
            alive = alive.repeat_interleave(tree.world.V)
    return total / steps
