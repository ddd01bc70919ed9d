"""The only training loop: every recipe, both kinds of world, any number of seeds at once, CPU or CUDA.

`Trainer.step` is one update: draw groups of rows, weight their tokens as the learner says, move the parameters, for every
seed alike and with its own noise. What is exact (the return, the true gradient, a perfect critic's values) comes in as an
`Oracle`, a plain object that the caller provides: an agent never computes its own truth.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.recipes.learner import Learner, Target
from agents.training.checks import check_answers, check_rows_of
from agents.training.copies import Copies
from agents.training.diagnostics import SAMPLED, StepDiagnostics
from agents.training.noise import noise_of
from agents.training.pathwise_step import check_pathwise, path_gradients
from agents.training.settings import Oracle, Record, SamplerMismatch, TrainingSettings
from agents.training.tasks import Rollouts, Task
from agents.training.teachers import Teachers
from agents.training.value_gradient_step import next_curl

_SAME = {torch.float64: 1e-9, torch.float32: 1e-4}  # how far a ratio may be from 1 before the first step
Answers = tuple[Tensor, Tensor, list[Tensor]]  # J, entropy, gradients of every copy
Fields = dict[str, Tensor | None]  # further fields of the batch: reference, values


class Trainer:
    """Training of S copies of policies with one learner, one seed of noise each.

    The policies given are left as they are; `policies` gives the trained ones.

    Args:
        task: the world as the loop sees it (`agents.training.tasks`).
        learner: the recipe.
        policies: S networks of one kind.
        seeds: S different numbers.
        setting: steps, sizes, rates.
        oracle: what is exact, where it is known.
        critics: S networks, for a learner that learns its values.
        teachers: what the learner's KL term pulls to; by default the policies as they are at the start.

    Raises:
        InputError: the learner's KL term does not fit the teachers, seeds do not fit, an oracle or critics are missing that
            the learner needs, a group is too small to compare, or a sampler's precision is asked for where the world has none
            to choose.
    """

    def __init__(
        self,
        task: Task,
        learner: Learner,
        policies: Sequence[nn.Module],
        seeds: Sequence[int],
        setting: TrainingSettings,
        oracle: Oracle | None = None,
        critics: Sequence[nn.Module] | None = None,
        teachers: Teachers | None = None,
    ):
        if teachers is not None:
            teachers.check(learner)
        check_answers(learner, policies, seeds, oracle, critics)
        check_rows_of(task, learner, setting, len(policies))
        check_pathwise(task, learner, setting, oracle, policies, critics)
        self.task, self.learner, self.setting, self.oracle, self.taken = task, learner, setting, oracle, 0
        self.actor, self.warned = Copies.of(policies), False
        self.teachers = teachers
        self.reference = self.actor.frozen() if learner.needs_reference and teachers is None else None
        self.noise = [noise_of("rollouts", seed) for seed in seeds]
        self.order = torch.Generator().manual_seed(0)  # of minibatches, the same for every seed
        own, rate, adam = self.actor.parameters, setting.rate, setting.optimiser == "adam"
        self.optimiser: torch.optim.Optimizer
        self.optimiser = torch.optim.Adam(own, lr=rate) if adam else torch.optim.SGD(own, lr=rate)
        self.critic = Copies.of(critics) if critics is not None and learner.critic == "learned" else None
        if self.critic is not None:
            self.critic_optimiser = torch.optim.Adam(self.critic.parameters, lr=setting.critic_rate)

    @property
    def policies(self) -> list[Any]:
        """Copies of the policies as they are now."""
        return self.actor.networks()

    def run(self) -> Iterator[Record]:
        """Records of the steps that are left, and one more of the policies as they are in the end.

        Yields:
            The record of each step, and in the end one without an update.
        """
        while self.taken < self.setting.steps:
            yield self.step()
        curl = {"curl": next_curl(self.task, self.actor, self.critic, self.setting, self.noise)}
        yield self._record(self._answers(), [self._nothing()] * 2, dict.fromkeys(SAMPLED, self._nothing()) | curl)

    def step(self) -> Record:
        """One update of every copy.

        Returns:
            What is known of the policies before the update, and of the rows.

        Raises:
            InputError: a policy gives NaN, or the learner refuses the rows.
        """
        if self.learner.exact:
            return self._exact_step()
        if self.learner.pathwise is not None:
            return self._pathwise_step()
        answers, aim = (self._answers(), self._target_gradient()) if self._is_recorded() else (None, None)
        rows = self._draw()
        fields: Fields = {"reference": self._reference(rows), "values": self._values(rows)}
        diagnostics = StepDiagnostics(rows)
        for _ in range(self.setting.epochs):
            for part in self._minibatches():
                self._move(diagnostics.keep_first(self._gradient(rows, part, fields, diagnostics)))
        self._fit_critic(rows, fields["reference"])
        self._compare_sampler(diagnostics)
        cosines = [self._cosine(diagnostics.gradient, truth) for truth in (answers and answers[2], aim)]
        record = self._record(answers, cosines, diagnostics.summary())
        self.taken += 1
        return record

    def _is_recorded(self) -> bool:
        return self.taken % self.setting.every == 0

    def _draw(self) -> Rollouts:
        precision = getattr(torch, self.setting.sampler) if self.setting.sampler else None
        sampler = self.actor.frozen(precision) if precision else self.actor
        return self.task.draw(sampler, self.setting.prompts, self.setting.group, self.noise, self.learner.signals)

    def _minibatches(self) -> list[Tensor | slice]:
        """Whole groups, in a random order that is the same for all copies and runs."""
        prompts, group = self.setting.prompts, self.setting.group
        if self.setting.minibatches == 1:
            return [slice(None)]
        order = torch.randperm(prompts, generator=self.order)
        members = order[:, None] * group + torch.arange(group)
        return [part.flatten().to(self.actor.like.device) for part in members.tensor_split(self.setting.minibatches)]

    def _gradient(
        self, rows: Rollouts, part: Tensor | slice, fields: Fields, diagnostics: StepDiagnostics
    ) -> list[Tensor]:
        """The gradient of the loss on some rows: the learner's weights on log-probabilities and entropies, carried back."""
        seen = [x[:, part] for x in rows.seen]
        log_probs, entropy = self.task.log_probs_of_all(self.actor, self.setting.group, *seen)
        losses, weights, bonus = rows.slopes(self.learner, log_probs, entropy, part, fields)
        outputs, slopes = [log_probs], [-weights.to(log_probs)]
        if bonus is not None and entropy.requires_grad:
            outputs.append(entropy)
            slopes.append(-bonus.to(entropy))
        signal = slopes[0] if self.learner.kl_loss is None else self._signal(rows, part, fields, log_probs)
        diagnostics.add(part, losses, signal, log_probs.detach())
        return list(
            torch.autograd.grad(outputs, self.actor.parameters, slopes, allow_unused=True, materialize_grads=True)
        )

    def _signal(self, rows: Rollouts, part: Tensor | slice, fields: Fields, log_probs: Tensor) -> Tensor:
        """The slopes of the surrogate alone, without a KL term: what the clip can silence."""
        bare = replace(self.learner, kl_loss=None, entropy=0.0)
        return -rows.slopes(bare, log_probs, torch.zeros_like(log_probs), part, fields)[1]

    def _move(self, gradients: list[Tensor]) -> None:
        """The optimiser's step, each copy's gradient cut to `max_norm`."""
        if self.setting.max_norm:
            factor = (self.setting.max_norm / self.actor.flattened(gradients).norm(dim=1)).clamp(max=1.0)
            alone = self.actor.count == 1
            gradients = [g * (factor[0] if alone else factor.view(-1, *[1] * (g.ndim - 1))) for g in gradients]
        for p, g in zip(self.actor.parameters, gradients, strict=True):
            p.grad = g
        self.optimiser.step()

    def _exact_step(self) -> Record:
        """Ascent on the true gradient; the entropy, which takes longer, is computed where it is recorded."""
        assert self.oracle is not None  # checked when the trainer was made
        answers = self._answers() if self._is_recorded() else None
        if answers is None:
            J, gradients = self.oracle.gradient(self.actor)
            answers = J.double().cpu(), self._nothing(), gradients
        self._move([-g for g in answers[2]])
        cosines = [torch.ones_like(answers[0]), self._nothing()]
        record = self._record(answers, cosines, dict.fromkeys(SAMPLED, self._nothing()))
        self.taken += 1
        return record

    def _pathwise_step(self) -> Record:
        """Ascent on the gradient of sampled paths; ratios and clips have no meaning here."""
        answers = self._answers() if self._is_recorded() else None
        fit = None if self.critic is None else (self.critic, self.critic_optimiser)
        rows = path_gradients(self.task, self.learner, self.actor, self.setting, self.noise, self.oracle, fit)
        losses = [-g for g in rows.gradients]
        self._move(losses)
        sampled = dict.fromkeys(SAMPLED, self._nothing()) | rows.numbers
        record = self._record(answers, [self._cosine(losses, answers and answers[2]), self._nothing()], sampled)
        self.taken += 1
        return record

    def _reference(self, rows: Rollouts) -> Tensor | None:
        if self.teachers is not None:
            return self.teachers.log_probs(self.task, rows)
        if self.reference is None:
            return None
        return self.task.log_probs_of_all(self.reference, self.setting.group, *rows.seen)[0].double()

    def _values(self, rows: Rollouts) -> Tensor | None:
        """The critic's `gamma^k V_k` as they are before the update."""
        if self.critic is not None:
            with torch.no_grad():
                values: Tensor = self.critic.run(self._read, rows.observations.to(self.critic.like))
            return values.double()
        if self.learner.critic is None or self.oracle is None:
            return None
        return self.oracle.values(self.actor, rows)

    def _read(self, critic: Any, observations: Tensor) -> Tensor:
        values: Tensor = critic(critic.embedding(observations))[:, -self.task.steps :, 0]
        return values

    def _fit_critic(self, rows: Rollouts, reference: Tensor | None) -> None:
        """Least squares of the critic on the returns-to-go of what was drawn, KL penalties in the reward included."""
        if self.critic is None:
            return
        batch = rows.joined(reference=reference)
        rewards = self.learner.penalised_rewards(batch, rows.old.flatten(0, 1)).unflatten(0, (self.actor.count, -1))
        target, observations = rewards.flip(2).cumsum(2).flip(2).to(self.critic.like), rows.observations
        for _ in range(self.setting.critic_epochs):
            values = self.critic.run(self._read, observations.to(self.critic.like))
            error = ((values - target) ** 2 * rows.mask).sum((1, 2)) / rows.mask.sum((1, 2))
            slopes = torch.autograd.grad(error.sum(), self.critic.parameters)
            for p, g in zip(self.critic.parameters, slopes, strict=True):
                p.grad = g
            self.critic_optimiser.step()

    def _answers(self) -> Answers | None:
        """J, entropy and true gradient of every copy."""
        if self.oracle is None:
            return None
        J, H, gradients = self.oracle.answers(self.actor)
        return J.double().cpu(), H.double().cpu(), gradients

    def _target_gradient(self) -> list[Tensor] | None:
        """The exact gradient of what the recipe is meant to climb, where that is not the return and is known."""
        target = self.learner.target
        if self.oracle is None or target is None or target == Target():
            return None
        if self.teachers is not None and target.beta:
            return None
        return self.oracle.target_gradient(self.actor, target, self.reference)

    def _cosine(self, gradient: list[Tensor], truth: list[Tensor] | None) -> Float[Tensor, "S"]:
        """Of the update, minus the loss's gradient, to an exact gradient; NaN where either is 0 or the exact one not known."""
        if truth is None:
            return self._nothing()
        x, y = -self.actor.flattened(gradient).double().cpu(), self.actor.flattened(truth).double().cpu()
        cosine: Tensor = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
        return cosine

    def _compare_sampler(self, diagnostics: StepDiagnostics) -> None:
        """Warn, once, when the policy that drew the rows is not the one that is trained."""
        worst, allowed = float(diagnostics.ratio_error.max()), _SAME.get(self.actor.like.dtype, 1e-2)
        if not worst <= allowed and not self.warned:  # NaN is off too
            self.warned = True
            message = (
                f"sampler and trainer disagree: before the first step a ratio is off 1 by {worst:.2g} "
                f"(allowed: {allowed:g}); the policy that draws the rows is not the one that is trained"
            )
            warnings.warn(message, SamplerMismatch, stacklevel=3)

    def _nothing(self) -> Float[Tensor, "S"]:
        return torch.full((self.actor.count,), torch.nan, dtype=torch.float64)

    def _record(self, answers: Answers | None, cosines: list[Tensor], sampled: dict[str, Tensor]) -> Record:
        J, H = (self._nothing(), self._nothing()) if answers is None else answers[:2]
        rows = 0 if self.learner.exact else self.taken * self.setting.prompts * self.setting.group
        numbers = {"curl": self._nothing()} | sampled
        return Record(self.taken, rows, J=J, entropy=H, cosine=cosines[0], target_cosine=cosines[1], **numbers)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, for `torch.save`.

        Returns:
            Tensors and numbers by name.
        """
        networks = {"actor": self.actor, "critic": self.critic, "reference": self.reference}
        state: dict[str, Any] = {
            name: [p.detach().clone() for p in copies.parameters] for name, copies in networks.items() if copies
        }
        state |= {"taken": self.taken, "noise": [g.get_state() for g in (*self.noise, self.order)]}
        state["optimiser"] = copy.deepcopy(self.optimiser.state_dict())  # later steps change its moments in place
        return state | ({"critic_optimiser": copy.deepcopy(self.critic_optimiser.state_dict())} if self.critic else {})

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`: the same numbers, to the bit, as if there had been no stop.

        Args:
            state: of a trainer with the same task, learner, policies and setting.
        """
        for name in ("actor", "critic", "reference"):
            copies: Copies | None = getattr(self, name)
            with torch.no_grad():
                for p, kept in zip(copies.parameters if copies else [], state.get(name, []), strict=True):
                    p.copy_(kept)
        for g, kept in zip((*self.noise, self.order), state["noise"], strict=True):
            g.set_state(kept)
        self.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))
        if self.critic is not None:
            self.critic_optimiser.load_state_dict(copy.deepcopy(state["critic_optimiser"]))
        self.taken = int(state["taken"])
