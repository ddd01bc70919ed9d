"""Batched sampling of token sequences.

The policy reads tokens only, never the world's state, so sampling needs no world; rewards are computed from the tokens later
(`agents.sampling.completions`). Where the environment speaks too, it comes in as a plain function of what is said. Noise is an
argument: two policies can be compared on the same uniforms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agents.sampling.fast_transformer import InPlace, is_plain
from envs.policy import TokenPolicy
from envs.record import short_repr
from envs.world import InputError

# (step k, the policy's tokens (rows, 1), uniforms (rows, 1)) -> what is said, and whether it is the policy's, (rows, 1) each
Environment = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]


@short_repr
@dataclass(frozen=True)
class TokenSample:
    """Sampled tokens, constants.

    Attributes:
        tokens: what was said.
        log_probs: `log pi` of each token, the environment's among them.
        prompt: index of the prompt that each row continues.
        own: True for the policy's tokens.
    """

    tokens: Int[Tensor, "rows steps"]
    log_probs: Float[Tensor, "rows steps"]
    prompt: Int[Tensor, "rows"]
    own: Bool[Tensor, "rows steps"]


def sample_tokens(
    policy: TokenPolicy,
    prompts: Any,
    steps: int,
    noise: torch.Generator | Float[Tensor, "rows steps"],
    copies: int = 1,
    environment: Environment | None = None,
) -> TokenSample:
    """Draw `c_k ~ pi_k` by the inverse transform: the first token whose cumulative probability exceeds `u_k`.

    A `Transformer` without exchanged parts or hooks is run by a faster forward pass to the same logits.

    Args:
        policy: pi; its cache of P rows must serve P * copies rows, `copies` consecutive rows for each prompt.
        prompts: P token sequences of one length T.
        steps: tokens drawn for each row.
        noise: uniforms u on [0, 1), or the generator that draws them in float64 on its own device, so that one seed gives the
            same noise to every policy, device and dtype.
        copies: rows drawn for each prompt; they follow each other.
        environment: what it says on its turns, if it speaks (`agents.sampling.environment`); called step by step.

    Returns:
        The tokens and their log-probabilities.

    Raises:
        InputError: steps or copies < 1, prompts that are no table of tokens of the vocabulary, a context longer than the
            policy's length, uniforms of the wrong shape or outside [0, 1), logits of the wrong shape, NaN or infinite.
    """
    device, plain = next(policy.parameters()).device, is_plain(policy)
    prompts = prompt_table(prompts).to(device)
    check_request(policy, prompts, steps, copies)
    uniforms = checked_uniforms(noise, (len(prompts) * copies, steps)).to(device)
    # Inference mode for plain transformers only: another network may keep tensors of this run for its training.
    with torch.inference_mode(plain), torch.no_grad():
        V = vocabulary_size(policy, prompts)
        extend = InPlace(policy, len(prompts), prompts.shape[1] + steps - 1).extend if plain else policy.extend
        tokens, log_probs, own = draw_tokens(policy.embed, extend, prompts, uniforms, copies, V, environment)
    if not bool((log_probs.isfinite() | ~own & ~log_probs.isnan()).all()):
        raise InputError("policy gives logits that are NaN or infinite: no token can be drawn from them")
    row_prompts = torch.arange(len(prompts), device=device).repeat_interleave(copies)
    return TokenSample(tokens.clone(), log_probs.clone(), row_prompts, own.clone())


def draw_tokens(
    embed: Callable[[Tensor], Tensor],
    extend: Callable[[Tensor, Any, Any], tuple[Tensor, Any]],
    prompts: Int[Tensor, "P T"],
    uniforms: Float[Tensor, "rows steps"],
    copies: int,
    V: int | None = None,
    environment: Environment | None = None,
) -> tuple[Int[Tensor, "rows steps"], Float[Tensor, "rows steps"], Bool[Tensor, "rows steps"]]:
    """Tokens by the inverse transform, their log-probabilities, whether they are the policy's; `torch.func.vmap` can batch it.

    Args:
        embed: the policy's method.
        extend: the policy's method.
        prompts: P token sequences of one length T.
        uniforms: u on [0, 1), one for each row and step.
        copies: rows drawn for each prompt; they follow each other.
        V: size of the vocabulary, with which logits are compared; None to compare nothing.
        environment: as in `sample_tokens`.

    Returns:
        The tokens, their log-probabilities, and True where they are the policy's.

    Raises:
        InputError: the logits do not have V columns.
    """
    x, cache, steps = embed(prompts), None, []
    for k in range(uniforms.shape[1]):
        logits, cache = extend(x, cache, {})
        if V is not None and tuple(logits.shape) != (len(x), V):
            raise InputError(
                f"policy must give logits of shape {(len(x), V)}, one for each of the world's {V} tokens; got "
                f"{tuple(logits.shape)}: build it for this vocabulary"
            )
        log_pi = torch.log_softmax(logits if k else logits.repeat_interleave(copies, 0), -1)
        chosen = first_beyond(log_pi.double().exp(), uniforms[:, k : k + 1])
        own = torch.ones_like(chosen, dtype=torch.bool)
        if environment is not None:
            chosen, own = environment(k, chosen, uniforms[:, k : k + 1])
        steps.append((chosen, log_pi.gather(1, chosen), own))
        x = embed(chosen)
    tokens, log_probs, owners = (torch.cat(column, 1) for column in zip(*steps, strict=True))
    return tokens, log_probs, owners


def first_beyond(p: Float[Tensor, "rows V"], u: Float[Tensor, "rows 1"]) -> Int[Tensor, "rows 1"]:
    """The first outcome whose cumulative probability exceeds u: the inverse transform of the rows of p.

    p should be in float64; u is scaled by the last sum, so that rounding never leads to an outcome of probability 0.
    The result is clamped for probabilities that are NaN.

    Args:
        p: probabilities, in float64.
        u: numbers on [0, 1).

    Returns:
        The index of the outcome in each row.
    """
    total = p.cumsum(-1)
    return (total <= u * total[:, -1:]).sum(-1, keepdim=True).clamp(max=p.shape[-1] - 1)


def checked_uniforms(noise: torch.Generator | Tensor, shape: tuple[int, int]) -> Tensor:
    """Numbers on [0, 1) in float64, of a shape: drawn, or those that were given.

    Args:
        noise: a generator, or the numbers.
        shape: rows, and numbers of each.

    Returns:
        The numbers.

    Raises:
        InputError: given ones have another shape, or lie outside [0, 1).
    """
    if isinstance(noise, torch.Generator):
        return torch.rand(shape, generator=noise, dtype=torch.float64, device=noise.device)
    if tuple(noise.shape) != shape:
        raise InputError(f"noise must be uniforms of shape {shape}, one per row and step; got {tuple(noise.shape)}")
    if not bool(((noise >= 0) & (noise < 1)).all()):
        raise InputError("noise must lie in [0, 1), every entry: draw it with torch.rand")
    return noise.double()


def prompt_table(prompts: Any) -> Int[Tensor, "P T"]:
    """Prompts as a table of tokens.

    Args:
        prompts: token sequences of one length.

    Returns:
        The table.

    Raises:
        InputError: they are no table of whole numbers.
    """
    try:
        table = torch.as_tensor(prompts)
    except (TypeError, ValueError, RuntimeError):
        raise InputError("prompts must be token sequences of one length") from None
    if table.ndim != 2 or not table.numel() or table.is_floating_point():
        raise InputError(f"prompts must be a table (P, T) of whole numbers; got {table.dtype} {tuple(table.shape)}")
    return table.long()


def check_request(policy: TokenPolicy, prompts: Tensor, steps: int, copies: int, name: str = "steps") -> None:
    """Refuse what no tokens can be drawn for.

    Args:
        policy: whose longest context is compared, where it has one.
        prompts: a table of tokens.
        steps: tokens after each prompt.
        copies: rows of each prompt.
        name: what the caller calls `steps`.

    Raises:
        InputError: steps or copies < 1, or a context longer than the policy's length.
    """
    for what, count in {name: steps, "copies": copies}.items():
        if count < 1:
            raise InputError(f"{what} must be a whole number >= 1; got {count!r}")
    known, needed, length = prompts.shape[1], prompts.shape[1] + steps - 1, getattr(policy, "length", None)
    if length is not None and needed > length:
        raise InputError(
            f"{name}={steps} after {known} tokens needs a context of {needed}; the policy's length is {length}"
        )


def vocabulary_size(policy: TokenPolicy, prompts: Tensor) -> int:
    """Size of the policy's vocabulary, from its logits on one token.

    Args:
        policy: any policy over tokens.
        prompts: a table of tokens.

    Returns:
        V.

    Raises:
        InputError: the prompts hold tokens outside the vocabulary.
    """
    one = torch.zeros_like(prompts[:1, :1])
    if is_plain(policy):
        V = policy.head.out_features
    else:
        V = getattr(policy, "V", None) or policy.extend(policy.embed(one), None, {})[0].shape[-1]
    bad = prompts[(prompts < 0) | (prompts >= V)]
    if bad.numel():
        raise InputError(f"prompts hold token {int(bad[0])}, outside the vocabulary: tokens are 0 ... {V - 1}")
    return int(V)
