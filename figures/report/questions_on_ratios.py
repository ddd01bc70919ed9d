"""Questions about what a batch is divided by, and about the ratio of two policies: accumulation, clip, bfloat16, KL."""

import copy
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.learners import dr_grpo
from agents.recipes.surrogates import k1, k3, token_mean
from agents.sampling.completions import context_log_probs
from figures.measures.token_mean import expected_token_mean
from figures.measures.token_systems import build_policy, build_world
from figures.report.question import GROUP, Example, Question, all_completions, four_digits
from theory.groups.binary_rewards import alignment
from theory.groups.expected_update import expected_update


def accumulation() -> Question:
    """A token mean depends on how a batch is cut into micro-batches."""
    whole, short, long = (four_digits(weight) for weight in _token_weights())
    return Question(
        "Gradient accumulation changed the run. Is it numerics?",
        "No: the normaliser.",
        "A mean over all tokens of a batch divides by their number, so a token weighs more in a micro-batch of short rows, "
        "and the mean over micro-batches is not that of the batch. Since successes and failures differ in length, the update "
        "is biased even on average, the more the smaller the micro-batch. Weigh micro-batches by their tokens, or divide by "
        "a number fixed beforehand. Row sums and row means do not depend on the cut, as long as every micro-batch holds the "
        "same number of whole groups.",
        (
            (
                "weight of a token, rows of 1 and 4 tokens: in one batch; in two micro-batches",
                f"{whole}; {short} and {long}",
            ),
            *(_token_mean_bias(groups) for groups in (1, 8, 64)),
        ),
        lesson=8,
        claims=("batch_split",),
        terms=("normaliser",),
        run=True,
    )


def _token_weights() -> tuple[float, float, float]:
    """Weight of a token of two rows of 1 and 4 tokens in one batch; of either row, where each is a micro-batch of its own."""
    both = torch.tensor([[True, False, False, False], [True] * 4])
    batches = (both, both[:1], both[1:])
    whole, short, long = (float(token_mean(mask, torch.zeros(len(mask), dtype=torch.int64))[0, 0]) for mask in batches)
    return whole, short / 2, long / 2


def _token_mean_bias(groups: int) -> tuple[str, str]:
    """The line of a token mean over so many groups."""
    world = build_world("stop (3,3)")
    update = expected_token_mean(world, build_policy(world, seed=0), dr_grpo(), GROUP, groups)
    cosine, scale, bias = alignment(update.mean, update.truth)
    what = f"{groups} groups of {GROUP} in a batch: cosine to grad J; bias over scale"
    return what, f"{cosine:.4f}; {four_digits(bias / scale)}"


def clip_never_acts(example: Example) -> Question:
    """With one step on each batch the ratio is 1."""
    steps = enumerate(_inner_ratios(example, steps=4), start=1)
    return Question(
        "The clip fraction is 0 all the time. Is the clip broken?",
        "No bug with one pass over the rows.",
        "The ratio compares the policy with the one that drew the rows. With one step on each batch it is exactly 1 and no "
        "clip can act; the clip acts from the second inner step on, once a ratio has left [1 - low, 1 + high]. The real alarm "
        "is a ratio different from 1 at the first step: then the rows were not drawn from the policy that is trained.",
        (
            ("ratio before the first step", "1"),
            *(
                (
                    f"after inner step {i} (Adam, rate 0.001, mean updates): largest ratio; tokens outside 0.8 ... 1.2",
                    f"{four_digits(ratios.largest)}; {four_digits(ratios.outside)}",
                )
                for i, ratios in steps
            ),
        ),
        lesson=6,
        claims=("off_policy_steps",),
        terms=("recipe",),
        run=True,
    )


class _Ratios(NamedTuple):
    """The largest ratio of a token, and the share of drawn tokens whose ratio is outside of the clip's range."""

    largest: Tensor
    outside: Tensor


