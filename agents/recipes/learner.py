"""A learner: advantage, surrogate and normaliser, with an optional KL penalty and entropy bonus, as one loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.advantages import Advantage, gae, is_group_wise
from agents.recipes.batch import Batch
from agents.recipes.relaxed_tokens import RelaxedTokens
from agents.recipes.soft_thoughts import SoftThoughts
from agents.recipes.surrogates import KL_ESTIMATORS, Normaliser, Surrogate, off_policy_mask, row_sum, score
from agents.recipes.value_gradient_learning import ValueGradientLearning
from envs.arguments import asked_for
from envs.world import InputError

Selection = Callable[..., Tensor]  # (rewards, mask, group, *, extras asked for) -> (rows,) booleans, alike in a group


@dataclass(frozen=True)
class Penalty:
    """`beta` times a KL estimator (k1, k2 or k3) against the reference policy.

    What it adds to the on-policy update in the mean, in units of beta. In the reward: k1 adds minus the gradient of
    KL(pi || ref) of whole completions (undiscounted); k2 and k3 add minus (grad E[k] - E[grad k]), for k3 minus
    (grad KL(pi || ref) - grad KL(ref || pi) at the visited prefixes). In the loss, with the visitation of prefixes held
    fixed: k1 adds nothing, k2 minus grad KL(pi || ref), k3 minus grad KL(ref || pi), each times the normaliser.
    With `importance` the term in the loss is `rho k`, `rho = pi / pi_old` of the token, which carries a gradient too
    (DeepSeek-V3.2): the mean is minus grad E_pi[k] at the prefixes that pi_old visits, for k1 and k3 minus
    grad KL(pi || ref). Of rho k3 every token has the slope `rho log(pi / ref) grad log pi`, that of k2 times rho.

    Attributes:
        estimator: name of the estimator, "k1", "k2" or "k3".
        beta: weight of the penalty.
        importance: whether the penalty of a token is multiplied by rho; for a penalty in the loss.

    Raises:
        InputError: the estimator is unknown, or beta is not a finite number >= 0.
    """

    estimator: str
    beta: float
    importance: bool = False

    def __post_init__(self) -> None:
        """Check the estimator's name and beta."""
        if self.estimator not in KL_ESTIMATORS:
            raise InputError(f"estimator must be one of {', '.join(KL_ESTIMATORS)}; got {self.estimator!r}")
        if not 0 <= self.beta < math.inf:
            raise InputError(f"beta must be a finite number >= 0; got {self.beta!r}")

    def __call__(self, log_ratio: Tensor, log_rho: Tensor | None = None) -> Tensor:
        """The penalty of every token.

        Args:
            log_ratio: log(pi / pi_ref) of every token.
            log_rho: log(pi / pi_old) of every token, which `importance` needs.

        Returns:
            The penalties, in the shape of log_ratio.

        Raises:
            InputError: `importance` is asked for, and log_rho is missing.
        """
        penalty = self.beta * KL_ESTIMATORS[self.estimator](log_ratio)
        if not self.importance:
            return penalty
        if log_rho is None:
            raise InputError("log_rho is missing: a penalty with importance=True needs log(pi / pi_old) of every token")
        return log_rho.exp() * penalty


@dataclass(frozen=True)
class Target:
    """What a recipe is meant to climb: `max@k - beta KL(pi || ref)`, `max@k = E max(R_1 ... R_k)`; by default J.

    Attributes:
        k: of max@k; 1 for the expected return.
        beta: weight of the KL divergence.
    """

    k: int = 1
    beta: float = 0.0


@dataclass(frozen=True)
class Pathwise:
    """How a learner differentiates sampled paths, in place of log-probabilities: SVG(steps).

    Attributes:
        steps: sampled steps before the exact critic; from the length of the paths on there is no critic.
        model_error: relative error of the model's A and B; with 0 the model is the world.
        model_seed: of the direction of that error.
        imagined: whether the paths are drawn in the model; else they are real, and the model is differentiated along them.

    Raises:
        InputError: steps or the error is negative.
    """

    steps: int = 1
    model_error: float = 0.0
    model_seed: int = 0
    imagined: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.steps < 0:
            raise InputError(
                f"horizon must be a whole number >= 0, sampled steps before the critic; got {self.steps!r}"
            )
        if not 0 <= self.model_error < math.inf:
            raise InputError(f"model_error must be a finite number >= 0, a share of A and B; got {self.model_error!r}")


