"""Batched sampling of token sequences, and what a token world pays for them.

The policy reads tokens only, never the world's state, so sampling needs no world: rewards follow from the tokens afterwards.
Noise is an argument: the same uniforms give the same tokens, which is how policies are compared on matched rollouts.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from agents.policies.transformer import Attention, Block, Embedding, Linear, Transformer
from envs.token_mdp import TokenMDP, check_tokens
from envs.world import InputError

_PARTS = {Transformer, Block, Attention, Linear, Embedding, nn.LayerNorm, nn.GELU, nn.Sequential, nn.ModuleList}


@dataclass(frozen=True)
class TokenSample:
    """Sampled tokens, `log pi` of each of them (constants), and the index of the prompt that each row continues."""

    tokens: Int[Tensor, "rows steps"]
    log_probs: Float[Tensor, "rows steps"]
    prompt: Int[Tensor, "rows"]


def sample_tokens(
    policy: Any, prompts: Any, steps: int, noise: torch.Generator | Float[Tensor, "rows steps"], copies: int = 1
) -> TokenSample:
    """Draw `c_k ~ pi_k` for `steps` steps, `copies` rollouts of every prompt; the rows of one prompt stand together.

    `prompts` are P token sequences of one length T. Inverse transform: `c_k` is the first token whose cumulative
    probability exceeds `u_k`, uniform on [0, 1). `noise` is these u, (P * copies, steps), or the generator that draws them,
    in float64 on its own device: one generator gives the same noise to every policy, device and dtype.

    `policy` has `parameters`, `embed(tokens)` and `extend(x, cache, probes) -> (logits, cache)`, where a cache of P rows
    serves P * copies rows, each of its own `copies` consecutive ones; it may have a `length`, its longest context. A
    Transformer as its source has it is run by a faster way to the same logits.

    Raises InputError for steps or copies < 1, prompts that are no table of tokens of the vocabulary, a context longer than
    the policy's length, uniforms of the wrong shape or outside [0, 1), logits of the wrong shape or NaN.
    """
    device, plain = next(policy.parameters()).device, _is_plain(policy)
    prompts = _table(prompts).to(device)
    _check_request(policy, prompts, steps, copies)
    uniforms = _uniforms(noise, (len(prompts) * copies, steps)).to(device)
    # inference mode for our own network only: what another one may keep of its run must stay fit for training
    with torch.inference_mode(plain), torch.no_grad():
        V = _vocabulary(policy, prompts, plain)
        extend = _InPlace(policy, len(prompts), prompts.shape[1] + steps - 1).extend if plain else policy.extend
        tokens, chances = _draw_all(policy.embed, extend, prompts, uniforms, copies, V)
    log_probs = chances.log()
    if not bool(log_probs.isfinite().all()):
        raise InputError("policy gives logits that are NaN or infinite: no token can be drawn from them")
    return TokenSample(tokens.clone(), log_probs, torch.arange(len(prompts), device=device).repeat_interleave(copies))


def _draw_all(
    embed: Any, extend: Any, prompts: Tensor, uniforms: Tensor, copies: int, V: int
) -> tuple[Int[Tensor, "rows steps"], Float[Tensor, "rows steps"]]:
    """Tokens and their probabilities, one step after the other."""
    x, cache, drawn = embed(prompts), None, []
    for k in range(uniforms.shape[1]):
        logits, cache = extend(x, cache, {})
        if tuple(logits.shape) != (len(x), V):
            raise InputError(f"policy must give logits of shape {(len(x), V)}; got {tuple(logits.shape)}")
        pi = torch.softmax(logits if k else logits.repeat_interleave(copies, 0), -1)
        drawn.append(_draw(pi, uniforms[:, k : k + 1]))
        x = embed(drawn[-1][0])
    tokens, chances = (torch.cat(part, 1) for part in zip(*drawn, strict=True))
    return tokens, chances


def _draw(pi: Float[Tensor, "rows V"], u: Float[Tensor, "rows 1"]) -> tuple[Tensor, Tensor]:
    """Tokens by the inverse transform and their probabilities, both (rows, 1).

    Summed in float64, u scaled by the sum's end: rounding then never leads to a token of probability 0.
    """
    total = pi.cumsum(-1, dtype=torch.float64)
    tokens = torch.searchsorted(total, u * total[:, -1:], right=True).clamp(max=pi.shape[1] - 1)  # clamped for NaN
    return tokens, pi.gather(1, tokens)


def _is_plain(policy: Any) -> bool:
    """Whether this is a Transformer with no part exchanged and nothing hooked on: its weights then say all."""
    if not isinstance(policy, Transformer):
        return False
    return all(map(_as_the_source_has_it, policy.modules()))


def _as_the_source_has_it(m: Any) -> bool:
    """A part of the source's own kind and settings, with nothing hooked on."""
    changed = {
        nn.LayerNorm: lambda: m.eps != 1e-5,
        nn.GELU: lambda: m.approximate != "none",
        nn.Sequential: lambda: len(m) != 3,
    }
    if type(m) not in _PARTS or m._forward_hooks or m._forward_pre_hooks:
        return False
    return not changed.get(type(m), lambda: False)()


