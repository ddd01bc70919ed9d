"""A token world as the training loop sees it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from agents.policies.nucleus import Nucleus, logits_within
from agents.sampling.completions import (
    completed,
    context_log_probs,
    drawn_signal,
    state_uniforms,
    step_rewards,
    token_log_probs,
)
from agents.sampling.environment import speaker
from agents.sampling.tokens import draw_tokens, sample_tokens
from agents.training.copies import Copies
from agents.training.tasks import Rollouts
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError


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
        each = [[x for x in self._noise(world, rows, g) if x is not None] for g in noise]
        numbers = [torch.stack(x).to(like.device) for x in zip(*each, strict=True)]
        prompt = index.repeat_interleave(group, 1)
        seen, tokens, own, old = self._drawn(actor, world, index, group, numbers)
        said = (prompt.flatten(), tokens.flatten(0, 1), None if world.deterministic else numbers[-1].flatten(0, 1))
        rewards = step_rewards(world, *said).unflatten(0, prompt.shape)
        extras = {name: drawn_signal(world, name, *said).reshape(prompt.shape) for name in signals}
        span, ended = completed(world, tokens)
        slots = torch.arange(prompts, device=like.device).repeat_interleave(group)
        observations = one_hot(seen[0][..., :-1], world.V).double()
        paid, mask, span = self._steps(rewards, 0.0), self._steps(span & own, True), self._steps(span, True)
        return Rollouts(seen, observations, paid, mask, old.double(), slots, ended, prompt, span, extras)

    def _noise(self, world: TokenMDP, rows: int, rng: torch.Generator) -> tuple[Tensor | None, ...]:
        """The numbers that one copy's rows are drawn with; those of the states come last, None where none are drawn."""
        uniforms = torch.rand(rows, world.horizon, generator=rng, dtype=torch.float64)
        return uniforms, state_uniforms(world, rows, rng)

    def _drawn(
        self, actor: Copies, world: TokenMDP, index: Tensor, group: int, numbers: list[Tensor]
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]:
        """What later passes need of the rows, contexts first; their tokens, whose these are, and log-probabilities."""
        tokens, old, own = self._sample(
            actor, world, index, group, numbers[0], None if len(numbers) < 2 else numbers[1]
        )
        contexts = torch.cat([world.prompts[index.repeat_interleave(group, 1)], tokens], -1)
        return (contexts, *self._kept(actor, contexts)), tokens, own, old

    def _steps(self, table: Tensor, fill: float) -> Tensor:
        """A table of the completions' tokens as one of all steps of a row; `fill` is for steps that are no tokens."""
        return table

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
