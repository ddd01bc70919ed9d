"""A world as the training loop sees it: draw groups of rows with some copies of a policy, and say their log-probabilities.

`TokenTask` for token worlds, `CommandTask` for linear-quadratic ones (one group: G noisy rollouts from one start state).
Shapes: S copies (seeds) on the first axis, rows = prompts x group, T steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from agents.policies.nucleus import Nucleus, logits_within
from agents.recipes.batch import Batch
from agents.recipes.learner import Learner
from agents.sampling.completions import (
    completed,
    context_log_probs,
    drawn_signal,
    state_uniforms,
    step_rewards,
    token_log_probs,
)
from agents.sampling.environment import speaker
from agents.sampling.rollout import rollout
from agents.sampling.score_function import check_additive
from agents.sampling.tokens import draw_tokens, sample_tokens
from agents.training.copies import Copies
from envs.noise import Noise, draw_noise, log_density, noise_family
from envs.policy import Policy, TokenPolicy
from envs.record import short_repr
from envs.token_mdp import TokenMDP
from envs.world import InputError, World


@short_repr
@dataclass(frozen=True)
class Rollouts:
    """Drawn rows, all constants.

    Attributes:
        seen: what log-probabilities are computed from, the copies on the first axis.
        observations: what a critic reads.
        rewards: what each step adds to the return.
        mask: True for the policy's steps.
        old: log-probabilities of the policy that drew the rows.
        group: number of each row's group, the same for all copies.
        ended: False for rows that were cut at the horizon.
        prompt: each row's index among the world's prompts, or start states.
        span: True for all steps of the completion, the environment's among them.
        extras: by name what a learner asked for, (S, rows).
    """

    seen: tuple[Tensor, ...]
    observations: Float[Tensor, "S rows places features"]
    rewards: Float[Tensor, "S rows T"]
    mask: Bool[Tensor, "S rows T"]
    old: Float[Tensor, "S rows T"]
    group: Int[Tensor, "rows"]
    ended: Bool[Tensor, "S rows"]
    prompt: Int[Tensor, "S rows"]
    span: Bool[Tensor, "S rows T"]
    extras: dict[str, Tensor] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        """Number of groups of one copy."""
        return int(self.group.max()) + 1

    def batch(self, copy: int, rows: Tensor | slice = slice(None), **fields: Tensor | None) -> Batch:
        """Some rows of one copy, as a learner takes them.

        Args:
            copy: index of the copy.
            rows: which of its rows.
            fields: further fields of the batch, (S, rows, T).

        Returns:
            The batch.
        """
        chosen = {name: None if x is None else x[copy] for name, x in fields.items()}
        chosen |= {"old": self.old[copy], "ended": self.ended[copy], "span": self.span[copy]}
        extras = {name: x[copy] for name, x in self.extras.items()}
        whole = Batch(self.rewards[copy], self.mask[copy], self.group, extras=extras, **chosen)
        return whole if isinstance(rows, slice) else whole.rows(rows)

    def joined(self, rows: Tensor | slice = slice(None), **fields: Tensor | None) -> Batch:
        """Some rows of all copies as one batch, (S * rows, T), whose groups are those of all copies.

        Args:
            rows: which rows of each copy.
            fields: further fields of the batch, (S, rows, T).

        Returns:
            The batch.
        """
        tables = {
            "rewards": self.rewards,
            "mask": self.mask,
            "old": self.old,
            "ended": self.ended,
            "span": self.span,
        } | fields
        flat: dict[str, Any] = {k: None if x is None else x[:, rows].flatten(0, 1) for k, x in tables.items()}
        own = self.group[rows] if isinstance(rows, slice) else torch.unique(self.group[rows], return_inverse=True)[1]
        count = int(own.max()) + 1
        group = (own + count * torch.arange(len(self.rewards), device=own.device)[:, None]).flatten()
        return Batch(group=group, **flat, extras={name: x[:, rows].flatten() for name, x in self.extras.items()})

    def slopes(
        self,
        learner: Learner,
        log_probs: Tensor,
        entropy: Tensor,
        rows: Tensor | slice,
        fields: dict[str, Tensor | None],
    ) -> tuple[Float[Tensor, "S"], Float[Tensor, "S rows T"], Float[Tensor, "S rows T"] | None]:
        """Each copy's loss on some of its rows, and minus its slopes in log-probabilities and entropies.

        A learner whose groups do not mix takes the rows of all copies in one call, in which every copy's loss is
        divided by S once more; others take one copy after the other.

        Args:
            learner: the recipe.
            log_probs: log pi of the steps, (S, rows, T).
            entropy: entropies of pi before the steps, (S, rows, T).
            rows: which rows these are.
            fields: further fields of the batch, of all rows.

        Returns:
            Losses, the weights w, and the weights u (None without a bonus), as in
            `agents.recipes.learner.Learner.slopes`.

        Raises:
            InputError: as in `agents.recipes.learner.Learner.row_losses`.
        """
        copies = len(self.rewards)
        if copies > 1 and learner.keeps_groups_apart:
            batch = self.joined(rows, **fields)
            losses, weights, bonus = learner.slopes(log_probs.flatten(0, 1), entropy.flatten(0, 1), batch)
            weights = copies * weights.unflatten(0, (copies, -1))
            bonus = None if bonus is None else copies * bonus.unflatten(0, (copies, -1))
            return copies * losses.unflatten(0, (copies, -1)).sum(1), weights, bonus
        each = [learner.slopes(log_probs[i], entropy[i], self.batch(i, rows, **fields)) for i in range(copies)]
        bonuses = [bonus for _, _, bonus in each if bonus is not None]
        losses = torch.stack([row_losses.sum() for row_losses, _, _ in each])
        return losses, torch.stack([weights for _, weights, _ in each]), torch.stack(bonuses) if bonuses else None


@runtime_checkable
class Task(Protocol):
    """A kind of world for the training loop.

    Attributes:
        steps: T.
        features: numbers that a critic reads at each place.
        any_precision: whether rows may be drawn in another precision than the policy's own.
        signals: what the world can tell of a row beside its rewards.
        may_cost: whether a row's return may be below 0.
    """

    steps: int
    features: int
    any_precision: bool
    signals: Sequence[str]
    may_cost: bool

    def draw(
        self, actor: Copies, prompts: int, group: int, noise: list[torch.Generator], signals: Sequence[str] = ()
    ) -> Rollouts:
        """`group` rows for each of `prompts` prompts (or start states), every copy from its own generator; and some signals.

        Args:
            actor: the policies.
            prompts: groups of each copy.
            group: rows of a group.
            noise: one generator for each copy.
            signals: names of what is asked for beside the rewards.

        Returns:
            The rows.
        """
        ...

    def log_probs(self, network: Any, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of one copy's rows, (rows, T), with their gradient.

        Args:
            network: one policy.
            seen: what `Rollouts.seen` holds of its rows.

        Returns:
            Log-probabilities and entropies, in nats.
        """
        ...

    def log_probs_of_all(self, actor: Copies, group: int, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """The same of all copies' rows, (S, rows, T).

        Args:
            actor: the policies.
            group: rows of a group; the rows are whole groups.
            seen: what `Rollouts.seen` holds of the rows.

        Returns:
            Log-probabilities and entropies, in nats.
        """
        ...


class TokenTask:
    """A token world. Prompts are drawn by their weights.

    Args:
        world: the token world.

    Raises:
        InputError: the world pays a hidden readout.
    """

    any_precision = True

    def __init__(self, world: TokenMDP):
        if world.readout is not None:
            raise InputError("world pays a hidden readout, which sampled tokens do not tell: use a world without it")
        self.world, self.steps, self.features = world, world.horizon, world.V
        self.signals: Sequence[str] = tuple(world.signals)
        self.may_cost = bool((world.r < 0).any()) or world.readout is not None

    def draw(
        self, actor: Copies, prompts: int, group: int, noise: list[torch.Generator], signals: Sequence[str] = ()
    ) -> Rollouts:
        """Sampled completions; `old` are the sampler's own log-probabilities.

        Args:
            actor: the policies.
            prompts: groups of each copy.
            group: rows of a group.
            noise: one generator for each copy.
            signals: names of what is asked for beside the rewards.

        Returns:
            The rows.
        """
        like = actor.like
        world, rows = self.world.to(str(like.device), torch.float64), prompts * group
        weights = self.world.weights.cpu()
        index = torch.stack([torch.multinomial(weights, prompts, True, generator=g) for g in noise]).to(like.device)
        uniforms = torch.stack([torch.rand(rows, self.steps, generator=g, dtype=torch.float64) for g in noise])
        drawn = [u for g in noise if (u := state_uniforms(world, rows, g)) is not None]
        of_states = torch.stack(drawn).to(like.device) if drawn else None
        prompt = index.repeat_interleave(group, 1)
        tokens, old, own = self._sample(actor, world, index, group, uniforms.to(like.device), of_states)
        contexts = torch.cat([world.prompts[prompt], tokens], -1)
        said = (prompt.flatten(), tokens.flatten(0, 1), None if of_states is None else of_states.flatten(0, 1))
        rewards = step_rewards(world, *said).unflatten(0, prompt.shape)
        extras = {name: drawn_signal(world, name, *said).reshape(prompt.shape) for name in signals}
        span, ended = completed(world, tokens)
        slots = torch.arange(prompts, device=like.device).repeat_interleave(group)
        observations = one_hot(contexts[..., :-1], world.V).double()
        seen = (contexts, *self._kept(actor, contexts))
        return Rollouts(seen, observations, rewards, span & own, old.double(), slots, ended, prompt, span, extras)

    def _kept(self, actor: Copies, contexts: Tensor) -> tuple[Tensor, ...]:
        """Under top-p the sets of tokens that the rows were drawn from, (S, rows, T, V): all later passes keep them."""
        if not isinstance(actor.network, Nucleus):
            return ()
        with torch.no_grad():
            kept = actor.logits(contexts[..., :-1], self.steps) > -torch.inf
        # a token at the edge of its set may have been drawn from logits that are rounded otherwise
        return (kept.scatter(-1, contexts[..., -self.steps :, None], True),)

    def _sample(
        self, actor: Copies, world: TokenMDP, index: Tensor, group: int, uniforms: Tensor, of_states: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, log-probabilities and whether they are the policy's, (S, rows, T).

        One copy alone is sampled by the faster sampler, to the same tokens.
        """
        if actor.count == 1:
            environment = speaker(world, index[0].repeat_interleave(group), None if of_states is None else of_states[0])
            sample = sample_tokens(actor.network, world.prompts[index[0]], self.steps, uniforms[0], group, environment)
            return sample.tokens[None], sample.log_probs[None], sample.own[None]
        with torch.no_grad():
            numbers = (uniforms,) if of_states is None else (uniforms, of_states)
            tokens, log_probs, own = actor.run(partial(_sample_copy, world=world, group=group), index, *numbers)
        return tokens, log_probs, own

    def log_probs(self, network: Any, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """One pass over whole contexts.

        Args:
            network: one policy.
            seen: what `Rollouts.seen` holds of its rows.

        Returns:
            Log-probabilities and entropies, in nats.
        """
        contexts, *kept = seen
        if not kept:
            return context_log_probs(network, contexts, self.steps)
        return token_log_probs(logits_within(network, contexts[:, :-1], kept[0]), contexts)

    def log_probs_of_all(self, actor: Copies, group: int, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """One pass over the whole contexts of all copies; the rows of a group have one prompt.

        Args:
            actor: the policies.
            group: rows of a group; the rows are whole groups.
            seen: what `Rollouts.seen` holds of the rows.

        Returns:
            Log-probabilities and entropies, in nats.

        Raises:
            InputError: a number of a copy is NaN.
        """
        contexts, *kept = seen
        before = contexts[..., :-1]
        logits = actor.run(logits_within, before, *kept) if kept else actor.logits(before, self.steps, group)
        log_probs, entropy = token_log_probs(logits, contexts)
        actor.refuse_nan(log_probs, entropy)
        return log_probs, entropy


def _sample_copy(
    network: TokenPolicy, index: Tensor, uniforms: Tensor, *of_states: Tensor, world: TokenMDP, group: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Completions of one of several copies, under `vmap`."""
    environment = speaker(world, index.repeat_interleave(group), *(of_states or (None,)))
    prompts = world.prompts[index]
    return draw_tokens(network.embed, network.extend, prompts, uniforms, group, environment=environment)


class CommandTask:
    """A world with additive noise and a finite horizon under a policy of commands; a prompt is a start state.

    The terminal reward is counted with the last step. Copies are run one after the other.

    Args:
        world: with additive noise and a finite horizon.

    Raises:
        InputError: the world is endless, it does not execute a = u + xi (A2: its actions have no density in the
            policy's command), or the density of its noise jumps (A3: the score function is then wrong).
    """

    any_precision = False
    signals: Sequence[str] = ()
    may_cost = True

    def __init__(self, world: World):
        if world.horizon is None:
            raise InputError("horizon must be finite for training in a linear-quadratic world: give it one")
        check_additive(world, torch.ones(1, world.n, dtype=torch.float64), torch.zeros(1, world.m, dtype=torch.float64))
        if not noise_family(world.noise).differentiable:
            raise InputError(
                f"noise {world.noise!r} has a density that jumps (A3): score-function learners are wrong there"
            )
        self.world, self.steps, self.features = world, world.horizon, world.n

    def draw(
        self, actor: Copies, prompts: int, group: int, noise: list[torch.Generator], signals: Sequence[str] = ()
    ) -> Rollouts:
        """Noisy rollouts; `old` is the density of the noise that was drawn. There are no signals.

        Args:
            actor: the policies.
            prompts: groups of each copy.
            group: rows of a group.
            noise: one generator for each copy.
            signals: names of what is asked for beside the rewards.

        Returns:
            The rows.
        """
        device, parts = str(actor.like.device), []
        for i, g in enumerate(noise):
            drawn = draw_noise(self.world, prompts * group, self.steps, g).to(device)
            start = drawn.s_0[:prompts].repeat_interleave(group, 0)
            parts.append(self._paths(actor.network_of(i), drawn, start))
        states, actions, rewards = (torch.stack(x) for x in zip(*parts, strict=True))
        network = [self.log_probs(actor.network_of(i), states[i], actions[i])[0].detach() for i in range(actor.count)]
        mask = torch.ones_like(rewards, dtype=torch.bool)
        slots = torch.arange(prompts, device=device).repeat_interleave(group)
        return Rollouts(
            (states, actions),
            states,
            rewards,
            mask,
            torch.stack(network),
            slots,
            mask[..., 0],
            slots.expand(actor.count, -1),
            mask,
        )

    def _paths(self, network: Policy, noise: Noise, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            path = rollout(self.world, network, noise, start)
        discount = path.gamma ** torch.arange(self.steps + 1, dtype=start.dtype, device=start.device)
        rewards = path.rewards * discount
        rewards = torch.cat([rewards[:, :-2], rewards[:, -2:].sum(1, keepdim=True)], 1)
        return path.states[:, :-1], path.actions, rewards

    def log_probs(self, network: Policy, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """`log p(a_t - mu(history_t))`; the entropy is that of the noise, which no parameter moves: its slope is 0.

        Args:
            network: one policy.
            seen: what `Rollouts.seen` holds of its rows.

        Returns:
            Log-probabilities and entropies, in nats.
        """
        (states, actions), window = seen, network.window or self.steps
        histories = [states[:, max(0, t + 1 - window) : t + 1] for t in range(self.steps)]
        commands = torch.stack([network(history, t) for t, history in enumerate(histories)], 1)
        density = log_density(self.world.to(str(states.device), states.dtype), actions - commands)
        return density, torch.zeros_like(density)

    def log_probs_of_all(self, actor: Copies, group: int, *seen: Tensor) -> tuple[Tensor, Tensor]:
        """`log_probs` of every copy.

        Args:
            actor: the policies.
            group: rows of a group.
            seen: what `Rollouts.seen` holds of the rows.

        Returns:
            Log-probabilities and entropies, in nats.
        """
        log_probs, entropy = actor.run(self.log_probs, *seen)
        return log_probs, entropy