class _InPlace:
    """A plain Transformer run from its weights, its keys and values in places reserved beforehand.

    The forward pass of `agents.policies.transformer` written out once more, with nothing in it that sampling can do without.
    """

    def __init__(self, network: Any, rows: int, places: int):
        self.heads, self.filled, self.D = network.blocks[0].attention.heads, 0, (network.width,)
        self.position, self.offset, self.temperature = network.position, network.offset, network.temperature
        self.blocks = [tuple((m.weight, m.bias) for m in _maps(block)) for block in network.blocks]
        self.norm, self.head = (network.norm.weight, network.norm.bias), (network.head.weight, network.head.bias)
        shape = (len(self.blocks), 2, places, self.heads, network.width // self.heads, rows)
        self.past = network.head.weight.new_empty(shape)

    def extend(self, x: Float[Tensor, "rows T D"], cache: Any, probes: Any) -> tuple[Float[Tensor, "rows V"], Any]:
        """Logits after the last position; where x has more rows than the past, consecutive ones share it."""
        if len(x) > self.past.shape[-1]:
            self.past = self.past.repeat_interleave(len(x) // self.past.shape[-1], -1)
        here, seen = slice(self.filled, self.filled + x.shape[1]), slice(self.filled + x.shape[1])
        x, self.filled = x + self.position[here], seen.stop
        for i, (norm1, inward, outward, norm2, up, down) in enumerate(self.blocks):
            keys, values = self.past[i]
            y = linear(layer_norm(x, self.D, *norm1), *inward)
            q, k, v = y.unflatten(-1, (3, self.heads, -1)).permute(2, 1, 3, 4, 0)
            keys[here], values[here] = k, v
            if x.shape[1] == 1 or i + 1 == len(self.blocks):  # nobody asks the last layer for earlier positions
                x, y = x[:, -1:], _attention_of_one(q[-1], keys[seen], values[seen])
            else:
                q, k, v = (part.permute(3, 1, 0, 2) for part in (q, k, v))
                y = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            x = x + linear(y, *outward)
            x = x + linear(gelu(linear(layer_norm(x, self.D, *norm2), *up)), *down)
        z = linear(layer_norm(x[:, 0], self.D, *self.norm), *self.head)
        return (z + self.offset) / self.temperature, cache


def _attention_of_one(
    q: Float[Tensor, "heads d rows"], keys: Float[Tensor, "t heads d rows"], values: Float[Tensor, "t heads d rows"]
) -> Float[Tensor, "rows 1 D"]:
    """Attention from one position per row; with the rows innermost, a few sweeps do what were many tiny products."""
    weights = torch.softmax((keys * (q / math.sqrt(q.shape[1])).contiguous()).sum(2), 0)
    return (values * weights[:, :, None]).sum(0).flatten(0, 1).mT[:, None]


def _maps(block: Any) -> tuple[Any, ...]:
    return block.norm1, block.attention.inward, block.attention.outward, block.norm2, block.mlp[0], block.mlp[2]


def _uniforms(noise: torch.Generator | Tensor, shape: tuple[int, int]) -> Tensor:
    if isinstance(noise, torch.Generator):
        return torch.rand(shape, generator=noise, dtype=torch.float64, device=noise.device)
    if tuple(noise.shape) != shape:
        raise InputError(f"noise must be uniforms of shape {shape}, one per row and step; got {tuple(noise.shape)}")
    if not bool(((noise >= 0) & (noise < 1)).all()):
        raise InputError("noise must lie in [0, 1), all of it: draw it with torch.rand")
    return noise.double()


def _table(prompts: Any) -> Int[Tensor, "P T"]:
    try:
        table = torch.as_tensor(prompts)
    except (TypeError, ValueError, RuntimeError):
        raise InputError("prompts must be token sequences of one length") from None
    if table.ndim != 2 or not table.numel() or table.is_floating_point():
        raise InputError(f"prompts must be a table (P, T) of whole numbers; got {table.dtype} {tuple(table.shape)}")
    return table.long()


def _check_request(policy: Any, prompts: Tensor, steps: int, copies: int) -> None:
    for name, count in {"steps": steps, "copies": copies}.items():
        if count < 1:
            raise InputError(f"{name} must be a whole number >= 1; got {count!r}")
    known, needed, length = prompts.shape[1], prompts.shape[1] + steps - 1, getattr(policy, "length", None)
    if length is not None and needed > length:
        raise InputError(
            f"steps={steps} after {known} tokens needs a context of {needed}; the policy's length is {length}"
        )


def _vocabulary(policy: Any, prompts: Tensor, plain: bool) -> int:
    """How many tokens the policy knows, seen on a context of one; refuses prompts that hold others."""
    one = torch.zeros_like(prompts[:1, :1])
    V = policy.head.out_features if plain else policy.extend(policy.embed(one), None, {})[0].shape[-1]
    bad = prompts[(prompts < 0) | (prompts >= V)]
    if bad.numel():
        raise InputError(f"prompts hold token {int(bad[0])}, outside the vocabulary: tokens are 0 ... {V - 1}")
    return V


def token_rewards(
    world: TokenMDP, prompt: Int[Tensor, "rows"], tokens: Int[Tensor, "rows H"]
) -> Float[Tensor, "rows H"]:
    """Expected reward of every step given the tokens: `b_k r_k[:, c_k]`, `b_{k+1} = b_k P[:, c_k]`, b_0 the start state.

    `prompt` indexes the world's prompts (`TokenSample.prompt`, where those were sampled from). In the world's dtype, on the
    tokens' device. Raises InputError for tokens outside the vocabulary, a prompt that does not exist, another number of
    steps than the horizon (`world.first(steps)` is a shorter world), and a hidden readout, which tokens do not tell.
    """
    _check_rewarded(world, prompt, tokens)
    world = world.to(str(tokens.device), world.P.dtype)
    belief, rewards = world.start_belief(prompt), []
    for k, c in enumerate(tokens.unbind(1)):
        rewards.append((belief * world.r[k].mT[c]).sum(-1))
        belief = _after(world, belief, c)
    return torch.stack(rewards, 1)


def token_returns(world: TokenMDP, prompt: Int[Tensor, "rows"], tokens: Int[Tensor, "rows H"]) -> Float[Tensor, "rows"]:
    """`R = sum_k gamma^k rbar_k`, the rewards and refusals being those of `token_rewards`."""
    rewards = token_rewards(world, prompt, tokens)
    return rewards @ world.gamma ** torch.arange(world.horizon, dtype=rewards.dtype, device=rewards.device)


def _after(world: TokenMDP, belief: Float[Tensor, "rows S"], c: Int[Tensor, "rows"]) -> Float[Tensor, "rows S"]:
    """`b P[:, c]`, in one product for all rows that say the same token: a table for every row could be too large."""
    order = c.argsort()
    said, counts = c[order].unique_consecutive(return_counts=True)
    parts = [b @ world.P[:, a] for a, b in zip(said.tolist(), belief[order].split(counts.tolist()), strict=True)]
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
        raise InputError("world pays a hidden readout, which tokens alone do not tell: use a world without it")
