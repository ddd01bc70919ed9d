"""What people ask of critic-free training runs, "is this a bug?", each with exact numbers from the worlds of this suite."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from agents.policies.transformer import Transformer
from agents.recipes.batch import Batch
from agents.recipes.learners import Learner, dr_grpo, grpo
from agents.recipes.surrogates import k1, k3, token_mean
from agents.sampling.completions import context_log_probs
from envs.token_mdp import TokenMDP
from figures.measures.micro_batches import expected_token_mean
from figures.measures.token_systems import build_policy, build_world
from theory.groups.binary_rewards import alignment, grpo_kappa, signal_probability
from theory.groups.expected_update import expected_update
from theory.tokens.completions import Completions, completions
from theory.tokens.prefix_tree import grow

_WORLD, _GROUP = "stop (2,4)", 4


@dataclass(frozen=True)
class Question:
    """A question, the short answer, why, and numbers (what, value) that show it."""

    question: str
    short: str
    answer: str
    numbers: tuple[tuple[str, str], ...]


@cache
def questions() -> tuple[Question, ...]:
    """All of them, computed anew (a second or two), no record needed."""
    world = build_world(_WORLD)
    policy = build_policy(world, seed=1)
    with torch.no_grad():
        found = completions(grow(world, policy))
    asked: tuple[Callable[[TokenMDP, Any, Completions], Question], ...] = (
        _loss_is_zero, _reward_does_not_move, _groups_agree, _std_blows_up, _accumulation, _clip_never_acts, _bfloat16,
        _negative_kl,
    )  # fmt: skip
    return tuple(ask(world, policy, found) for ask in asked)


def _loss_is_zero(world: TokenMDP, policy: Transformer, found: Completions) -> Question:
    parity = build_world("parity")
    update = expected_update(parity, build_policy(parity, seed=1), grpo(), _GROUP)
    cosine, scale, _ = alignment(update.mean, update.truth)
    losses = [_first_loss(grpo(length=length), found) for length in ("row mean", "row sum", "token mean")]
    return Question(
        "The loss is 0 from the first step on. Is nothing learned?",
        "No bug.",
        "A loss is there for its gradient. At ratio 1 it is minus a mean of advantages, which are centred in each "
        "group: with the factor 1/|o|, or rows of one length, it is 0 whatever happens; with sums or token means over "
        "rows of several lengths it is some number. Neither says anything about learning. For rows of one length the "
        "mean gradient is that of the return times kappa over the length.",
        (
            ("loss of a group of two rows of unequal length, GRPO with 1/|o|", _g(losses[0])),
            ("the same with row sums; with a token mean", "; ".join(_g(x) for x in losses[1:])),
            (
                "parity, loss 0 in every group: length of the mean update; of grad J",
                f"{_g(update.mean.flat.norm())}; {_g(update.truth.flat.norm())}",
            ),
            ("its cosine to grad J; scale (kappa over the length 5)", f"{cosine:.6f}; {_g(scale)}"),
        ),
    )


def _first_loss(learner: Learner, found: Completions) -> float:
    """Before the first step, of one group: the most probable success and the most probable failure of another length."""
    R, p, mask = found.returns[0], found.p[0], found.mask[0]
    one = int(torch.where(R > 0.5, p, 0.0).argmax())
    other = int(torch.where((R < 0.5) & (mask.sum(1) != mask[one].sum()), p, 0.0).argmax())
    rows = [one, other]
    batch = Batch(found.rewards[0, rows], mask[rows], torch.zeros(2, dtype=torch.int64))
    return float(learner.loss(torch.zeros_like(batch.rewards), None, batch))


def _reward_does_not_move(world: TokenMDP, policy: Transformer, found: Completions) -> Question:
    lock = build_world("lock (3,4)")
    with torch.no_grad():
        rare = float(completions(grow(lock, build_policy(lock, seed=1, spread=1.0))).success())
    share = {G: float(signal_probability(torch.tensor(rare, dtype=torch.float64), G)) for G in (8, 64, 1024)}
    return Question(
        "The reward has not moved for hundreds of steps. Is the gradient wrong?",
        "Most likely there is none.",
        "A group teaches only if its rewards differ, which happens with probability 1 - P^G - (1-P)^G. Where success "
        "is rare that is about G P: the update is exactly 0 nearly always, and its mean is still kappa grad J. A "
        "larger group, an easier start or a denser reward changes that; a larger rate does not.",
        (
            ("success probability of a random policy in the lock (3 tokens, 4 steps)", _g(rare)),
            *((f"share of groups with a signal, G = {G}", _g(x)) for G, x in share.items()),
            ("groups drawn until the first signal, G = 8, in the mean", _g(1 / share[8])),
        ),
    )


def _groups_agree(world: TokenMDP, policy: Transformer, found: Completions) -> Question:
    P = torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)
    silent = 1 - signal_probability(P, 8)
    equal = Batch(
        torch.ones(4, 1, dtype=torch.float64), torch.ones(4, 1, dtype=torch.bool), torch.zeros(4, dtype=torch.int64)
    )
    weights = grpo()(equal.rewards, equal.mask, equal.group)[0]
    needed = math.log(0.5) / math.log(0.99)
    return Question(
        "All rewards of a group are equal. Should I see NaN, or drop the group?",
        "Neither: its advantage is 0.",
        "0/0 is defined as 0 here; a group without a signal must not move anything. It grows common as P goes to 0 or 1. "
        "Drawing other prompts in the place of such groups (DAPO's dynamic sampling) divides the mean update by the share "
        "of groups that speak, the same for all prompts: a larger step in the same direction. Drawing the same prompt "
        "again until it speaks divides its own kappa by 1 - P^G - (1-P)^G, and so reweights prompts.",
        (
            ("largest weight in a group of four equal rewards", _g(weights.abs().max())),
            *((f"share of silent groups, G = 8, P = {p:g}", _g(s)) for p, s in zip(P, silent, strict=True)),
            ("group size at which half of the groups speak, P = 0.99", str(math.ceil(needed))),
        ),
    )


def _std_blows_up(world: TokenMDP, policy: Transformer, found: Completions) -> Question:
    near = torch.tensor([[0.5], [0.5 + 1e-9]], dtype=torch.float64)
    lone = torch.zeros(64, 1, dtype=torch.float64)
    lone[0] = 1
    largest = [float(_advantages(grpo(), rewards).max()) for rewards in (near, lone)]
    P = torch.tensor([1e-6, 0.5], dtype=torch.float64)
    factors = grpo_kappa(P, 64)
    return Question(
        "Dividing by the standard deviation gives huge advantages when it is small. Does it blow up?",
        "It is bounded, but it forgets the scale.",
        "One row's advantage is at most sqrt(G-1), that of a lone success. Two rewards that differ by 1e-9 get the "
        "same +1 and -1 as 0 and 1 do: with rewards that carry noise, noise is what is climbed. eps sets the scale "
        "below which that ends. Over prompts the factor c_G(P) is at most min(sqrt(G-1), 1 / sqrt(P(1-P))).",
        (
            ("advantage of the better of 0.5 and 0.500000001", _g(largest[0])),
            ("the same with eps = 1e-4", _g(_advantages(grpo(eps=1e-4), near).max())),
            ("advantage of one success in a group of 64; sqrt(63)", f"{_g(largest[1])}; {_g(63**0.5)}"),
            ("c_64 at P = 1e-6 and at P = 0.5", f"{_g(factors[0])}, {_g(factors[1])}"),
        ),
    )


def _advantages(learner: Learner, rewards: Float[Tensor, "rows T"]) -> Float[Tensor, "rows T"]:
    mask, group = torch.ones_like(rewards, dtype=torch.bool), torch.zeros(len(rewards), dtype=torch.int64)
    return learner.advantages(Batch(rewards, mask, group), torch.zeros_like(rewards))


def _accumulation(world: TokenMDP, policy: Transformer, found: Completions) -> Question:
    longer, rows = build_world("stop (3,3)"), list[tuple[str, str]]()
    for groups in (1, 8, 64):
        update = expected_token_mean(longer, build_policy(longer, seed=0), dr_grpo(), _GROUP, groups)
        cosine, scale, bias = alignment(update.mean, update.truth)
        rows.append(
            (
                f"{groups} groups of {_GROUP} in a batch: cosine to grad J; bias over scale",
                f"{cosine:.4f}; {_g(bias / scale)}",
            )
        )
    whole = [float(token_mean(mask, torch.zeros(len(mask), dtype=torch.int64))[0, 0]) for mask in _two_masks()]
    return Question(
        "Gradient accumulation changed the run. Is it numerics?",
        "No: the normaliser.",
        "A mean over all tokens of a batch divides by their number, so a token weighs more in a micro-batch of short "
        "rows. Means of micro-batches are then not the batch's mean, and since successes and failures differ in length "
        "the update is biased even on average, the more the smaller the micro-batch. Weigh micro-batches by their "
        "tokens, or divide by a number fixed beforehand. Row sums and row means over whole groups, equally many, do "
        "not depend on the cut.",
        (
            (
                "weight of a token, rows of 1 and 4 tokens: in one batch; in two micro-batches",
                f"{_g(whole[0])}; {_g(whole[1] / 2)} and {_g(whole[2] / 2)}",
            ),
            *rows,
        ),
    )


def _two_masks() -> list[Tensor]:
    both = torch.tensor([[True, False, False, False], [True] * 4])
    return [both, both[:1], both[1:]]


def _clip_never_acts(world: TokenMDP, policy: Transformer, found: Completions) -> Question:
    ratios = _inner_ratios(world, policy, found, steps=4)
    return Question(
        "The clip fraction is 0 all the time. Is the clip broken?",
        "No bug with one pass over the rows.",
        "The ratio compares the policy with the one that drew the rows. With one step on each batch it is 1 exactly "
        "and no clip can act; it acts from the second inner step on, once a ratio has left [1 - low, 1 + high]. A "
        "ratio off 1 at the first step is the real alarm: the sampler is then not the policy that is trained.",
        (
            ("ratio before the first step", "1"),
            *(
                (f"after inner step {i + 1} (Adam, rate 0.001, mean updates): largest ratio; tokens outside 0.8 ... 1.2",
                 f"{_g(largest)}; {_g(outside)}")
                for i, (largest, outside) in enumerate(ratios)
            ),
        ),
    )  # fmt: skip


def _inner_ratios(world: TokenMDP, policy: Transformer, found: Completions, steps: int) -> list[tuple[float, float]]:
    """After each inner step on the mean update: the largest ratio, and the share of drawn tokens out of the clip's range."""
    moved, ratios = copy.deepcopy(policy), []
    optimiser = torch.optim.Adam(moved.parameters(), lr=0.001)
    for _ in range(steps):
        update = expected_update(world, moved, dr_grpo(), 2, behaviour=policy)
        for p, g in zip(moved.parameters(), update.mean.parameters, strict=True):
            p.grad = -g
        optimiser.step()
        with torch.no_grad():
            now = completions(grow(world, moved))
        ratio = torch.where(found.mask, (now.log_probs - found.log_probs).exp(), 1.0)
        outside = ((ratio < 0.8) | (ratio > 1.2)).sum(-1)
        ratios.append((float(ratio.max()), float((found.p * outside).sum()) / _mean_length(found)))
    return ratios


