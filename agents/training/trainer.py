"""The only training loop: every recipe, both kinds of world, any number of seeds at once, CPU or CUDA.

`Trainer.step` is one update: draw groups of rows, weigh their tokens as the learner says, move the parameters, for every
seed alike and with its own noise. What is exact (the return, the true gradient, a perfect critic's values) comes in as an
`Oracle`, a plain object that the caller provides: an agent never computes its own truth.
"""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.learners import Learner
from agents.training.copies import Copies
from agents.training.settings import Oracle, Record, SamplerMismatch, TrainingSettings
from agents.training.tasks import Rollouts, Task
from envs.world import InputError

_SAME = {torch.float64: 1e-9, torch.float32: 1e-4}  # how far a ratio may be from 1 before the first step
Answers = tuple[Tensor, Tensor, list[Tensor]]  # J, entropy, gradients of every copy


class Trainer:
    """A learner at work on S policies, one seed of noise each; `critics` are S networks where it learns its values.

    Raises InputError for seeds that do not fit, an oracle or critics that the learner needs and does not get, a group that is
    too small to compare, and a sampler's precision where the world has none to choose.
    """

    def __init__(
        self, task: Task, learner: Learner, policies: list[Any], seeds: list[int], setting: TrainingSettings,
        oracle: Oracle | None = None, critics: list[Any] | None = None,
    ):  # fmt: skip
        _check(learner, policies, seeds, oracle, critics)
        if setting.group < learner.least:
            raise InputError(f"group must be >= {learner.least}: learner {learner.name!r} compares the rows of a group")
        _try_smallest(learner, setting)
        if setting.sampler and not task.any_precision:
            raise InputError(
                "sampler must be left out in a linear-quadratic world: its rows are drawn in double precision"
            )
        self.task, self.learner, self.setting, self.oracle, self.taken = task, learner, setting, oracle, 0
        self.actor, self.warned = Copies(policies), False
        self.reference = self.actor.frozen() if learner.needs_reference else None
        self.noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.order = torch.Generator().manual_seed(0)  # of minibatches, the same for every seed
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[setting.optimiser]
        self.optimiser: torch.optim.Optimizer = kind(self.actor.parameters, lr=setting.rate)
        self.critic = Copies(critics) if learner.critic == "learned" and critics else None
        if self.critic is not None:
            self.critic_optimiser = torch.optim.Adam(self.critic.parameters, lr=setting.critic_rate)

    def run(self) -> Iterator[Record]:
        """Records of the steps that are left, and one more of the policies as they are in the end."""
        while self.taken < self.setting.steps:
            yield self.step()
        nothing = torch.full((self.actor.count,), torch.nan, dtype=torch.float64)
        yield self._record(self._answers(), None, dict.fromkeys(_SAMPLED, nothing))

    def step(self) -> Record:
        """One update of every copy."""
        wanted = self.learner.exact or self.taken % self.setting.every == 0
        answers = self._answers() if wanted else None
        if self.learner.exact and answers is not None:
            return self._exact_step(answers)
        rows = self._draw()
        more = {"reference": self._reference(rows), "values": self._values(rows)}
        seen = _StepDiagnostics(rows)
        for _ in range(self.setting.epochs):
            for part in self._minibatches():
                self._move(seen.first(self._update(rows, part, more, seen)))
        self._fit_critic(rows, more["reference"])
        self._compare_sampler(seen)
        cosine = None if answers is None else self._cosine(seen.gradient, answers[2])
        record = self._record(answers, cosine, seen.summary())
        self.taken += 1
        return record

    def _draw(self) -> Rollouts:
        precision = getattr(torch, self.setting.sampler) if self.setting.sampler else None
        sampler = self.actor.frozen(precision) if precision else self.actor
        return self.task.draw(sampler, self.setting.prompts, self.setting.group, self.noise)

    def _minibatches(self) -> list[Tensor | slice]:
        """Whole groups, in a random order that is the same for all copies and runs."""
        prompts, group = self.setting.prompts, self.setting.group
        if self.setting.minibatches == 1:
            return [slice(None)]
        order = torch.randperm(prompts, generator=self.order)
        members = order[:, None] * group + torch.arange(group)
        return [part.flatten().to(self.actor.like.device) for part in members.tensor_split(self.setting.minibatches)]

    def _update(
        self, rows: Rollouts, part: Tensor | slice, more: dict[str, Any], seen: "_StepDiagnostics"
    ) -> list[Tensor]:
        """The gradient of the loss on some rows: the learner's weights on log-probabilities and entropies, carried back."""
        log_probs, entropy = self.actor.run(self.task.log_probs, *(x[:, part] for x in rows.seen))
        found = [
            self.learner.slopes(log_probs[i], entropy[i], rows.batch(i, part, **more)) for i in range(self.actor.count)
        ]
        losses, weights, bonus = (list(x) for x in zip(*found, strict=True))
        outputs, slopes = [log_probs], [-torch.stack(weights).to(log_probs)]
        if bonus[0] is not None and entropy.requires_grad:
            outputs.append(entropy)
            slopes.append(-torch.stack(bonus).to(entropy))
        seen.add(part, torch.stack(losses), self._signal(rows, part, more, log_probs, slopes[0]), log_probs.detach())
        return list(
            torch.autograd.grad(outputs, self.actor.parameters, slopes, allow_unused=True, materialize_grads=True)
        )

    def _signal(
        self, rows: Rollouts, part: Tensor | slice, more: dict[str, Any], log_probs: Tensor, slopes: Tensor
    ) -> Tensor:
        """The slopes of the surrogate alone, without a KL term: what the clip can silence."""
        if self.learner.kl_loss is None:
            return slopes
        bare = replace(self.learner, kl_loss=None, entropy=0.0)
        return -torch.stack(
            [bare.slopes(x, None, rows.batch(i, part, **more))[1] for i, x in enumerate(log_probs.detach())]
        )

    def _move(self, gradients: list[Tensor]) -> None:
        """The optimiser's step, each copy's gradient cut to `max_norm`."""
        if self.setting.max_norm:
            factor = (self.setting.max_norm / self.actor.flattened(gradients).norm(dim=1)).clamp(max=1.0)
            alone = self.actor.count == 1
            gradients = [g * (factor[0] if alone else factor.view(-1, *[1] * (g.ndim - 1))) for g in gradients]
        for p, g in zip(self.actor.parameters, gradients, strict=True):
            p.grad = g
        self.optimiser.step()

    def _exact_step(self, answers: Answers) -> Record:
        """Ascent on the true gradient."""
        self._move([-g for g in answers[2]])
        one, nothing = torch.ones_like(answers[0]), torch.full_like(answers[0], torch.nan)
        record = self._record(answers, one, dict.fromkeys(_SAMPLED, nothing))
        self.taken += 1
        return record

    def _reference(self, rows: Rollouts) -> Tensor | None:
        if self.reference is None:
            return None
        return self.reference.run(self.task.log_probs, *rows.seen)[0].double()

    def _values(self, rows: Rollouts) -> Tensor | None:
        """The critic's `gamma^k V_k` as they are before the update."""
        if self.critic is not None:
            with torch.no_grad():
                return self.critic.run(self._read, rows.observations.to(self.critic.like)).double()
        if self.learner.critic is None or self.oracle is None:
            return None
        return self.oracle.values(self.actor, rows)

    def _read(self, critic: Any, observations: Tensor) -> Tensor:
        return critic(critic.embedding(observations))[:, -self.task.steps :, 0]

    def _fit_critic(self, rows: Rollouts, reference: Tensor | None) -> None:
        """Least squares of the critic on the returns-to-go of what was drawn, KL penalties in the reward included."""
        if self.critic is None:
            return
        batches = [rows.batch(i, reference=reference) for i in range(self.actor.count)]
        paid = torch.stack([self.learner.penalised_rewards(batch, rows.old[i]) for i, batch in enumerate(batches)])
        target = paid.flip(2).cumsum(2).flip(2).to(self.critic.like)
        for _ in range(self.setting.critic_epochs):
            found = self.critic.run(self._read, rows.observations.to(self.critic.like))
            error = ((found - target) ** 2 * rows.mask).sum((1, 2)) / rows.mask.sum((1, 2))
            for p, g in zip(
                self.critic.parameters, torch.autograd.grad(error.sum(), self.critic.parameters), strict=True
            ):
                p.grad = g
            self.critic_optimiser.step()

    def _answers(self) -> Answers | None:
        """J, entropy and true gradient of every copy."""
        if self.oracle is None:
            return None
        J, H, gradients = self.oracle.answers(self.actor)
        return J.double().cpu(), H.double().cpu(), gradients

    def _cosine(self, gradient: list[Tensor], truth: list[Tensor]) -> Float[Tensor, "S"]:
        """Of the update, minus the loss's gradient, to the true gradient; NaN where either is 0."""
        x, y = -self.actor.flattened(gradient).double().cpu(), self.actor.flattened(truth).double().cpu()
        return (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))

    def _compare_sampler(self, seen: "_StepDiagnostics") -> None:
        """Say loudly, once, when what was drawn is not what is trained."""
        worst, allowed = float(seen.ratio_error.max()), _SAME.get(self.actor.like.dtype, 1e-2)
        if not worst <= allowed and not self.warned:  # NaN is off too
            self.warned = True
            warnings.warn(
                f"sampler and trainer disagree: before the first step a ratio is off 1 by {worst:.2g} "
                f"(allowed: {allowed:g}); the policy that draws the rows is not the one that is trained",
                SamplerMismatch, stacklevel=3,
            )  # fmt: skip

    def _record(self, answers: Answers | None, cosine: Tensor | None, sampled: dict[str, Tensor]) -> Record:
        nothing = torch.full((self.actor.count,), torch.nan, dtype=torch.float64)
        J, H = (nothing, nothing) if answers is None else answers[:2]
        rows = 0 if self.learner.exact else self.taken * self.setting.prompts * self.setting.group
        return Record(self.taken, rows, J=J, entropy=H, cosine=nothing if cosine is None else cosine, **sampled)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, for `torch.save`."""
        networks = {"actor": self.actor, "critic": self.critic, "reference": self.reference}
        state: dict[str, Any] = {
            name: [p.detach().clone() for p in copies.parameters] for name, copies in networks.items() if copies
        }
        state |= {"taken": self.taken, "noise": [g.get_state() for g in (*self.noise, self.order)]}
        state["optimiser"] = self.optimiser.state_dict()
        return state | ({"critic_optimiser": self.critic_optimiser.state_dict()} if self.critic else {})

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`: the same numbers, to the bit, as if there had been no stop."""
        for name in ("actor", "critic", "reference"):
            copies: Copies | None = getattr(self, name)
            with torch.no_grad():
                for p, kept in zip(copies.parameters if copies else [], state.get(name, []), strict=True):
                    p.copy_(kept)
        for g, kept in zip((*self.noise, self.order), state["noise"], strict=True):
            g.set_state(kept)
        self.optimiser.load_state_dict(state["optimiser"])
        if self.critic is not None:
            self.critic_optimiser.load_state_dict(state["critic_optimiser"])
        self.taken = int(state["taken"])


