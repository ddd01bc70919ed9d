"""The named recipes: advantage x surrogate x normaliser, with a KL term and an entropy bonus where asked.

Each builder's docstring states the exact mean of its first update (rows drawn from the policy itself, one prompt, no KL term)
and where it departs from its paper. P is the success probability of a binary reward, G the group size, |o| a row's length.
`theory.groups.expected_update` computes that mean for any of them, any rewards, any world that can be enumerated.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes import advantages as advantage
from agents.recipes.advantages import Advantage, gae, standardised
from agents.recipes.batch import Batch
from agents.recipes.surrogates import (
    KL_ESTIMATORS,
    NORMALISERS,
    Normaliser,
    Surrogate,
    clipped,
    group_token_mean,
    row_mean,
    row_sum,
    score,
    sequence_clipped,
    truncated_importance,
)
from envs.world import InputError, unknown


@dataclass(frozen=True)
class Penalty:
    """`beta` times a KL estimator (k1, k2 or k3), against the reference policy.

    Mean of what it adds to the update, on-policy, over beta. In the reward: k1 minus the gradient of KL(pi || ref) of whole
    completions (undiscounted); k2 and k3 minus that of their own means, and short of it by E[grad k]: for k3 minus
    (grad KL(pi || ref) - grad KL(ref || pi) at the visited prefixes). In the loss, at the visited prefixes, their visitation
    held fixed: k1 nothing, k2 minus grad KL(pi || ref), k3 minus grad KL(ref || pi); times the normaliser.
    """

    estimator: str
    beta: float

    def __post_init__(self) -> None:
        """Refuse what is no penalty."""
        if self.estimator not in KL_ESTIMATORS:
            raise InputError(f"estimator must be one of {', '.join(KL_ESTIMATORS)}; got {self.estimator!r}")
        if not 0 <= self.beta < math.inf:
            raise InputError(f"beta must be a finite number >= 0; got {self.beta!r}")

    def __call__(self, log_ratio: Tensor) -> Tensor:
        """The penalty of every token."""
        return self.beta * KL_ESTIMATORS[self.estimator](log_ratio)


@dataclass(frozen=True)
class Learner:
    """One recipe. `advantage` is None where a critic's values make it (GAE with `lam`).

    `kl_reward` is subtracted from every step's reward (InstructGPT, arXiv:2203.02155), `kl_loss` added to every step's loss
    (GRPO's own place for it), `entropy` times the policy's entropy subtracted from it: its mean slope is that of the entropies
    at the visited prefixes, their visitation held fixed, not that of a completion's entropy. `drop_truncated` takes rows that
    were cut at the horizon out of the loss (DAPO's overlong filter). `critic` is None, "exact" or "learned"; `exact` marks
    the recipe that follows the exact gradient and samples nothing; `least` is the smallest group that it can compare.
    """

    name: str
    advantage: Advantage | None
    surrogate: Surrogate = score
    normalise: Normaliser = row_sum
    kl_reward: Penalty | None = None
    kl_loss: Penalty | None = None
    entropy: float = 0.0
    critic: str | None = None
    lam: float = 1.0
    drop_truncated: bool = False
    exact: bool = False
    least: int = 1

    @property
    def needs_reference(self) -> bool:
        """Whether a KL term asks for the reference policy's log-probabilities."""
        return self.kl_reward is not None or self.kl_loss is not None

    def advantages(self, batch: Batch, old: Float[Tensor, "rows T"]) -> Float[Tensor, "rows T"]:
        """Constants (rows, T); `old` are the log-probabilities of the policy that drew the rows."""
        rewards = self.penalised_rewards(batch, old)
        advantage = self.advantage or gae(self._given(batch, "values"), self.lam)
        return _checked(advantage(rewards, batch.mask, batch.group), rewards)

    def penalised_rewards(self, batch: Batch, old: Float[Tensor, "rows T"]) -> Float[Tensor, "rows T"]:
        """The rewards, less the KL penalty where there is one: what a critic must predict."""
        rewards = batch.rewards
        if self.kl_reward is not None:
            log_ratio = old - self._given(batch, "reference")
            # two passes of one network differ by rounding, which a std would blow up where all rewards are equal
            rounding = log_ratio.abs() <= 64 * torch.finfo(old.dtype).eps * old.abs().clamp(min=1.0)
            rewards = rewards - torch.where(batch.mask & ~rounding, self.kl_reward(log_ratio), 0.0)
        return rewards

    def _given(self, batch: Batch, name: str) -> Tensor:
        found: Tensor | None = getattr(batch, name)
        if found is None:
            raise InputError(f"{name} are missing from the batch: learner {self.name!r} needs them")
        return found

    def loss(
        self, log_probs: Float[Tensor, "rows T"], entropy: Float[Tensor, "rows T"] | None, batch: Batch
    ) -> Float[Tensor, ""]:
        """`-sum_it n_it [ surrogate_it - kl_it + entropy_it ]`; log_probs and entropy carry the gradient."""
        old = log_probs.detach() if batch.old is None else batch.old
        mask = batch.mask
        log_probs, old = torch.where(mask, log_probs, 0.0), torch.where(mask, old, 0.0)  # padding may be -inf or NaN
        terms = self.surrogate(log_probs, old, self.advantages(batch, old), mask)
        if self.kl_loss is not None:
            terms = terms - self.kl_loss(log_probs - torch.where(mask, self._given(batch, "reference"), 0.0))
        if self.entropy:
            if entropy is None:
                raise InputError(f"entropy is missing: learner {self.name!r} has an entropy bonus")
            terms = terms + self.entropy * entropy
        weights = self.normalise(mask, batch.group).to(terms)
        if self.drop_truncated and batch.ended is not None:  # without an end token nothing is truncated
            mask = mask & batch.ended[:, None]
        return -(torch.where(mask, terms, 0.0) * weights).sum()

    def slopes(
        self, log_probs: Float[Tensor, "rows T"], entropy: Float[Tensor, "rows T"] | None, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The loss, and minus its slopes in log_probs and in the entropies (None without a bonus): the update's weights."""
        inputs = [log_probs.detach().requires_grad_()]
        if self.entropy and entropy is not None:
            inputs.append(entropy.detach().requires_grad_())
        with torch.enable_grad():
            loss = self.loss(inputs[0], inputs[1] if len(inputs) > 1 else None, batch)
            found = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
        return loss.detach(), -found[0], -found[1] if len(found) > 1 else None

    def __call__(
        self, rewards: Tensor, mask: Tensor, group: Tensor, log_probs: Tensor | None = None, **more: Any
    ) -> tuple[Float[Tensor, "rows T"], Float[Tensor, "rows T"] | None]:
        """What multiplies `grad log pi(c_it)`, and `grad H_it`, in the update: the form that exact expectations take.

        Without `log_probs` the ratio is 1 everywhere. `more` are further fields of the batch.
        """
        given = torch.zeros_like(rewards) if log_probs is None else log_probs
        _, weights, entropies = self.slopes(given, torch.zeros_like(rewards), Batch(rewards, mask, group, **more))
        return weights, entropies


def _checked(found: Any, rewards: Tensor) -> Float[Tensor, "rows T"]:
    """An advantage function may be somebody else's: its answer must be one finite number per step."""
    if not isinstance(found, Tensor) or found.shape != rewards.shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"advantage must give a tensor of the rewards' shape {tuple(rewards.shape)}; got {got}")
    if not bool(found.isfinite().all()):
        raise InputError("advantage gives NaN or infinity: every entry must be a finite number")
    return found.detach()


def reinforce(baseline: bool = False, to_go: bool = False) -> Learner:
    """REINFORCE: `A = R`, or the reward-to-go; with a baseline the mean of all other rows (of the group's others, to go).

    Mean: grad J. Departs from Williams (1992) in the baseline, a leave-one-out mean and not a running one.
    """
    plain, based = advantage.full_return, advantage.batch_baseline
    if to_go:
        plain, based = advantage.reward_to_go, advantage.leave_one_out_to_go
    return Learner("reinforce", based if baseline else plain, least=2 if baseline and to_go else 1)


def rloo() -> Learner:
    """RLOO (arXiv:2402.14740): `A = R - mean of the group's others`. Mean: grad J; as in its paper, on whole rows."""
    return Learner("rloo", advantage.leave_one_out, least=2)


def dr_grpo(clip: float = 0.2) -> Learner:
    """Dr. GRPO (arXiv:2503.20783): `A = R - mean`, sum over tokens. Mean: (G-1)/G grad J.

    Its code divides by a constant number of tokens, here 1.
    """
    return Learner("dr_grpo", advantage.mean_baseline, clipped(clip, clip), least=2)


def grpo(std: str = "population", length: str = "row mean", clip: float = 0.2, eps: float = 0.0) -> Learner:
    """GRPO (arXiv:2402.03300): `A = (R - mean) / (std + eps)`, PPO's clip, the factor 1/|o|.

    Mean for binary rewards and rows of one length L: `c_G(P) / L` times grad J; with `length="row sum"` `c_G(P) grad J` for
    rows of any length. `std` is population, sample (times sqrt((G-1)/G)) or none ((G-1)/G grad J). With `length="row mean"`
    (sequence level) or "group token mean" (token level) and rows of several lengths it is no multiple of grad J. The KL term
    of its paper is an option of every learner (k3 in the loss), its eps of 1e-4 in common code is `eps`.
    """
    if std not in ("population", "sample", "none"):
        raise InputError(f"std must be population, sample or none; got {std!r}")
    if length not in NORMALISERS:
        raise InputError(f"length must be one of {', '.join(NORMALISERS)}; got {length!r}")
    scaled = advantage.mean_baseline if std == "none" else standardised(std == "population", eps)
    return Learner("grpo", scaled, clipped(clip, clip), NORMALISERS[length], least=2)


def dapo(low: float = 0.2, high: float = 0.28, drop_truncated: bool = False) -> Learner:
    """DAPO (arXiv:2503.14476): GRPO's advantage, clip-higher, mean over the group's tokens.

    Mean: GRPO's at token level; the wider clip acts from the second step on. Departs from its paper: no dynamic sampling
    (groups without a signal stay in, weighing 0), and truncated rows are kept or left out, not punished by length.
    """
    return Learner("dapo", standardised(), clipped(low, high), group_token_mean, drop_truncated=drop_truncated, least=2)


def gspo(low: float = 3e-4, high: float = 4e-4) -> Learner:
    """GSPO (arXiv:2507.18071): GRPO's advantage, one ratio a row, the geometric mean of its tokens'.

    Mean: at the first step that of GRPO with the factor 1/|o|, which the geometric mean brings in.
    """
    return Learner("gspo", standardised(), sequence_clipped(low, high), row_mean, least=2)


def cispo(high: float = 0.28) -> Learner:
    """CISPO (arXiv:2506.13585): GRPO's advantage, a truncated importance weight that is a constant, group token mean.

    Mean: at the first step that of DAPO. No lower bound on the weight, as in the paper's runs.
    """
    return Learner("cispo", standardised(), truncated_importance(high), group_token_mean, least=2)


def ppo(lam: float = 0.95, clip: float = 0.2, critic: str = "learned") -> Learner:
    """PPO (arXiv:1707.06347) with GAE on the values of a critic, "exact" or "learned"; sum over tokens.

    Mean: grad J for the exact V at every lam, for any V at lam = 1; a learned V biases it for lam < 1, and so does the exact V
    of the world's reward where a KL penalty is in the reward (the trainer refuses that). Departs from common code: advantages
    are not standardised over the batch, and the value loss is not clipped.
    """
    if critic not in ("exact", "learned"):
        raise InputError(f"critic must be exact or learned; got {critic!r}")
    if not 0 <= lam <= 1:
        raise InputError(f"lam must lie in [0, 1]; got {lam!r}")
    return Learner("ppo", None, clipped(clip, clip), critic=critic, lam=lam)


def value_gradient() -> Learner:
    """Ascent on the exact gradient: the noise-free limit of all unbiased recipes. It samples nothing."""
    return Learner("value_gradient", advantage.full_return, exact=True)


LEARNERS: dict[str, Callable[..., Learner]] = {
    build.__name__: build for build in (reinforce, rloo, grpo, dr_grpo, dapo, gspo, cispo, ppo, value_gradient)
}


def build_learner(
    name: str, kl_reward: Penalty | None = None, kl_loss: Penalty | None = None, entropy: float = 0.0, **options: Any
) -> Learner:
    """The recipe called `name` with its builder's options, a KL penalty in the reward or in the loss, an entropy bonus.

    Raises InputError for an unknown learner (with the near names), an option that it does not have, a negative bonus.
    """
    if name not in LEARNERS:
        raise unknown("learner", name, LEARNERS)
    known = inspect.signature(LEARNERS[name]).parameters
    for option, value in options.items():
        if option not in known:
            raise InputError(f"learner {name!r} has no option {option!r}; it has {', '.join(known) or 'none'}")
        kind = type(known[option].default)
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise InputError(f"option {option} of learner {name!r} must be a {kind.__name__}; got {value!r}")
    if not 0 <= entropy < math.inf:
        raise InputError(f"entropy must be a finite number >= 0, the bonus's coefficient; got {entropy!r}")
    return replace(LEARNERS[name](**options), kl_reward=kl_reward, kl_loss=kl_loss, entropy=entropy)
