"""The parts of a sound loss, and wrong ones to put in their place.

The sound loss is RLOO with the clip of PPO, (0.2, 0.28), the sum over a row's tokens and the mean over rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Part = Callable[..., Tensor]
LOW, HIGH = 0.2, 0.28
SOUND: dict[str, Any] = {
    "unbiased": True,
    "kappa": 1,
    "recipe": "leave one out; row sum",
    "split": "rows",
    "clip": (LOW, HIGH),
    "own": "ratio",
    "others": "1",
}


@dataclass(frozen=True)
class Planted:
    """A loss with a mistake.

    Attributes:
        names: properties of which one must name the mistake.
        loss: the function.
        advantage: the second function.
        declared: what its author believes.
    """

    names: tuple[str, ...]
    loss: Callable[..., Tensor]
    advantage: Callable[..., Tensor] | None
    declared: dict[str, Any] = field(default_factory=dict)


def per_group(x: Tensor, group: Tensor) -> Tensor:
    """Sum over the row's group."""
    label = torch.unique(group, return_inverse=True)[1]
    return torch.zeros_like(x).index_add_(0, label, x)[label]


def leave_one_out(rewards: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    R, rows = rewards.sum(1), torch.ones_like(rewards[:, 0])
    others = per_group(rows, group) - 1
    return R - (per_group(R, group) - R) / others.clamp(min=1)


def standardised(
    rewards: Tensor, group: Tensor, eps: float, over: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Tensor:
    R, rows = rewards.sum(1), torch.ones_like(rewards[:, 0])
    mean = per_group(R, group) / per_group(rows, group)
    std = (per_group((R - mean) ** 2, group) / per_group(rows, group)).sqrt() if over is None else over(R, mean)
    return (R - mean) / (std + eps)


def clean(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, x, 0.0)


def ppo(log_probs: Tensor, old: Tensor, A: Tensor, mask: Tensor) -> Tensor:
    rho = (log_probs - old).exp()
    return torch.minimum(rho * A, rho.clamp(1 - LOW, 1 + HIGH) * A)


def row_sum(terms: Tensor, mask: Tensor) -> Tensor:
    return -(terms * mask).sum() / len(mask)


def build(surrogate: Part = ppo, norm: Part = row_sum, fill: Part = clean) -> Callable[..., Tensor]:
    def loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        A = advantages if advantages.ndim == 2 else advantages[:, None]
        return norm(surrogate(fill(log_probs, mask), fill(old_log_probs, mask), A, mask), mask)

    return loss


def with_kl(term: Part, average: Part = row_sum) -> Callable[..., Tensor]:
    def loss(
        log_probs: Tensor, old_log_probs: Tensor, ref_log_probs: Tensor, advantages: Tensor, mask: Tensor
    ) -> Tensor:
        log_probs, old, ref = (clean(x, mask) for x in (log_probs, old_log_probs, ref_log_probs))
        own = row_sum(ppo(log_probs, old, advantages[:, None], mask), mask)
        return own - 0.1 * average(term(log_probs, old, ref), mask)

    return loss


def with_entropy(weight: float, average: Part = row_sum, detach: bool = False) -> Callable[..., Tensor]:
    def loss(log_probs: Tensor, old_log_probs: Tensor, entropy: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        log_probs, old = clean(log_probs, mask), clean(old_log_probs, mask)
        H = clean(entropy.detach() if detach else entropy, mask)
        own = row_sum(ppo(log_probs, old, advantages[:, None], mask), mask)
        return own + weight * average(H, mask)

    return loss


def of_logits(read: Callable[[Tensor, Tensor, int], Tensor], old: Part | None = None) -> Callable[..., Tensor]:
    """At the level of logits: the log-probabilities are the loss's own."""

    def loss(
        logits: Tensor, tokens: Tensor, prompt: int, old_log_probs: Tensor, advantages: Tensor, mask: Tensor
    ) -> Tensor:
        log_probs = read(logits, tokens, prompt)
        before = old_log_probs if old is None else old(logits, tokens, prompt).detach()
        return build()(log_probs, before, advantages, mask)

    return loss


def gather(log_pi: Tensor, tokens: Tensor, prompt: int, shift: int = 1) -> Tensor:
    steps = tokens.shape[1] - prompt
    return log_pi[:, prompt - shift : prompt - shift + steps].gather(-1, tokens[:, prompt:, None])[..., 0]


def read(logits: Tensor, tokens: Tensor, prompt: int, T: float = 1.0) -> Tensor:
    return gather(torch.log_softmax(logits / T, -1), tokens, prompt)


def last_token(mask: Tensor) -> Tensor:
    return mask & ~torch.nn.functional.pad(mask[:, 1:], (0, 1))


def k1(lp: Tensor, old: Tensor, ref: Tensor) -> Tensor:
    return lp - ref


def k2(lp: Tensor, old: Tensor, ref: Tensor) -> Tensor:
    return (lp - ref) ** 2 / 2


def k3(lp: Tensor, old: Tensor, ref: Tensor) -> Tensor:
    return (ref - lp).exp() - 1 - (ref - lp)


def importance(lp: Tensor, old: Tensor, A: Tensor, m: Tensor) -> Tensor:
    return (lp - old).exp() * A


loo, plain = leave_one_out, build()
mean, weights = ("mean update",), ("recipe", "mean update")


def surrogate(*names: str, f: Part) -> Planted:
    return Planted(names, build(f), loo, SOUND)


def norm(*names: str, f: Part) -> Planted:
    return Planted(names, build(norm=f), loo, SOUND)


def advantage(*names: str, f: Part) -> Planted:
    return Planted(names, plain, f, SOUND)


def kl(*names: str, f: Part, which: str = "KL(pi||ref)", average: Part = row_sum) -> Planted:
    return Planted(names, with_kl(f, average), loo, {**SOUND, "kl": which, "beta": 0.1})


def bonus(*names: str, loss: Callable[..., Tensor]) -> Planted:
    return Planted(names, loss, loo, SOUND)


def logits(*names: str, f: Any, old: Any = None) -> Planted:
    return Planted(names, of_logits(f, old), loo, {"unbiased": True, "kappa": 1})


def batch_std(rewards: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    return standardised(rewards, group, 1e-4, lambda R, mean: R.std(correction=0))


def best(rewards: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    R, label = rewards.sum(1), torch.unique(group, return_inverse=True)[1]
    return R - torch.zeros_like(R).scatter_reduce(0, label, R, "amax", include_self=False)[label]


def own_row(rewards: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    return standardised(rewards, group, 0.0, lambda R, mean: torch.ones_like(R))


def by_position(rewards: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    R = rewards.sum(1).view(len(group.unique()), -1)
    return (R - (R.sum(1, keepdim=True) - R) / max(1, R.shape[1] - 1)).flatten()


def quotient(rewards: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    R, rows = rewards.sum(1), torch.ones_like(rewards[:, 0])
    mean = per_group(R, group) / per_group(rows, group)
    std = (per_group((R - mean) ** 2, group) / per_group(rows, group)).sqrt()
    return (R - mean) / std.clamp(min=1e-30) + 1e-4


def last_column(rewards: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    return leave_one_out(rewards[:, -1:], mask, group)


def over_length(rewards: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    return leave_one_out(rewards, mask, group) / mask.sum(1)


def whole_batch(rewards: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    return leave_one_out(rewards, mask, 0 * group)


def truncated(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, ended: Tensor) -> Tensor:
    return plain(log_probs, old_log_probs, torch.where(ended, advantages, 0.0), mask)


def sum_ratio(lp: Tensor, old: Tensor, A: Tensor, m: Tensor) -> Tensor:
    rho = (lp - old).sum(1, keepdim=True).exp()
    return torch.minimum(rho * A, rho.clamp(1 - LOW, 1 + HIGH) * A) * m / m.sum(1, keepdim=True)


def mean_ratio(lp: Tensor, old: Tensor, A: Tensor, m: Tensor) -> Tensor:
    return (lp - old).exp().mean(1, keepdim=True).detach() * A * lp


def low_precision(z: Tensor, tokens: Tensor, prompt: int) -> Tensor:
    return read(z.bfloat16(), tokens, prompt).to(z)


def no_normaliser(z: Tensor, tokens: Tensor, prompt: int) -> Tensor:
    return gather(z, tokens, prompt)


def over_positions(z: Tensor, tokens: Tensor, prompt: int) -> Tensor:
    return gather(torch.log_softmax(z, 1), tokens, prompt)


def warm(z: Tensor, tokens: Tensor, prompt: int) -> Tensor:
    return read(z, tokens, prompt, 0.7)


class Forgetful:
    """Divides by how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        self.calls += 1
        return build()(log_probs, old_log_probs, advantages, mask) / self.calls