def _mean_length(found: Completions) -> float:
    return float((found.mask.sum(-1) * found.p).sum())


def _bfloat16(world: TokenMDP, policy: Transformer, found: Completions) -> Question:
    off, sequence = _rounding_of_ratios(world, policy, found, torch.bfloat16)
    single, _ = _rounding_of_ratios(world, policy, found, torch.float32)
    weight = (found.p[..., None] * found.mask).flatten()
    share = [float((weight * (off.flatten() > limit)).sum() / weight.sum()) for limit in (1e-3, 1e-2)]
    return Question(
        "The rows were drawn in bfloat16 and the ratio is not 1. Does it matter?",
        "It is a different policy.",
        "bfloat16 keeps 8 bits of each number: log-probabilities move in the third digit, every token's ratio a "
        "little, a whole row's by their product. The update is then off-policy from its first step: with a narrow clip "
        "(GSPO's 4e-4) most rows start outside of it. Recomputing `old` with the trainer's own numbers makes the ratio "
        "1 and leaves the rows as they are, another policy's.",
        (
            (
                "largest |ratio - 1| over all tokens of the world, bfloat16; float32",
                f"{_g(off.max())}; {_g(single.max())}",
            ),
            ("share of tokens off by more than 0.1 %; 1 %", f"{_g(share[0])}; {_g(share[1])}"),
            ("share of rows outside GSPO's clip before the first step", _g((found.p * (sequence > 4e-4)).sum())),
        ),
    )


