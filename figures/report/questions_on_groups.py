"""Questions about the rewards of a group: a loss of 0, a reward that does not move, equal rewards, a small deviation."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from agents.recipes.batch import Batch
from agents.recipes.learners import Learner, grpo
from figures.measures.token_systems import build_policy, build_world
from figures.report.question import GROUP, Example, Question, all_completions, four_digits
from theory.groups.binary_rewards import alignment, grpo_kappa, signal_probability
from theory.groups.expected_update import expected_update
from theory.tokens.completions import Completions


def loss_is_zero(example: Example) -> Question:
    """The value of the loss says nothing; its gradient does."""
    parity = build_world("parity")
    update = expected_update(parity, build_policy(parity, seed=1), grpo(), GROUP)
    cosine, scale, _ = alignment(update.mean, update.truth)
    lengths = ("row mean", "row sum", "token mean")
    row_mean, *others = (four_digits(_first_loss(grpo(length=length), example.completions)) for length in lengths)
    norms = (update.mean.flat.norm(), update.truth.flat.norm())
    return Question(
        "The loss is 0 from the first step on. Is nothing learned?",
        "No bug.",
        "Only the gradient of a loss matters, not its value. At ratio 1 the loss is minus a mean of advantages, which are "
        "centred in each group. With the factor 1/|o|, or with rows of one length, it is therefore always 0; with sums or "
        "token means over rows of several lengths it is some number. Neither says anything about learning. For rows of one "
        "length the mean gradient is that of the return, times kappa over the length.",
        (
            ("loss of a group of two rows of unequal length, GRPO with 1/|o|", row_mean),
            ("the same with row sums; with a token mean", "; ".join(others)),
            (
                "parity, loss 0 in every group: length of the mean update; of grad J",
                "; ".join(map(four_digits, norms)),
            ),
            ("its cosine to grad J; scale (kappa over the length 5)", f"{cosine:.6f}; {four_digits(scale)}"),
        ),
        lesson=6,
        claims=("actor_update_is_value_gradient",),
        terms=("kappa", "normaliser"),
        run=True,
    )


def _first_loss(learner: Learner, completions: Completions) -> float:
    """Loss before the first step, of the most probable success and the most probable failure of another length."""
    R, p, mask = completions.returns[0], completions.p[0], completions.mask[0]
    success = int(torch.where(R > 0.5, p, 0.0).argmax())
    failure = int(torch.where((R < 0.5) & (mask.sum(1) != mask[success].sum()), p, 0.0).argmax())
    rows = [success, failure]
    batch = Batch(completions.rewards[0, rows], mask[rows], torch.zeros(2, dtype=torch.int64))
    return float(learner.loss(torch.zeros_like(batch.rewards), None, batch))


def reward_does_not_move() -> Question:
    """Where success is rare, nearly all groups are without a signal."""
    lock = build_world("lock (3,4)")
    P = float(all_completions(lock, build_policy(lock, seed=1, spread=1.0)).success())
    share = {G: float(signal_probability(torch.tensor(P, dtype=torch.float64), G)) for G in (8, 64, 1024)}
    return Question(
        "The reward has not moved for hundreds of steps. Is the gradient wrong?",
        "Most likely there is none.",
        "A group has a gradient only if its rewards differ, which happens with probability 1 - P^G - (1-P)^G. Where success "
        "is rare this is about G P: nearly every update is exactly 0, although the mean update is still kappa grad J. A "
        "larger group, an easier start or a denser reward changes that; a larger learning rate does not.",
        (
            ("success probability of a random policy in the lock (3 tokens, 4 steps)", four_digits(P)),
            *((f"share of groups with a signal, G = {G}", four_digits(x)) for G, x in share.items()),
            ("groups drawn until the first signal, G = 8, in the mean", four_digits(1 / share[8])),
        ),
        lesson=7,
        claims=("grpo_arcsine",),
        terms=("group", "signal"),
        run=True,
    )


def groups_agree() -> Question:
    """A group of equal rewards has advantage 0."""
    P = torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)
    silent = 1 - signal_probability(P, 8)
    largest = _advantages(grpo(), torch.ones(4, 1, dtype=torch.float64)).abs().max()
    half = math.ceil(math.log(0.5) / math.log(0.99))
    return Question(
        "All rewards of a group are equal. What is the gradient: NaN? Should I drop the group?",
        "Neither: its advantage is 0, and so is its gradient.",
        "0/0 is defined as 0 here: a group without a signal must not move anything. Such groups become common as P goes to 0 "
        "or 1. Replacing them by groups of other prompts (DAPO's dynamic sampling) divides the mean update by the share of "
        "groups with a signal, the same number for all prompts: a larger step in the same direction. Drawing the same prompt "
        "again until its rewards differ divides the kappa of that prompt by 1 - P^G - (1-P)^G, and so reweights prompts.",
        (
            ("largest weight in a group of four equal rewards", four_digits(largest)),
            *(
                (f"share of groups without a signal, G = 8, P = {p:g}", four_digits(share))
                for p, share in zip(P, silent, strict=True)
            ),
            ("group size at which half of the groups have a signal, P = 0.99", str(half)),
        ),
        lesson=7,
        claims=("grpo_arcsine",),
        terms=("group", "kappa"),
        run=True,
    )


def std_blows_up() -> Question:
    """Dividing by the standard deviation is bounded but forgets the scale of the rewards."""
    near = torch.tensor([[0.5], [0.5 + 1e-9]], dtype=torch.float64)
    lone = torch.zeros(64, 1, dtype=torch.float64)
    lone[0] = 1
    of_near, of_lone = (_advantages(grpo(), rewards).max() for rewards in (near, lone))
    kappa = grpo_kappa(torch.tensor([1e-6, 0.5], dtype=torch.float64), 64)
    return Question(
        "Dividing by the standard deviation gives huge advantages when it is small. Does it blow up?",
        "It is bounded, but it forgets the scale.",
        "The advantage of one row is at most sqrt(G-1), that of a lone success. Two rewards that differ by 1e-9 get the "
        "same +1 and -1 as 0 and 1 do, so where rewards carry noise the update follows the noise; eps sets the scale below "
        "which this ends. Over prompts the factor c_G(P) is at most min(sqrt(G-1), 1 / sqrt(P(1-P))).",
        (
            ("advantage of the better of 0.5 and 0.500000001", four_digits(of_near)),
            ("the same with eps = 1e-4", four_digits(_advantages(grpo(eps=1e-4), near).max())),
            ("advantage of one success in a group of 64; sqrt(63)", f"{four_digits(of_lone)}; {four_digits(63**0.5)}"),
            ("c_64 at P = 1e-6 and at P = 0.5", f"{four_digits(kappa[0])}, {four_digits(kappa[1])}"),
        ),
        lesson=7,
        claims=("grpo_arcsine",),
        terms=("advantage", "kappa"),
        run=True,
    )


def _advantages(learner: Learner, rewards: Float[Tensor, "rows T"]) -> Float[Tensor, "rows T"]:
    """Advantages of one group whose rows have all T tokens."""
    mask, group = torch.ones_like(rewards, dtype=torch.bool), torch.zeros(len(rewards), dtype=torch.int64)
    return learner.advantages(Batch(rewards, mask, group), torch.zeros_like(rewards))
