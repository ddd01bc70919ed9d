"""Completions of a token world: the one place where they are drawn and get rewards and log-probabilities.

Rewards are `gamma^k r_k` along drawn abstract states, what each step adds to the return, and 0 after an end token, as
`agents.recipes.batch.Batch` requires.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agents.recipes.batch import Batch
from agents.sampling.environment import speaker
from agents.sampling.token_rewards import drawn_rewards
from agents.sampling.tokens import sample_tokens
from envs.policy import ContextPolicy, TokenPolicy
from envs.record import short_repr
from envs.token_mdp import TokenMDP


@short_repr
@dataclass(frozen=True)
class SampledCompletions:
    """Completions of one policy, drawn in groups of one prompt each; all constants.

    Attributes:
        prompt: each row's index among the world's prompts.
        contexts: tokens of prompt and completion.
        rewards: `gamma^k r_k`, 0 after an end token.
        mask: True for the policy's tokens of the completion, the end token included.
        span: True for all tokens of the completion, the environment's among them.
        log_probs: `log pi` of the tokens, from the pass that drew them.
        group: number of the row's group.
        ended: False for rows that were cut at the horizon of a world with an end token.
        extras: the world's signals of every row by name.
    """

    prompt: Int[Tensor, "rows"]
    contexts: Int[Tensor, "rows places"]
    rewards: Float[Tensor, "rows H"]
    mask: Bool[Tensor, "rows H"]
    span: Bool[Tensor, "rows H"]
    log_probs: Float[Tensor, "rows H"]
    group: Int[Tensor, "rows"]
    ended: Bool[Tensor, "rows"]
    extras: dict[str, Tensor] = field(default_factory=dict)

    def batch(self) -> Batch:
        """The rows as the batch of an on-policy update.

        Returns:
            The batch.
        """
        return Batch(self.rewards, self.mask, self.group, span=self.span, extras=self.extras)


def sample_completions(
    world: TokenMDP,
    policy: TokenPolicy,
    which: Int[Tensor, "groups"],
    group: int,
    noise: torch.Generator | Float[Tensor, "rows numbers"],
) -> SampledCompletions:
    """Draw `group` rows for each prompt whose index is in `which`, tokens and then, where these lead by chance, states.

    Args:
        world: the token world.
        policy: draws the tokens.
        which: indices of prompts.
        group: rows of each.
        noise: a generator, or uniforms on [0, 1): (rows, H) for the tokens; in a world whose tokens lead by chance (rows, 2 H),
            those of the states last.

    Returns:
        The completions, and what they were paid.

    Raises:
        InputError: as `sample_tokens` and `drawn_rewards`.
    """
    device = next(policy.parameters()).device
    world, which = world.to(str(device), world.P.dtype), which.to(device)
    of_tokens, of_states = _uniforms(world, len(which) * group, noise)
    prompt = which.repeat_interleave(group)
    environment = speaker(world, prompt, None if of_states is None else of_states.to(device))
    sample = sample_tokens(policy, world.prompts[which], world.horizon, of_tokens, group, environment)
    span, ended = completed(world, sample.tokens)
    contexts = torch.cat([world.prompts[prompt], sample.tokens], 1)
    rewards = step_rewards(world, prompt, sample.tokens, of_states)
    extras = {name: drawn_signal(world, name, prompt, sample.tokens, of_states) for name in world.signals}
    mask, group_of = span & sample.own, sample.prompt
    return SampledCompletions(prompt, contexts, rewards, mask, span, sample.log_probs, group_of, ended, extras)


def _uniforms(
    world: TokenMDP, rows: int, noise: torch.Generator | Float[Tensor, "rows numbers"]
) -> tuple[Float[Tensor, "rows H"], Float[Tensor, "rows H"] | None]:
    """Uniforms of the tokens, and of the states where these are drawn; a generator draws them in this order."""
    if not isinstance(noise, torch.Generator):
        return _split(world, noise)
    of_tokens = torch.rand(rows, world.horizon, generator=noise, dtype=torch.float64, device=noise.device)
    return of_tokens, state_uniforms(world, rows, noise)


def _split(world: TokenMDP, uniforms: Tensor) -> tuple[Tensor, Tensor | None]:
    """Uniforms of the tokens and of the states."""
    if world.deterministic or uniforms.ndim != 2 or uniforms.shape[1] != 2 * world.horizon:
        return uniforms, None
    return uniforms[:, : world.horizon], uniforms[:, world.horizon :]


def state_uniforms(world: TokenMDP, rows: int, rng: torch.Generator) -> Float[Tensor, "rows H"] | None:
    """Numbers on [0, 1) that draw the abstract states; None, and none drawn, where every token leads to one state for sure.

    Args:
        world: the token world.
        rows: number of completions.
        rng: of the draws, made on its own device.

    Returns:
        One number for each row and step, or None.
    """
    if world.deterministic:
        return None
    return torch.rand(rows, world.horizon, generator=rng, dtype=torch.float64, device=rng.device)


def step_rewards(
    world: TokenMDP,
    prompt: Int[Tensor, "rows"],
    tokens: Int[Tensor, "rows H"],
    uniforms: Float[Tensor, "rows H"] | None = None,
) -> Float[Tensor, "rows H"]:
    """`gamma^k r_k` of every step as it is drawn, 0 after an end token.

    Args:
        world: the token world.
        prompt: each row's index among the world's prompts.
        tokens: the completions, of the world's horizon.
        uniforms: numbers on [0, 1) that draw the abstract states; None where every token leads to one state for sure.

    Returns:
        The rewards.

    Raises:
        InputError: as in `agents.sampling.token_rewards.drawn_rewards`.
    """
    rewards = drawn_rewards(world, prompt, tokens, None if uniforms is None else uniforms.to(tokens.device))
    discount = world.gamma ** torch.arange(world.horizon, device=rewards.device, dtype=rewards.dtype)
    return rewards * discount * world.mask(tokens)


def drawn_signal(
    world: TokenMDP,
    name: str,
    prompt: Int[Tensor, "rows"],
    tokens: Int[Tensor, "rows H"],
    uniforms: Float[Tensor, "rows H"] | None = None,
) -> Float[Tensor, "rows"]:
    """A signal of the world, by name, along the states that the same uniforms draw for `step_rewards`.

    Args:
        world: the token world.
        name: of the signal.
        prompt: each row's index among the world's prompts.
        tokens: the completions, of the world's horizon.
        uniforms: as in `step_rewards`.

    Returns:
        The sum of the signal along each row.

    Raises:
        InputError: the world has no such signal, or as in `step_rewards`.
    """
    return step_rewards(world.paying(name), prompt, tokens, uniforms).sum(1)


def completed(
    world: TokenMDP, tokens: Int[Tensor, "*batch H"]
) -> tuple[Bool[Tensor, "*batch H"], Bool[Tensor, "*batch"]]:
    """Which tokens belong to the completion, whoever says them, and whether it ended before the horizon cut it.

    Without an end token no completion is cut.

    Args:
        world: the token world.
        tokens: said after the prompt.

    Returns:
        True for the tokens of the completion; and False for completions that were cut.
    """
    mask = world.mask(tokens)
    if world.end is None:
        return mask, mask[..., -1]
    return mask, mask[..., -1].logical_not() | (tokens[..., -1] == world.end)


def context_log_probs(
    policy: ContextPolicy,
    contexts: Int[Tensor, "rows places"],
    steps: int,
    probes: Mapping[str, Tensor] | None = None,
) -> tuple[Float[Tensor, "rows steps"], Float[Tensor, "rows steps"]]:
    """`log pi` of the last `steps` tokens of every context, and the entropies of pi there; both carry the gradient.

    One pass over whole contexts.

    Args:
        policy: a policy that reads whole contexts.
        contexts: tokens of prompts and completions.
        steps: length of the completions.
        probes: by site a tensor (rows, places - 1, width) that is added there.

    Returns:
        Log-probabilities and entropies, in nats.
    """
    return token_log_probs(policy(policy.embed(contexts[:, :-1]), probes or {})[:, -steps:], contexts)


def token_log_probs(
    logits: Float[Tensor, "*rows steps V"], contexts: Int[Tensor, "*rows places"]
) -> tuple[Float[Tensor, "*rows steps"], Float[Tensor, "*rows steps"]]:
    """`log pi` of the last tokens of every context, and the entropies of pi there, from the logits before these tokens.

    Args:
        logits: before each of the last `steps` tokens.
        contexts: tokens of prompts and completions.

    Returns:
        Log-probabilities and entropies, in nats.
    """
    log_pi = torch.log_softmax(logits, -1)
    chosen = log_pi.gather(-1, contexts[..., -logits.shape[-2] :, None])[..., 0]
    possible = log_pi.masked_fill(log_pi == -torch.inf, 0.0)  # 0 log 0 = 0, for tokens that are forbidden
    return chosen, -(log_pi.exp() * possible).sum(-1)