def _rounding_of_ratios(
    world: TokenMDP, policy: Transformer, found: Completions, dtype: torch.dtype
) -> tuple[Float[Tensor, "1 L H"], Float[Tensor, "1 L"]]:
    """|ratio - 1| of every token between a policy and itself in another precision, 0 past the end; and of GSPO's row ratio."""
    prompt = world.prompts[:1].expand(found.tokens.shape[1], -1)
    contexts = torch.cat([prompt, found.tokens[0]], 1)
    with torch.no_grad():
        old = context_log_probs(copy.deepcopy(policy).to(dtype), contexts, world.horizon)[0].double()
        now = context_log_probs(policy, contexts, world.horizon)[0]
    log_ratio = (now - old)[None] * found.mask
    return log_ratio.expm1().abs(), (log_ratio.sum(-1) / found.mask.sum(-1)).expm1().abs()


def _negative_kl(world: TokenMDP, policy: Transformer, found: Completions) -> Question:
    with torch.no_grad():
        other = completions(grow(world, build_policy(world, seed=2)))
    log_ratio, p = torch.where(found.mask, found.log_probs - other.log_probs, 0.0)[0], found.p[0]
    row = {"k1": k1(log_ratio).sum(-1), "k3": k3(log_ratio).sum(-1)}
    mean = {name: float((p * x).sum()) for name, x in row.items()}
    sd = {name: float((p * (x - mean[name]) ** 2).sum()) ** 0.5 for name, x in row.items()}
    return Question(
        "The KL estimate is negative. Can that be?",
        "Yes, a sample of k1 can.",
        "k1 = log(pi / pi_ref) has the right mean and either sign; k3 has the same mean and is never negative. As a "
        "loss they are other things altogether: the mean gradient of k1 is 0, that of k3 belongs to KL(pi_ref || pi).",
        (
            ("KL(pi || pi_ref) of a whole completion: mean of k1; of k3", f"{_g(mean['k1'])}; {_g(mean['k3'])}"),
            ("chance that a completion's k1 is negative", _g((p * (row["k1"] < 0)).sum())),
            ("standard deviation of k1; of k3", f"{_g(sd['k1'])}; {_g(sd['k3'])}"),
        ),
    )


def _g(x: Any) -> str:
    """Four digits; what is 0 to rounding as 0."""
    value = float(x)
    return "0" if abs(value) < 1e-15 else f"{value:.4g}"
