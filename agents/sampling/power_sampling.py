"""Power sampling: texts drawn from `p^alpha / Z` by Metropolis-Hastings, block by block, for any policy over tokens.

Algorithm 1 of arXiv:2510.14901. Each block extends the texts at temperature `1 / alpha`. Then steps follow: a step redraws a
text from a random position on, also at temperature `1 / alpha`, and keeps the new text with a chance that needs the sums
`Z_a = sum pi^alpha` alone (`theory.tokens.power_sampling` has the same chain as a matrix, and its exact law).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agents.sampling.fast_transformer import InPlace, is_plain
from agents.sampling.tokens import check_request, checked_uniforms, draw_tokens, prompt_table, vocabulary_size
from envs.arguments import whole
from envs.policy import TokenPolicy
from envs.record import short_repr
from envs.world import InputError

END_RULES = ("hastings", "no factor", "cut")
# (texts, first position that is redrawn (rows,), most tokens (rows,), uniforms (rows, end of the block)) -> texts
Redraw = Callable[["_Texts", Tensor, Tensor, Tensor], "_Texts"]


@short_repr
@dataclass(frozen=True)
class PowerSample:
    """Texts drawn by power sampling, constants.

    Attributes:
        tokens: what was said; after the text the end token, or what was drawn where there is none.
        log_probs: `log pi` of each token, at temperature 1; 0 after the text.
        prompt: index of the prompt that each row continues.
        mask: True for the tokens of the text.
        ended: True where the text says the end token.
        accepted: share of each row's steps whose new text was accepted; 0 where it took no step.
    """

    tokens: Int[Tensor, "rows H"]
    log_probs: Float[Tensor, "rows H"]
    prompt: Int[Tensor, "rows"]
    mask: Bool[Tensor, "rows H"]
    ended: Bool[Tensor, "rows"]
    accepted: Float[Tensor, "rows"]


@dataclass(frozen=True)
class _Texts:
    """Texts of the rows; their tokens, `log pi` and `log Z_a` before each, up to the end of the block."""

    tokens: Int[Tensor, "rows T"]
    log_pi: Float[Tensor, "rows T"]
    log_Z: Float[Tensor, "rows T"]
    length: Int[Tensor, "rows"]
    ended: Bool[Tensor, "rows"]

    def or_else(self, taken: Bool[Tensor, "rows"], other: "_Texts") -> "_Texts":
        """These texts where `taken`, the others elsewhere."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Texts(*(torch.where(taken if x.ndim == 1 else taken[:, None], x, y) for x, y in pairs))


def power_sample(
    policy: TokenPolicy,
    prompts: Any,
    alpha: float,
    block: int,
    steps: int,
    noise: torch.Generator | Float[Tensor, "rows numbers"],
    horizon: int | None = None,
    copies: int = 1,
    end: int | None = None,
    end_rule: str = "hastings",
) -> PowerSample:
    """Draw texts that approach the law `p^alpha / Z` of whole texts as `steps` grows.

    A step takes a position m of the text x, each with chance `1 / |x|`, redraws the tokens from m on, and accepts the new text
    y with chance `min(1, prod_{m < t < |y|} Z_a(y_<t) / prod_{m < t < |x|} Z_a(x_<t) * |x| / |y|)`. End rules:

    - "hastings": as above, whose stationary law is `p^alpha / Z` over the texts within the block;
    - "no factor": without `|x| / |y|`: right where all texts have one length, wrong where an end token exists;
    - "cut": the rule of the published code (aakaran/reasoning-with-sampling, read at 720a8e9). A new text has at most `|x|`
      tokens and may stop there without an end token; x counts up to the length of y; a text that has ended at the end of a
      block is returned. Texts can only become shorter within a block, and the law is another one.

    `theory.tokens.power_sampling.algorithm_law` gives the exact law of what is returned, in small worlds. One step runs the
    policy over the whole block anew.

    Args:
        policy: p; as in `sample_tokens`.
        prompts: P token sequences of one length.
        alpha: the power, > 0; 1 is the policy itself.
        block: tokens by which each block extends the texts.
        steps: Metropolis-Hastings steps after each extension, N in the paper; 0 is sampling at temperature `1 / alpha`.
        noise: a generator, or uniforms on [0, 1), `uniform_count(horizon, block, steps)` for each row.
        horizon: tokens of the longest text; None for the longest that the policy's `length` allows.
        copies: rows drawn for each prompt; they follow each other.
        end: the end token; None if every text has `horizon` tokens.
        end_rule: one of "hastings", "no factor", "cut".

    Returns:
        The texts.

    Raises:
        InputError: an argument is out of its range, uniforms do not fit, or logits are of the wrong shape, NaN or infinite.
    """
    device = next(policy.parameters()).device
    prompts = prompt_table(prompts).to(device)
    H = _horizon(policy, prompts, horizon)
    _check(alpha, whole("block", block, 1), whole("steps", steps, 0), end_rule)
    check_request(policy, prompts, H, copies, "horizon")
    rows = len(prompts) * copies
    take = _noise(noise, rows, uniform_count(H, block, steps), device)
    with torch.inference_mode(is_plain(policy)), torch.no_grad():
        V = vocabulary_size(policy, prompts)
        if end is not None and not 0 <= end < V:
            raise InputError(f"end must be a token of the vocabulary, 0 ... {V - 1}, or None; got {end!r}")
        texts, accepted = _blocks(policy, prompts, (alpha, block, steps), take, H, copies, V, end, end_rule)
    place = torch.arange(H, device=device)
    mask = place < texts.length[:, None]
    if not bool(texts.log_pi[mask].isfinite().all()):
        raise InputError("policy gives logits that are NaN or infinite: no token can be drawn from them")
    tokens = texts.tokens if end is None else torch.where(mask, texts.tokens, end)
    of_prompt = torch.arange(len(prompts), device=device).repeat_interleave(copies)
    log_probs = torch.where(mask, texts.log_pi, 0.0)
    return PowerSample(tokens.clone(), log_probs.clone(), of_prompt, mask, texts.ended.clone(), accepted.clone())


