"""Losses with one mistake each, made from a sound one by replacing one part, and the property that must name the mistake.

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


k1 = lambda lp, old, ref: lp - ref  # noqa: E731
k2 = lambda lp, old, ref: (lp - ref) ** 2 / 2  # noqa: E731
k3 = lambda lp, old, ref: (ref - lp).exp() - 1 - (ref - lp)  # noqa: E731
RHO = lambda lp, old, A, m: (lp - old).exp() * A  # noqa: E731


def _losses() -> dict[str, Planted]:
    loo, plain = leave_one_out, build()
    mean, weights = ("mean update",), ("recipe", "mean update")

    def surrogate(*names: str, f: Part) -> Planted:
        return Planted(names, build(f), loo, SOUND)

    def norm(*names: str, f: Part) -> Planted:
        return Planted(names, build(norm=f), loo, SOUND)

    def advantage(*names: str, f: Part) -> Planted:
        return Planted(names, plain, f, SOUND)

    def kl(*names: str, f: Part, kl: str = "KL(pi||ref)", average: Part = row_sum) -> Planted:
        return Planted(names, with_kl(f, average), loo, {**SOUND, "kl": kl, "beta": 0.1})

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

    def low_precision(z: Tensor, tokens: Tensor, prompt: int) -> Tensor:
        return read(z.bfloat16(), tokens, prompt).to(z)

    def no_normaliser(z: Tensor, tokens: Tensor, prompt: int) -> Tensor:
        return gather(z, tokens, prompt)

    def over_positions(z: Tensor, tokens: Tensor, prompt: int) -> Tensor:
        return gather(torch.log_softmax(z, 1), tokens, prompt)

    warm = lambda z, tokens, prompt: read(z, tokens, prompt, 0.7)  # noqa: E731
    return {
        "wrong sign": norm("climbs", f=lambda t, m: -row_sum(t, m)),
        "ratio upside down": surrogate("climbs", f=lambda lp, old, A, m: (old - lp).exp() * A),
        "ratio detached": surrogate("climbs", f=lambda lp, old, A, m: (lp - old).exp().detach() * A + 0 * lp),
        "std over the batch": Planted(("coupling", "recipe"), plain, batch_std, {"groups": "mean"}),
        "best row as baseline": advantage(*weights, f=best),
        "own row left in": advantage("mean update", "recipe", f=own_row),
        "accumulated over G twice": norm(*weights, f=lambda t, m: row_sum(t, m) / len(m)),
        "divided twice": norm(*weights, f=lambda t, m: row_sum(t, m) / 2),
        "sum for mean": norm("split", "recipe", "mean update", f=lambda t, m: -(t * m).sum()),
        "token mean": norm(*weights, f=lambda t, m: -(t * m).sum() / m.sum()),
        "row mean": norm(*weights, f=lambda t, m: -((t * m).sum(1) / m.sum(1)).mean()),
        "advantage over length": advantage(*weights, f=over_length),
        "mask off by one": norm(*weights, f=lambda t, m: row_sum(t, m.roll(1, 1) & m)),
        "end token left out": norm(*weights, f=lambda t, m: row_sum(t, m & ~last_token(m))),
        "truncated rows left out": Planted(weights, truncated, loo, SOUND),
        "rewards read at the last column": advantage(*weights, f=last_column),
        "mean over the padded row": norm("padding", f=lambda t, m: -((t * m).mean(1)).mean()),
        "mask forgotten": Planted(
            ("padding",), build(norm=lambda t, m: -t.sum() / len(m), fill=lambda x, m: x), loo, SOUND
        ),
        "ratio summed over padding": Planted(("padding",), build(sum_ratio, fill=lambda x, m: x), loo, SOUND),
        "NaN times 0": Planted(("padding",), build(fill=lambda x, m: x * m), loo, SOUND),
        "eps 1e-9": Planted(
            ("silent groups",), plain, lambda rewards, mask, group: standardised(rewards, group, 1e-9), {}
        ),
        "eps added to the quotient": Planted(
            ("silent groups", *weights), plain, quotient, {"recipe": "population std; row sum"}
        ),
        "baseline not per group": advantage("coupling", "recipe", f=whole_batch),
        "groups by position": advantage("order", f=by_position),
        "token mean per micro-batch": Planted(
            ("split",), build(norm=lambda t, m: -(t * m).sum() / m.sum()), loo, {"split": "groups"}
        ),
        "max for min": surrogate(
            "clip on the right side",
            f=lambda lp, old, A, m: torch.maximum(RHO(lp, old, A, m), (lp - old).exp().clamp(1 - LOW, 1 + HIGH) * A),
        ),
        "clip without min": surrogate(
            "clip on the right side", f=lambda lp, old, A, m: (lp - old).exp().clamp(1 - LOW, 1 + HIGH) * A
        ),
        "bounds swapped": surrogate(
            "clip on the right side",
            f=lambda lp, old, A, m: torch.minimum(RHO(lp, old, A, m), (lp - old).exp().clamp(1 - HIGH, 1 + LOW) * A),
        ),
        "clip of ratio x A": surrogate(
            "clip on the right side",
            f=lambda lp, old, A, m: torch.minimum(RHO(lp, old, A, m), RHO(lp, old, A, m).clamp(1 - LOW, 1 + HIGH)),
        ),
        "log pi in the place of the ratio": surrogate("law of the ratio", f=lambda lp, old, A, m: lp * A + 0 * old),
        "row's ratio on each token": surrogate(
            "law of the ratio",
            f=lambda lp, old, A, m: (
                ppo(((lp - old) * m).sum(1, keepdim=True).expand_as(lp), torch.zeros_like(lp), A, m)
                / m.sum(1, keepdim=True)
            ),
        ),
        "k1 in the loss": kl("KL term", f=k1),
        "KL ignored": kl("KL term", f=lambda lp, old, ref: 0 * k3(lp, old, ref)),
        "KL detached": kl("KL term", f=lambda lp, old, ref: k3(lp, old, ref).detach()),
        "KL against old": kl("KL term", f=lambda lp, old, ref: k3(lp, ref, old)),
        "KL of the wrong sign": kl("KL term", f=lambda lp, old, ref: -k2(lp, old, ref)),
        "k3 for k2": kl("KL term", f=k3),
        "k3 reversed": kl("KL term", f=lambda lp, old, ref: (lp - ref).exp() - 1 - (lp - ref)),
        "KL averaged over padding": kl("padding", f=k2, average=lambda t, m: -(t * m).mean()),
        "entropy sign": bonus("entropy bonus", loss=with_entropy(-0.01)),
        "entropy ignored": bonus("entropy bonus", loss=with_entropy(0.01, detach=True)),
        "entropy averaged over padding": bonus("padding", loss=with_entropy(0.01, lambda t, m: -(t * m).mean())),
        "labels not shifted": logits(*mean, "climbs", f=lambda z, t, p: gather(torch.log_softmax(z, -1), t, p, 0)),
        "temperature in one of two passes": logits(*mean, f=lambda z, t, p: read(z, t, p, 0.7)),
        "temperature in both but not in the sampler": logits(*mean, f=warm, old=warm),
        "softmax over positions": logits(*mean, "climbs", "finite", f=over_positions),
        "no normaliser": logits(*mean, "finite", "climbs", f=no_normaliser),
        "bfloat16": logits("precision", "mean update", f=low_precision),
        # more of our own
        "rewards squared": advantage(
            "recipe", "shift of rewards", f=lambda rewards, mask, group: leave_one_out(rewards, mask, group) ** 3
        ),
        "first token left out": norm(*weights, f=lambda t, m: row_sum(t[:, 1:], m[:, 1:])),
        "row's weight on its last token only": norm(*weights, f=lambda t, m: row_sum(t, last_token(m))),
        "old in the place of new": Planted(
            ("climbs",),
            lambda log_probs, old_log_probs, advantages, mask: build()(
                clean(old_log_probs, mask) + 0 * log_probs, log_probs.detach(), advantages, mask
            ),
            loo,
            {},
        ),
        "row divided by the longest of the batch": norm(
            "split", *weights, f=lambda t, m: row_sum(t, m) / m.sum(1).max()
        ),
        "one-hot of the wrong token": logits(
            *mean, "climbs", f=lambda z, t, p: gather(torch.log_softmax(z, -1), (t + 1) % z.shape[-1], p)
        ),
        "state kept between calls": Planted(("two calls agree",), _Forgetful(), loo, {}),
    }


class _Forgetful:
    """Divides by how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        self.calls += 1
        return build()(log_probs, old_log_probs, advantages, mask) / self.calls


PLANTED = _losses()
SOUND_ONES: dict[str, Planted] = {
    "RLOO": Planted((), build(), leave_one_out, SOUND),
    "RLOO, k2": Planted((), with_kl(k2), leave_one_out, {**SOUND, "kl": "KL(pi||ref)", "beta": 0.1}),
    "RLOO, k3": Planted((), with_kl(k3), leave_one_out, {**SOUND, "kl": "KL(ref||pi)", "beta": 0.1}),
    "RLOO, entropy": Planted((), with_entropy(0.01), leave_one_out, SOUND),
    "RLOO of logits": Planted((), of_logits(read), leave_one_out, SOUND),
}
