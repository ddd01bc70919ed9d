"""Relaxed tokens: Gumbel noise on logits and a softmax at a temperature, one step at a time or a whole rollout.

`y = softmax((log pi + g) / tau)` with Gumbel noise g. The largest entry of y is a token drawn from pi; as tau falls y becomes
that token. Noise is an argument, as everywhere.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP


class RelaxedEstimates(NamedTuple):
    """Per-sample estimates of a gradient in logits, from the same noise.

    Attributes:
        pathwise: derivative of the relaxed reward along the noise.
        score: relaxed reward less its baseline, times the score of the noise.
        token: reward of the sampled token less its baseline, times the score of the token (REINFORCE).
    """

    pathwise: Float[Tensor, "samples V"]
    score: Float[Tensor, "samples V"]
    token: Float[Tensor, "samples V"]


def gumbel_noise(shape: tuple[int, ...], rng: torch.Generator) -> Float[Tensor, "*shape"]:
    """Independent Gumbel numbers of location 0 and scale 1.

    Args:
        shape: of the result.
        rng: of the draws, made in float64 on its own device.

    Returns:
        The noise.
    """
    uniform = torch.rand(shape, generator=rng, dtype=torch.float64, device=rng.device)
    return -(-uniform.clamp(min=2.0**-54).log()).log()


def relaxed_tokens(
    logits: Float[Tensor, "*#batch V"], noise: Float[Tensor, "*batch V"], tau: float
) -> Float[Tensor, "*batch V"]:
    """`y = softmax((log pi + g) / tau)`.

    Args:
        logits: of the next token.
        noise: g, Gumbel numbers.
        tau: temperature, > 0.

    Returns:
        One law over tokens for each row, attached to autograd's graph.
    """
    u = logits + noise
    return torch.softmax((u - u.detach().amax(-1, keepdim=True)) / tau, -1)


def relaxed_estimates(
    logits: Float[Tensor, "V"],
    reward: Callable[[Tensor], Tensor],
    noise: Float[Tensor, "samples V"],
    tau: float,
    baselines: tuple[float, float],
) -> RelaxedEstimates:
    """Three estimators of one step's gradient in the logits, sample by sample.

    The first two have mean `grad J_tau`, `J_tau = E reward(y)`; the third has mean `grad J`, J the expected reward of the
    sampled token.

    Args:
        logits: of the token.
        reward: of relaxed tokens, (samples, V) -> (samples,), differentiable.
        noise: Gumbel numbers.
        tau: temperature, > 0.
        baselines: subtracted from relaxed rewards, and from those of sampled tokens.

    Returns:
        The estimates.
    """
    at = logits.detach().expand_as(noise).clone().requires_grad_()
    value = reward(relaxed_tokens(at, noise, tau))
    (pathwise,) = torch.autograd.grad(value.sum(), at)
    score = (value.detach() - baselines[0])[:, None] * (1 - (-noise).exp())
    hard = one_hot((at.detach() + noise).argmax(-1), noise.shape[-1]).to(noise)
    paid = reward(hard).detach() - baselines[1]
    return RelaxedEstimates(pathwise, score, paid[:, None] * (hard - torch.softmax(logits.detach(), -1)))


def relaxed_returns(
    world: TokenMDP,
    policy: TokenPolicy,
    which: Int[Tensor, "prompts"],
    noise: Float[Tensor, "rows T V"],
    tau: float,
) -> Float[Tensor, "rows"]:
    """Returns of rollouts in which every token is relaxed: read by the policy, paid and moved on by the world as a mixture.

    `sum_k gamma^k rbar_k(b_k, y_k)`, `b_{k+1} = sum_a y_k(a) b_k P_a`. Where tokens lead by chance the belief takes the mean
    over states. As tau falls the mean tends to the expected return of sampled tokens.

    Args:
        world: a token world in which the environment is silent, of the policy's device and type.
        policy: reads the relaxed tokens through `embed`.
        which: indices of prompts, each with equally many rows, which follow each other.
        noise: Gumbel numbers.
        tau: temperature, > 0.

    Returns:
        One return for each row, attached to autograd's graph.
    """
    group = noise.shape[0] // which.shape[0]
    belief = world.start_belief(which).repeat_interleave(group, 0)
    x, cache, total = policy.embed(world.prompts[which]), None, torch.zeros_like(noise[:, 0, 0])
    for k in range(noise.shape[1]):
        logits, cache = policy.extend(x, cache, {})
        y = relaxed_tokens(logits if k else logits.repeat_interleave(group, 0), noise[:, k], tau)
        total = total + world.gamma**k * world.reward(k, belief, y)
        belief, x = world.step(belief, y), policy.embed(y)[:, None]
    return total
