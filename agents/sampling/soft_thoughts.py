"""Completions with soft thoughts: relaxed tokens with Gumbel noise are fed on, then the answer is sampled token by token.

The world hears the answer alone. A row has the thoughts as its first columns, paid nothing, and the answer's tokens after them;
the log-probability of a thought is the log density of its noise. Any policy with `embed` of relaxed tokens can think.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agents.recipes.soft_thoughts import ADDED, CLAMP, FLOOR, TOP_K, TOP_P, SoftThoughts
from agents.sampling.completions import (
    SampledCompletions,
    completed,
    drawn_signal,
    state_uniforms,
    step_rewards,
    token_log_probs,
)
from agents.sampling.environment import speaker
from agents.sampling.tokens import Environment, draw_tokens
from envs.policy import ContextPolicy, TokenPolicy
from envs.record import short_repr
from envs.token_mdp import TokenMDP
from envs.world import InputError

_EDGE = 1e-6  # noise that was clamped lies on the edge up to rounding, and keeps its slope there


@short_repr
@dataclass(frozen=True)
class SoftCompletions(SampledCompletions):
    """Completions with thoughts: N thoughts come before H tokens, as the first N of N + H steps.

    `contexts` holds prompt and answer alone; `log_probs` are log densities of the thoughts and `log pi` of the tokens. A
    thought is paid nothing.

    Attributes:
        u: `log p + g` of every thought; -infinity for tokens that it is not made of.
    """

    u: Float[Tensor, "rows N V"] = field(kw_only=True)


def soft_completions(
    world: TokenMDP,
    policy: ContextPolicy,
    which: Int[Tensor, "groups"],
    group: int,
    soft: SoftThoughts,
    noise: torch.Generator | Float[Tensor, "rows numbers"],
) -> SoftCompletions:
    """Draw `group` rows with soft thoughts for each prompt whose index is in `which`.

    Args:
        world: the token world, of any vocabulary.
        policy: thinks, and draws the tokens.
        which: indices of prompts.
        group: rows of each.
        soft: how many thoughts, and how they are drawn.
        noise: a generator, or uniforms on [0, 1), `N V + H` for each row: of the thoughts, then of the tokens; where tokens
            lead by chance H more, of the states.

    Returns:
        The completions, and what they were paid.

    Raises:
        InputError: the noise has another shape, or the policy's context is too short.
    """
    device = next(policy.parameters()).device
    world, which = world.to(str(device), world.P.dtype), which.to(device)
    prompt = which.repeat_interleave(group)
    gumbels, uniforms, drawn = soft_noise(world, len(prompt), soft, noise)
    gumbels, uniforms, of_states = gumbels.to(device), uniforms.to(device), None if drawn is None else drawn.to(device)
    environment = speaker(world, prompt, of_states)
    with torch.no_grad():
        u, tokens, own = draw_soft(policy, world.prompts[which], gumbels, uniforms, soft, group, environment)
        contexts = torch.cat([world.prompts[prompt], tokens], 1)
        log_probs = soft_log_probs(policy, contexts, u, world.horizon, soft)[0]
    span, ended = completed(world, tokens)
    rewards = step_rewards(world, prompt, tokens, of_states)
    extras = {name: drawn_signal(world, name, prompt, tokens, of_states) for name in world.signals}
    group_of = torch.arange(len(which), device=device).repeat_interleave(group)
    N = soft.thoughts
    rows = (after_thoughts(rewards, N, 0.0), after_thoughts(span & own, N, True), after_thoughts(span, N, True))
    return SoftCompletions(prompt, contexts, *rows, log_probs, group_of, ended, extras, u=u)


def soft_noise(
    world: TokenMDP, rows: int, soft: SoftThoughts, noise: torch.Generator | Tensor
) -> tuple[Float[Tensor, "rows N V"], Float[Tensor, "rows H"], Float[Tensor, "rows H"] | None]:
    """Gumbel noise of the thoughts, uniforms of the tokens, and of the states where these are drawn.

    Args:
        world: the token world.
        rows: how many.
        soft: how many thoughts, and whether their noise is clamped.
        noise: a generator, which draws in this order on its own device, or the uniforms.

    Returns:
        The noise.

    Raises:
        InputError: uniforms of another shape, or outside [0, 1).
    """
    N, V, H = soft.thoughts, world.V, world.horizon
    if isinstance(noise, torch.Generator):
        given = torch.rand(rows, N * V + H, generator=noise, dtype=torch.float64, device=noise.device)
        of_states = state_uniforms(world, rows, noise)
    else:
        wanted = (rows, N * V + H * (1 if world.deterministic else 2))
        if tuple(noise.shape) != wanted:
            raise InputError(f"noise must be uniforms of shape {wanted}; got {tuple(noise.shape)}")
        if not bool(((noise >= 0) & (noise < 1)).all()):
            raise InputError("noise must lie in [0, 1), every entry: draw it with torch.rand")
        given, of_states = noise.double(), None if world.deterministic else noise[:, N * V + H :].double()
    gumbels = -(-given[:, : N * V].clamp(min=2.0**-54).log()).log().unflatten(1, (N, V))
    return gumbels.clamp(*CLAMP) if soft.official else gumbels, given[:, N * V : N * V + H], of_states


def draw_soft(
    policy: TokenPolicy,
    prompts: Int[Tensor, "P T"],
    gumbels: Float[Tensor, "rows N V"],
    uniforms: Float[Tensor, "rows H"],
    soft: SoftThoughts,
    copies: int,
    environment: Environment | None = None,
) -> tuple[Float[Tensor, "rows N V"], Int[Tensor, "rows H"], Bool[Tensor, "rows H"]]:
    """Thoughts, and the tokens of the answer after them; `torch.func.vmap` can batch it.

    Args:
        policy: thinks, and draws the tokens.
        prompts: P token sequences of one length.
        gumbels: noise of the thoughts.
        uniforms: of the tokens.
        soft: how thoughts are drawn.
        copies: rows drawn for each prompt; they follow each other.
        environment: as in `agents.sampling.tokens.sample_tokens`.

    Returns:
        u of the thoughts, the tokens, and whether they are the policy's.
    """
    logits, cache = policy.extend(policy.embed(prompts), None, {})
    logits, thoughts = logits.repeat_interleave(copies, 0), []
    for g in gumbels.unbind(1):
        u = thought_law(logits, soft) + g
        thoughts.append(u)
        logits, cache = policy.extend(policy.embed(torch.softmax(u / soft.tau, -1).to(logits))[:, None], cache, {})

    def extend(x: Tensor, past: Any, probes: Any) -> tuple[Tensor, Any]:
        return (logits, cache) if past is None else policy.extend(x, past, probes)

    first = prompts[:, -1:].repeat_interleave(copies, 0)  # in the place of a prompt: its logits are known
    tokens, _, own = draw_tokens(policy.embed, extend, first, uniforms, 1, environment=environment)
    return torch.stack(thoughts, 1), tokens, own


def thought_law(logits: Float[Tensor, "*rows V"], soft: SoftThoughts) -> Float[Tensor, "*rows V"]:
    """Log-probabilities that the noise of a thought is added to.

    Args:
        logits: of the policy.
        soft: whether the law is cut as in the paper's code.

    Returns:
        Log-probabilities in float64; where it is cut, -infinity for tokens that are not among the 5 likeliest.
    """
    p = torch.softmax(logits.double(), -1)
    if not soft.official:
        return p.log()
    best, index = p.topk(min(TOP_K, p.shape[-1]), -1)
    best = best / best.sum(-1, keepdim=True)
    best = torch.where(best.cumsum(-1) - best < TOP_P, best, 0.0)  # the likeliest that reach the mass together
    kept = (best / best.sum(-1, keepdim=True) + ADDED).log()
    return torch.full_like(p, -torch.inf).scatter(-1, index, kept)


def thought_log_density(
    logits: Float[Tensor, "*rows V"], u: Float[Tensor, "*rows V"], soft: SoftThoughts
) -> Float[Tensor, "*rows"]:
    """`sum_a (-x_a - e^-x_a)` with `x = u - log p`, or the mean that the paper's code takes in its place.

    Args:
        logits: of the policy, which carry the gradient.
        u: of the thoughts.
        soft: which form is meant.

    Returns:
        One number for each thought, in float64.
    """
    if not soft.official:
        x = u - torch.log_softmax(logits.double(), -1)
        return (-x - (-x).exp()).sum(-1)
    made_of = u > -torch.inf
    p = torch.where(made_of, torch.softmax(logits.double(), -1), 0.0)
    log_p = (p / p.sum(-1, keepdim=True) + ADDED).log()
    x = _clamped(torch.where(made_of, u - log_p, 0.0), *CLAMP)
    counted = (log_p > FLOOR) & made_of
    return torch.where(counted, -x - (-x).exp(), 0.0).sum(-1) / counted.sum(-1)


def soft_log_probs(
    policy: ContextPolicy,
    contexts: Int[Tensor, "rows places"],
    u: Float[Tensor, "rows N V"],
    steps: int,
    soft: SoftThoughts,
    probes: Mapping[str, Tensor] | None = None,
) -> tuple[Float[Tensor, "rows T"], Float[Tensor, "rows T"]]:
    """Log densities of the thoughts and `log pi` of the answer's tokens, in one pass, and entropies; they carry the gradient.

    Thoughts are constants here. The entropy of their noise does not depend on the policy: 0 stands for it.

    Args:
        policy: reads whole contexts.
        contexts: tokens of prompts and answers.
        u: of the thoughts between them.
        steps: length H of the answers.
        soft: how thoughts are drawn.
        probes: by site a tensor (rows, places + N - 1, width) that is added there.

    Returns:
        N + H numbers for each row.
    """
    N, start = u.shape[-2], contexts.shape[-1] - steps
    tokens = policy.embed(contexts[:, :-1])
    y = torch.softmax(u / soft.tau, -1).to(tokens)
    x = torch.cat([tokens[:, :start], policy.embed(y), tokens[:, start:]], 1)
    logits = policy(x.detach() if soft.official else x, probes or {})[:, -(N + steps) :]
    density = thought_log_density(logits[:, :N], u, soft)
    log_probs, entropy = token_log_probs(logits[:, N:], contexts)
    return torch.cat([density, log_probs.double()], 1), after_thoughts(entropy.double(), N, 0.0)


def _clamped(x: Tensor, low: float, high: float) -> Tensor:
    """x within the edges; its slope is 1 there and on the edges, 0 beyond them."""
    within = (x.detach() >= low - _EDGE) & (x.detach() <= high + _EDGE)
    moved = x + (x.detach().clamp(low, high) - x.detach())
    return torch.where(within, moved, moved.detach())


def after_thoughts(table: Tensor, thoughts: int, value: Any) -> Tensor:
    """A table of the answer's tokens, (..., H), with columns of a constant for the thoughts before them.

    Args:
        table: of the answer.
        thoughts: how many columns are put before it.
        value: what they hold.

    Returns:
        The longer table, (..., N + H).
    """
    before = torch.full((*table.shape[:-1], thoughts), value, dtype=table.dtype, device=table.device)
    return torch.cat([before, table], -1)