@dataclass(frozen=True)
class Learner:
    """One recipe.

    Attributes:
        name: as in `LEARNERS`.
        advantage: the advantage function; None where GAE on a critic's values takes its place.
        surrogate: what is maximised at every step.
        normalise: weights of the steps in the loss.
        kl_reward: a penalty that is subtracted from every step's reward (InstructGPT, arXiv:2203.02155).
        kl_loss: a penalty that is added to every step's loss (as in GRPO's paper).
        entropy: coefficient of the bonus, the entropies at the visited prefixes. Their visitation is held fixed, so the bonus
            does not follow the gradient of a completion's entropy.
        critic: None, "exact" or "learned"; of values, or of value gradients where VGL differentiates paths.
        lam: lambda of GAE.
        off_policy_delta: a token of negative advantage weighs nothing in the surrogate where the mean of log(pi_old / pi) over
            its row is larger than this (DeepSeek-V3.2's off-policy mask, `agents.recipes.surrogates.off_policy_mask`).
        use_rewards: whether the world's rewards count; if not, a KL term is the only signal (distillation).
        drop_truncated: whether rows that were cut at the horizon are left out of the loss (DAPO's overlong filter). With one
            advantage a row, the mean of an update without length factor is then `E[ended (E[A | o]) s]`, s the row's score: for
            a mean baseline `kappa (grad E[ended R] - V grad P(ended))`, kappa being (G-1)/G, or 1 without the own row.
        count_environment: whether the normaliser counts the environment's tokens in a row's length, where it speaks.
        count_dropped: whether the normaliser still counts the tokens of dropped rows, as if none were
            dropped; by default a mean over tokens is one over the tokens that are kept. Rows and groups are counted either way.
        compare_dropped: whether the advantage still compares rows with the rewards of dropped ones. If not, groups are what is
            kept of them (one of fewer than `least` rows weighs nothing), and the mean of RLOO's update is
            `P_e (1 - (1 - P_e)^{G-1}) grad E[R | ended]` at each prompt, `P_e = P(ended)`.
        exact: True for the recipe that follows the exact gradient and samples nothing.
        least: smallest group size that the advantage can handle.
        best_of: k of the max@k that the advantage is meant for; 1 for the expected return.
        select: which groups the update is made of, a function `(rewards, mask, group) -> booleans` of the rows; the others are
            left out as if they had never been drawn, and the normaliser counts the groups that are left. Where it keeps groups
            apart and N groups are drawn independently, the mean is `(1 - (1 - s)^N) E[u | kept]`, u the update of a group
            alone, s the probability that a group is kept.
        pathwise: how sampled paths are differentiated; None for a recipe of log-probabilities.
        soft: how rows think before they answer; None for rows of tokens alone.

    An advantage or selection that needs more than rewards asks for it by keyword-only parameters, `(..., *, accuracy)`: extras
    of the batch, one number a row.

    Raises:
        InputError: off_policy_delta is not > 0, or the penalty in the reward has `importance`.
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
    off_policy_delta: float = math.inf
    use_rewards: bool = True
    drop_truncated: bool = False
    count_environment: bool = False
    count_dropped: bool = False
    compare_dropped: bool = True
    exact: bool = False
    least: int = 1
    best_of: int = 1
    select: Selection | None = None
    pathwise: Pathwise | ValueGradientLearning | RelaxedTokens | None = None
    soft: SoftThoughts | None = None

    def __post_init__(self) -> None:
        """Check the limit of the mask, and that a penalty in the reward is one of the policy that drew the rows."""
        off_policy_mask(self.off_policy_delta)
        if self.kl_reward is not None and self.kl_reward.importance:
            raise InputError("kl_reward must be without importance (rho): a penalty with it belongs in the loss")

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the extras that the advantage and the selection ask for."""
        parts = [part for part in (self.advantage, self.select) if part is not None]
        return tuple(dict.fromkeys(name for part in parts for name in asked_for(part)))

    @property
    def target(self) -> Target | None:
        """What the recipe is meant to climb: max@k, and less a KL divergence where k1 is in the reward.

        None where a penalty in the reward is compared among k rows, or rewards do not count: no objective is known then.
        """
        if not self.use_rewards:
            return None
        if self.exact or self.kl_reward is None:
            return Target(self.best_of)
        if self.best_of > 1:
            return None
        return Target(1, self.kl_reward.beta if self.kl_reward.estimator == "k1" else 0.0)

    @property
    def needs_reference(self) -> bool:
        """Whether a KL term needs the reference policy's log-probabilities."""
        return self.kl_reward is not None or self.kl_loss is not None

    @property
    def keeps_groups_apart(self) -> bool:
        """Whether a row's weight depends on its own group alone and on the number of groups."""
        if self.select is not None:
            return False
        parts: list[Callable[..., Tensor] | None] = [self.surrogate, self.normalise, self.advantage]
        return all(part is None or is_group_wise(part) for part in parts)

    def advantages(self, batch: Batch, old: Float[Tensor, "rows T"]) -> Float[Tensor, "rows T"]:
        """Advantages of the rows, constants.

        Args:
            batch: the rows.
            old: log-probabilities of the policy that drew them.

        Returns:
            The advantage of every step.

        Raises:
            InputError: the batch lacks a field or extra that the recipe needs, the advantages are not finite, or the recipe
                differentiates paths.
        """
        if self.pathwise is not None:
            raise InputError(
                f"learner {self.name!r} has no weights of log-probabilities: it differentiates sampled paths"
            )
        rewards = self.penalised_rewards(batch, old)
        if self.compare_dropped or not self.drop_truncated or batch.ended is None:
            return self._compared(batch, rewards, slice(None))
        kept = batch.ended & (
            torch.bincount(batch.group[batch.ended], minlength=len(rewards))[batch.group] >= self.least
        )
        advantages = torch.zeros_like(rewards)
        if bool(kept.any()):
            advantages[kept] = self._compared(batch, rewards, kept)
        return advantages

    def _compared(self, batch: Batch, rewards: Tensor, rows: Tensor | slice) -> Float[Tensor, "some T"]:
        """Advantages of some rows, which are compared with each other alone."""
        advantage = self.advantage or gae(self._needed(batch, "values")[rows], self.lam)
        group = batch.group if isinstance(rows, slice) else torch.unique(batch.group[rows], return_inverse=True)[1]
        extras = {name: x[rows] for name, x in self._asked(advantage, batch).items()}
        return _checked(advantage(rewards[rows], batch.mask[rows], group, **extras), rewards[rows])

    def _asked(self, part: Callable[..., Tensor], batch: Batch) -> dict[str, Tensor]:
        """The extras of the batch that a part asks for."""
        names, extras = asked_for(part), batch.extras or {}
        for name in names:
            if name not in extras:
                raise InputError(f"extras lack {name!r}, which learner {self.name!r} asks for: give it with the batch")
        return {name: extras[name] for name in names}

    def penalised_rewards(self, batch: Batch, old: Float[Tensor, "rows T"]) -> Float[Tensor, "rows T"]:
        """Rewards minus the KL penalty, if there is one in the reward; a critic must predict these.

        Args:
            batch: the rows.
            old: log-probabilities of the policy that drew them.

        Returns:
            The rewards of every step.

        Raises:
            InputError: the batch lacks the reference's log-probabilities.
        """
        rewards = batch.rewards if self.use_rewards else torch.zeros_like(batch.rewards)
        if self.kl_reward is not None:
            log_ratio = old - self._needed(batch, "reference")
            # Two passes of one network differ by rounding, and a std would magnify this where all rewards are equal.
            rounding = log_ratio.abs() <= 64 * torch.finfo(old.dtype).eps * old.abs().clamp(min=1.0)
            rewards = rewards - torch.where(batch.mask & ~rounding, self.kl_reward(log_ratio), 0.0)
        return rewards

    def _needed(self, batch: Batch, name: str) -> Tensor:
        """A field of the batch that may be None but is needed here."""
        table: Tensor | None = getattr(batch, name)
        if table is None:
            raise InputError(f"{name} are missing from the batch: learner {self.name!r} needs them")
        return table

    def loss(
        self, log_probs: Float[Tensor, "rows T"], entropy: Float[Tensor, "rows T"] | None, batch: Batch
    ) -> Float[Tensor, ""]:
        """`-sum_it n_it [ surrogate_it - kl_it + entropy_it ]` with the normaliser's weights n; the sum of `row_losses`.

        Args:
            log_probs: log pi of the steps, which carry the gradient.
            entropy: entropies of pi before the steps, which carry the gradient; needed for an entropy bonus only.
            batch: the rows.

        Returns:
            The loss, to be minimised.

        Raises:
            InputError: as in `row_losses`.
        """
        return self.row_losses(log_probs, entropy, batch).sum()

    def row_losses(
        self, log_probs: Float[Tensor, "rows T"], entropy: Float[Tensor, "rows T"] | None, batch: Batch
    ) -> Float[Tensor, "rows"]:
        """What each row adds to the loss.

        Args:
            log_probs: log pi of the steps, which carry the gradient.
            entropy: entropies of pi before the steps, which carry the gradient; needed for an entropy bonus only.
            batch: the rows.

        Returns:
            One number for each row.

        Raises:
            InputError: the batch lacks a field that the recipe needs, or the advantages are not finite.
        """
        if self.select is not None:
            return self._selected_losses(self.select, log_probs, entropy, batch)
        old = log_probs.detach() if batch.old is None else batch.old
        mask = batch.mask
        log_probs, old = torch.where(mask, log_probs, 0.0), torch.where(mask, old, 0.0)  # padding may be -inf or NaN
        advantages = self.advantages(batch, old)
        terms = self.surrogate(log_probs, old, advantages, mask)
        if self.off_policy_delta < math.inf:
            terms = torch.where(off_policy_mask(self.off_policy_delta)(log_probs, old, advantages, mask), terms, 0.0)
        if self.kl_loss is not None:
            log_ratio = log_probs - torch.where(mask, self._needed(batch, "reference"), 0.0)
            terms = terms - self.kl_loss(log_ratio, log_probs - old)
        if self.entropy:
            if entropy is None:
                raise InputError(f"entropy is missing: learner {self.name!r} has an entropy bonus")
            terms = terms + self.entropy * entropy
        counted = batch.span if self.count_environment and batch.span is not None else mask
        kept = mask
        if self.drop_truncated and batch.ended is not None:
            kept = mask & batch.ended[:, None]
            counted = counted if self.count_dropped else counted & batch.ended[:, None]
        weights = self.normalise(counted, batch.group).to(terms)
        return -(torch.where(kept, terms, 0.0) * weights).sum(1)

    def _selected_losses(
        self, select: Selection, log_probs: Tensor, entropy: Tensor | None, batch: Batch
    ) -> Float[Tensor, "rows"]:
        """The losses of the rows that are selected, as a batch of their own, and 0 for the others."""
        kept = select(batch.rewards, batch.mask, batch.group, **self._asked(select, batch))
        losses = 0.0 * torch.where(batch.mask & log_probs.isfinite(), log_probs, 0.0).sum(1)  # 0, with a gradient
        if not bool(kept.any()):
            return losses
        own = None if entropy is None else entropy[kept]
        rest = replace(self, select=None).row_losses(log_probs[kept], own, batch.rows(kept))
        return losses.to(rest).index_put((kept,), rest)

    def slopes(
        self, log_probs: Float[Tensor, "rows T"], entropy: Float[Tensor, "rows T"] | None, batch: Batch
    ) -> tuple[Float[Tensor, "rows"], Tensor, Tensor | None]:
        """The loss of each row, and minus the slopes of their sum in log_probs and in the entropies (None without a bonus).

        The slopes are the weights of the update, `sum_it w_it grad log pi(c_it) + u_it grad H_it`. No gradient is carried.

        Args:
            log_probs: log pi of the steps.
            entropy: entropies of pi before the steps; needed for an entropy bonus only.
            batch: the rows.

        Returns:
            The losses of the rows, the weights w, and the weights u (None without a bonus).

        Raises:
            InputError: as in `row_losses`.
        """
        inputs = [log_probs.detach().requires_grad_()]
        if self.entropy and entropy is not None:
            inputs.append(entropy.detach().requires_grad_())
        with torch.enable_grad():
            losses = self.row_losses(inputs[0], inputs[1] if len(inputs) > 1 else None, batch)
            slopes = torch.autograd.grad(losses.sum(), inputs, allow_unused=True, materialize_grads=True)
        return losses.detach(), -slopes[0], -slopes[1] if len(slopes) > 1 else None

    def __call__(
        self, rewards: Tensor, mask: Tensor, group: Tensor, log_probs: Tensor | None = None, **fields: Any
    ) -> tuple[Float[Tensor, "rows T"], Float[Tensor, "rows T"] | None]:
        """The update's weights of `grad log pi(c_it)` and of `grad H_it`, from which exact expectations are taken.

        Without `log_probs` the ratio pi / pi_old is 1 everywhere.

        Args:
            rewards: what each step adds to the return.
            mask: True for the policy's steps.
            group: number of each row's group.
            log_probs: log pi of the steps; None for those of the policy that drew them.
            fields: further fields of the batch, and its extras.

        Returns:
            The weights w, and the weights u (None without a bonus).

        Raises:
            InputError: as in `row_losses` and for a `Batch`.
        """
        current = torch.zeros_like(rewards) if log_probs is None else log_probs
        extras = {name: fields.pop(name) for name in self.signals if name in fields}
        batch = Batch(rewards, mask, group, extras=extras or None, **fields)
        _, weights, entropies = self.slopes(current, torch.zeros_like(rewards), batch)
        return weights, entropies


def _checked(advantages: Any, rewards: Tensor) -> Float[Tensor, "rows T"]:
    """The advantages, if they are one finite number for each step: the function may be a user's own."""
    if not isinstance(advantages, Tensor) or advantages.shape != rewards.shape:
        got = tuple(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
        raise InputError(f"advantage must give a tensor of the rewards' shape {tuple(rewards.shape)}; got {got}")
    if not bool(advantages.isfinite().all()):
        raise InputError("advantage gives NaN or infinity: every entry must be a finite number")
    return advantages.detach()