def _inner_ratios(example: Example, steps: int) -> list[_Ratios]:
    """Ratios after each of so many inner steps on the exact mean update."""
    policy, before = copy.deepcopy(example.policy), example.completions
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.001)
    tokens, all_ratios = (before.mask.sum(-1) * before.p).sum(), []
    for _ in range(steps):
        update = expected_update(example.world, policy, dr_grpo(), 2, behaviour=example.policy)
        for p, gradient in zip(policy.parameters(), update.mean.parameters, strict=True):
            p.grad = -gradient
        optimiser.step()
        after = all_completions(example.world, policy)
        ratio = torch.where(before.mask, (after.log_probs - before.log_probs).exp(), 1.0)
        outside = ((ratio < 0.8) | (ratio > 1.2)).sum(-1)
        all_ratios.append(_Ratios(ratio.max(), (before.p * outside).sum() / tokens))
    return all_ratios


def bfloat16(example: Example) -> Question:
    """Rows drawn in another precision come from another policy."""
    p, mask = example.completions.p, example.completions.mask
    coarse, of_rows = _rounding_of_ratios(example, torch.bfloat16)
    fine, _ = _rounding_of_ratios(example, torch.float32)
    weight = (p[..., None] * mask).flatten()
    shares = [(weight * (coarse.flatten() > limit)).sum() / weight.sum() for limit in (1e-3, 1e-2)]
    return Question(
        "The rows were drawn in bfloat16 and the ratio is not 1. Does it matter?",
        "It is a different policy.",
        "bfloat16 keeps 8 bits of each number, so log-probabilities change in the third digit: the ratio of every token "
        "changes a little, that of a whole row by the product of its tokens. The update is then off-policy from its first "
        "step on: with a narrow clip (GSPO's 4e-4) most rows start outside of it. Recomputing `old` in the trainer's "
        "precision makes the ratio 1, but the rows are still those of another policy.",
        (
            (
                "largest |ratio - 1| over all tokens of the world, bfloat16; float32",
                f"{four_digits(coarse.max())}; {four_digits(fine.max())}",
            ),
            ("share of tokens off by more than 0.1 %; 1 %", "; ".join(map(four_digits, shares))),
            ("share of rows outside GSPO's clip before the first step", four_digits((p * (of_rows > 4e-4)).sum())),
        ),
        lesson=6,
        claims=("off_policy_steps",),
        terms=("recipe",),
        run=True,
    )


def _rounding_of_ratios(example: Example, dtype: torch.dtype) -> tuple[Float[Tensor, "1 L H"], Float[Tensor, "1 L"]]:
    """|ratio - 1| of the policy to itself in another precision: of every token (0 past the end), and GSPO's of every row."""
    tokens, mask = example.completions.tokens, example.completions.mask
    prompt = example.world.prompts[:1].expand(tokens.shape[1], -1)
    contexts = torch.cat([prompt, tokens[0]], 1)
    rounded = copy.deepcopy(example.policy).to(dtype)
    with torch.no_grad():
        old = context_log_probs(rounded, contexts, example.world.horizon)[0].double()
        new = context_log_probs(example.policy, contexts, example.world.horizon)[0]
    log_ratio = (new - old)[None] * mask
    return log_ratio.expm1().abs(), (log_ratio.sum(-1) / mask.sum(-1)).expm1().abs()


def negative_kl(example: Example) -> Question:
    """A sample of k1 may be negative."""
    reference = all_completions(example.world, build_policy(example.world, seed=2))
    own, p = example.completions, example.completions.p[0]
    log_ratio = torch.where(own.mask, own.log_probs - reference.log_probs, 0.0)[0]
    rows = {"k1": k1(log_ratio).sum(-1), "k3": k3(log_ratio).sum(-1)}
    means = {name: (p * x).sum() for name, x in rows.items()}
    deviations = {name: (p * (x - means[name]) ** 2).sum() ** 0.5 for name, x in rows.items()}
    return Question(
        "The KL estimate is negative. Can that be?",
        "Yes, a sample of k1 can.",
        "k1 = log(pi / pi_ref) has the right mean and either sign; k3 has the same mean and is never negative. In the loss "
        "they do something else: the mean gradient of k1 is 0, and that of k3 is the gradient of KL(pi_ref || pi).",
        (
            ("KL(pi || pi_ref) of a whole completion: mean of k1; of k3", "; ".join(map(four_digits, means.values()))),
            ("chance that the k1 of a completion is negative", four_digits((p * (rows["k1"] < 0)).sum())),
            ("standard deviation of k1; of k3", "; ".join(map(four_digits, deviations.values()))),
        ),
        lesson=6,
        claims=("kl_estimators",),
        terms=("KL",),
        run=True,
    )