def block_ends(horizon: int, block: int) -> list[int]:
    """`block, 2 block, ...` up to the horizon, which is the last one.

    Args:
        horizon: tokens of the longest text.
        block: tokens of a block.

    Returns:
        The ends of the blocks.
    """
    return [*range(block, horizon, block), horizon]


def uniform_count(horizon: int, block: int, steps: int) -> int:
    """Uniform numbers of one row of `power_sample`.

    For each block they are those of the tokens up to its end, and for each step those of the position, of the tokens and of the
    decision.

    Args:
        horizon: tokens of the longest text.
        block: tokens of a block.
        steps: steps after each extension.

    Returns:
        The count.
    """
    return sum(end + steps * (end + 2) for end in block_ends(horizon, block))


def _blocks(
    policy: TokenPolicy,
    prompts: Int[Tensor, "P T"],
    chain: tuple[float, int, int],
    take: Callable[[int], Tensor],
    H: int,
    copies: int,
    V: int,
    end: int | None,
    end_rule: str,
) -> tuple[_Texts, Float[Tensor, "rows"]]:
    """All blocks: extend, then step; the texts, and the share of accepted steps."""
    alpha, block, steps = chain
    rows, done = len(prompts) * copies, 0
    none = torch.zeros(rows, dtype=torch.int64, device=prompts.device)
    like = next(policy.parameters())
    texts = _Texts(none[:, None][:, :0], like.new_zeros(rows, 0), like.new_zeros(rows, 0), none, none > 0)
    accepted, tried = (torch.zeros(rows, dtype=torch.float64, device=none.device) for _ in range(2))
    for until in block_ends(H, block):
        redraw = _redrawing(policy, prompts, alpha, copies, V, end)
        most = torch.where(texts.ended, texts.length, (texts.length + until - done).clamp(max=until))
        back = texts.ended if end_rule == "cut" else texts.ended & False  # such texts have been returned
        texts = redraw(_padded(texts, until), texts.length, most, take(until))
        for _ in range(steps):
            kept, texts = _step(redraw, texts, until, take(until + 2), end_rule, ~back)
            accepted, tried = accepted + kept, tried + ~back
        done = until
    return texts, accepted / tried.clamp(min=1)


