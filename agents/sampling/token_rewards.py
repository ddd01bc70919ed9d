"""Rewards of a token world for sampled tokens: as they are drawn, and in expectation over the abstract states."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agents.sampling.environment import next_states
from envs.token_mdp import TokenMDP, check_tokens
from envs.world import InputError


def token_rewards(
    world: TokenMDP, prompt: Int[Tensor, "rows"], tokens: Int[Tensor, "rows H"]
) -> Float[Tensor, "rows H"]:
    """Expected reward of every step given the tokens: `b_k r_k[:, c_k]`, `b_{k+1} = b_k P[:, c_k]`, b_0 the start state.

    Args:
        world: the world.
        prompt: each row's index among the world's prompts.
        tokens: the completions, of the world's horizon (`world.first(steps)` is a shorter world).

    Returns:
        Rewards without discount, in the world's dtype, on the tokens' device.

    Raises:
        InputError: a token outside the vocabulary, a prompt that does not exist, another number of steps than the horizon, or
            a world that pays a hidden readout, which tokens alone do not determine.
    """
    _check_rewarded(world, prompt, tokens)
    world = world.to(str(tokens.device), world.P.dtype)
    belief, rewards = world.start_belief(prompt), []
    for k, c in enumerate(tokens.unbind(1)):
        belief = _heard(world, belief, c)
        rewards.append((belief * world.r[k].mT[c]).sum(-1))
        belief = _after(world, belief, c)
    return torch.stack(rewards, 1)


def drawn_rewards(
    world: TokenMDP,
    prompt: Int[Tensor, "rows"],
    tokens: Int[Tensor, "rows H"],
    uniforms: Float[Tensor, "rows H"] | None = None,
) -> Float[Tensor, "rows H"]:
    """Rewards `r_k(z_k, c_k)` along abstract states that are drawn: z_0 the start state, `z_{k+1} ~ P[z_k, c_k]`.

    These are what an environment pays; `token_rewards` is their mean given the tokens.

    Args:
        world: the world.
        prompt: each row's index among the world's prompts.
        tokens: the completions, of the world's horizon.
        uniforms: numbers on [0, 1), one a step: the next state is the first whose cumulative probability exceeds it. Not needed
            where every token leads to one state for sure. Where the environment speaks, they must be those that its tokens were
            drawn with.

    Returns:
        Rewards without discount, in the world's dtype, on the tokens' device.

    Raises:
        InputError: uniforms are needed and missing, or of another shape; a row holds a token that the environment
            cannot say; or as in `token_rewards`.
    """
    _check_rewarded(world, prompt, tokens)
    if not world.deterministic and (uniforms is None or uniforms.shape != tokens.shape):
        got = "none" if uniforms is None else str(tuple(uniforms.shape))
        raise InputError(f"uniforms must have shape {tuple(tokens.shape)}, as tokens lead by chance here; got {got}")
    world = world.to(str(tokens.device), world.P.dtype)
    state, rewards = world.starts[prompt], []
    for k, c in enumerate(tokens.unbind(1)):
        if world.speech is not None:
            _check_said(world.speaking[state] & (world.speech[state, c] == 0), c)
        rewards.append(world.r[k][state, c])
        state = next_states(world, state, c, None if uniforms is None else uniforms[:, k])
    return torch.stack(rewards, 1)


def token_returns(world: TokenMDP, prompt: Int[Tensor, "rows"], tokens: Int[Tensor, "rows H"]) -> Float[Tensor, "rows"]:
    """`R = sum_k gamma^k rbar_k`.

    Args:
        world: the token world.
        prompt: each row's index among the world's prompts.
        tokens: the completions, of the world's horizon.

    Returns:
        The expected return of each row given its tokens.

    Raises:
        InputError: as in `token_rewards`.
    """
    rewards = token_rewards(world, prompt, tokens)
    return rewards @ world.gamma ** torch.arange(world.horizon, dtype=rewards.dtype, device=rewards.device)


def _heard(world: TokenMDP, belief: Float[Tensor, "rows S"], c: Int[Tensor, "rows"]) -> Float[Tensor, "rows S"]:
    """The belief once the environment's token c is heard; as it is where the policy speaks."""
    if world.speech is None:
        return belief
    chance, heard = world.heard(belief, c[:, None])
    _check_said(world.environments_turn(belief) & (chance[:, 0] == 0), c)
    return heard[:, 0]


def _check_said(impossible: Bool[Tensor, "rows"], c: Int[Tensor, "rows"]) -> None:
    if bool(impossible.any()):
        row = int(impossible.long().argmax())
        raise InputError(
            f"tokens of row {row} hold {int(c[row])} where the environment speaks, which it cannot say there"
        )


def _after(world: TokenMDP, belief: Float[Tensor, "rows S"], c: Int[Tensor, "rows"]) -> Float[Tensor, "rows S"]:
    """`b P[:, c]`, in one product for all rows with the same token: a transition table for each row could be too large."""
    order = c.argsort()
    tokens, counts = torch.unique_consecutive(c[order], return_counts=True)
    beliefs = torch.split(belief[order], counts.tolist())
    parts = [b @ world.P[:, a] for a, b in zip(tokens.tolist(), beliefs, strict=True)]
    return torch.cat(parts)[order.argsort()]


def _check_rewarded(world: TokenMDP, prompt: Tensor, tokens: Tensor) -> None:
    check_tokens(world, tokens)
    if len(prompt) != len(tokens):
        raise InputError(f"prompt must have one entry per row of tokens, {len(tokens)}; got {len(prompt)}")
    if tokens.shape[1] != world.horizon:
        raise InputError(f"tokens must have {world.horizon} steps, the world's horizon; got {tokens.shape[1]}")
    bad = prompt[(prompt < 0) | (prompt >= len(world.prompts))]
    if bad.numel():
        raise InputError(f"prompt {int(bad[0])} does not exist: the world has {len(world.prompts)}")
    if world.readout is not None:
        raise InputError("world pays a hidden readout, which tokens alone do not determine: use a world without it")