_SAMPLED = ("loss", "sampled", "clipped", "silent", "ratio_error")


class _StepDiagnostics:
    """What the passes over one draw of rows showed."""

    def __init__(self, rows: Rollouts):
        self.rows, self.losses = rows, list[Tensor]()
        self.weights: Tensor = torch.full_like(rows.old, torch.nan)
        self.silenced = torch.zeros_like(rows.mask)
        self.gradient: list[Tensor] = []

    def add(self, part: Tensor | slice, losses: Tensor, slopes: Tensor, log_probs: Tensor) -> None:
        """One minibatch."""
        if not self.losses:
            off = ((log_probs - self.rows.old[:, part]).exp() - 1).abs() * self.rows.mask[:, part]
            self.ratio_error = off.double().amax((1, 2))
        before = self.weights[:, part]
        self.silenced[:, part] |= (slopes == 0) & before.isfinite() & (before != 0)
        self.weights[:, part] = torch.where(before.isnan(), slopes.double(), before)
        self.losses.append(losses)

    def first(self, gradients: list[Tensor]) -> list[Tensor]:
        """Keep the first gradient of the step."""
        self.gradient = self.gradient or gradients
        return gradients

    def summary(self) -> dict[str, Tensor]:
        """One number a copy."""
        mask, groups = self.rows.mask, int(self.rows.group.max()) + 1
        size = self.weights.abs()
        alive = (size > 1e-12 * size.amax((1, 2), keepdim=True)).any(2).unflatten(1, (groups, -1)).any(2)
        found = {
            "loss": torch.stack(self.losses).double().mean(0),
            "sampled": self.rows.rewards.sum(2).mean(1),
            "clipped": self.silenced.double().sum((1, 2)) / mask.sum((1, 2)),
            "silent": 1 - alive.double().mean(1),
            "ratio_error": self.ratio_error,
        }
        return {name: x.double().cpu() for name, x in found.items()}