def _step(
    redraw: Redraw, x: _Texts, until: int, uniforms: Tensor, end_rule: str, open_: Bool[Tensor, "rows"]
) -> tuple[Bool[Tensor, "rows"], _Texts]:
    """One step of Metropolis-Hastings: which new texts are accepted, and the texts after it."""
    first = (uniforms[:, 0] * x.length).long().clamp(max=x.length - 1)
    most = x.length if end_rule == "cut" else torch.full_like(x.length, until)
    y = redraw(x, first, most, uniforms[:, 2:])
    counted = torch.minimum(x.length, y.length) if end_rule == "cut" else x.length
    log_ratio = _between(y.log_Z, first, y.length) - _between(x.log_Z, first, counted)
    if end_rule == "hastings":
        log_ratio = log_ratio + (x.length.double() / y.length).log()
    kept = open_ & (uniforms[:, 1] < log_ratio.clamp(max=0.0).exp())
    return kept, y.or_else(kept, x)


def _between(log_Z: Float[Tensor, "rows T"], first: Tensor, length: Tensor) -> Float[Tensor, "rows"]:
    """`sum_{first < t < length} log Z_a`."""
    place = torch.arange(log_Z.shape[1], device=log_Z.device)
    return torch.where((place > first[:, None]) & (place < length[:, None]), log_Z, 0.0).double().sum(1)


def _redrawing(
    policy: TokenPolicy, prompts: Int[Tensor, "P T"], alpha: float, copies: int, V: int, end: int | None
) -> Redraw:
    """The function that keeps the tokens before `first` and draws the others at temperature `1 / alpha`."""

    def redraw(texts: _Texts, first: Tensor, most: Tensor, uniforms: Tensor) -> _Texts:
        T, sums = uniforms.shape[1], list[Tensor]()
        plain = is_plain(policy)
        extend = InPlace(policy, len(prompts), prompts.shape[1] + T - 1).extend if plain else policy.extend

        def cold(x: Tensor, cache: Any, probes: Any) -> tuple[Tensor, Any]:
            logits, cache = extend(x, cache, probes)
            weights = alpha * torch.log_softmax(logits, -1)
            Z = torch.logsumexp(weights, -1)
            sums.append(Z if sums else Z.repeat_interleave(copies))
            return weights, cache

        def keep(k: int, drawn: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
            redrawn = first[:, None] <= k
            return torch.where(redrawn, drawn, texts.tokens[:, k : k + 1]), redrawn

        tokens, log_q, _ = draw_tokens(policy.embed, cold, prompts, uniforms, copies, V, keep)
        log_Z = torch.stack(sums, 1)
        return _ended(_Texts(tokens, (log_q + log_Z) / alpha, log_Z, most, texts.ended), end)

    return redraw


def _ended(texts: _Texts, end: int | None) -> _Texts:
    """The texts cut after their first end token."""
    if end is None:
        return texts
    place = torch.arange(texts.tokens.shape[1], device=texts.tokens.device)
    said = (texts.tokens == end) & (place < texts.length[:, None])
    ended = said.any(1)
    return replace(texts, ended=ended, length=torch.where(ended, said.long().argmax(1) + 1, texts.length))


def _padded(texts: _Texts, until: int) -> _Texts:
    """The texts with room for tokens up to the end of the block."""
    room = (0, until - texts.tokens.shape[1])
    wide = {name: torch.nn.functional.pad(getattr(texts, name), room) for name in ("tokens", "log_pi", "log_Z")}
    return replace(texts, **wide)


def _noise(noise: torch.Generator | Tensor, rows: int, count: int, device: torch.device) -> Callable[[int], Tensor]:
    """A function that hands out the next uniforms of all rows; a generator draws them when they are needed."""
    if isinstance(noise, torch.Generator):
        return lambda number: checked_uniforms(noise, (rows, number)).to(device)
    given, used = checked_uniforms(noise, (rows, count)).to(device), [0]

    def take(number: int) -> Tensor:
        used[0] += number
        return given[:, used[0] - number : used[0]]

    return take


def _horizon(policy: TokenPolicy, prompts: Int[Tensor, "P T"], horizon: int | None) -> int:
    if horizon is not None:
        return whole("horizon", horizon, 1)
    length = getattr(policy, "length", None)
    if length is None:
        raise InputError("horizon must be given: this policy has no `length` that says how long a text may be")
    return whole("horizon", length - prompts.shape[1] + 1, 1, f"the policy's length is {length}")


def _check(alpha: float, block: int, steps: int, end_rule: str) -> None:
    if isinstance(alpha, str) or not 0 < alpha < float("inf"):
        raise InputError(f"alpha must be a finite number > 0, the power; got {alpha!r}")
    if end_rule not in END_RULES:
        raise InputError(f"end_rule must be one of {', '.join(END_RULES)}; got {end_rule!r}")