def _try_smallest(learner: Learner, setting: TrainingSettings) -> None:
    """Let the learner refuse what is too small for it before anything is drawn."""
    groups = 1 if learner.exact else setting.prompts // setting.minibatches
    none = torch.zeros(groups * setting.group, 1, dtype=torch.float64)
    index = torch.arange(groups).repeat_interleave(setting.group)
    learner(none, none == 0, index, none, reference=none, values=none, ended=none[:, 0] == 0)


def _check(learner: Learner, policies: list[Any], seeds: list[int], oracle: Any, critics: list[Any] | None) -> None:
    if len(seeds) != len(policies) or len(set(seeds)) != len(seeds):
        raise InputError(f"seeds must be {len(policies)} different numbers, one per policy; got {seeds}")
    if oracle is None and (learner.exact or learner.critic == "exact"):
        raise InputError(f"oracle is missing: learner {learner.name!r} needs exact answers")
    if learner.critic == "exact" and learner.kl_reward is not None and learner.lam < 1:
        raise InputError(
            "critic must be learned, or lam 1, with a KL penalty in the reward: the exact one knows the world's alone"
        )
    if learner.critic == "learned" and (critics is None or len(critics) != len(policies)):
        raise InputError(f"critics must be {len(policies)} networks: learner {learner.name!r} learns its values")
