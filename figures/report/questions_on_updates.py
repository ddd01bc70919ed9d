"""Questions after lessons 6 to 9: kappa below 1, Adam, what GRPO climbs, lengths, and when RL pays."""

import torch

from agents.policies.transformer import Transformer
from agents.recipes.learners import grpo
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from figures.report.question import GROUP, Question, four_digits
from theory.groups.binary_rewards import Alignment, baseline_kappa, grpo_kappa, grpo_objective, signal_probability
from theory.groups.expected_update import expected_update


def _chances(*p: float) -> torch.Tensor:
    return torch.tensor(p, dtype=torch.float64)


def _policy(world: TokenMDP) -> Transformer:
    """The random policy of lessons 6 and 8."""
    return Transformer(world.V, length=world.longest)


def kappa_is_below_one() -> Question:
    """Kappa is a length."""
    world: TokenMDP = make_world("TokenParity", V=3, horizon=3)
    found = expected_update(world, _policy(world), grpo(), GROUP).alignment
    return Question(
        f"Kappa is {found.scale:.2f}: is my GRPO wrong?",
        "No: kappa is the length of the step, not its direction.",
        "For one prompt every kappa above 0 climbs the same return, with another learning rate. Wrong is a cosine below 1. "
        "Kappa of GRPO depends on the success probability, on the size of the group and on the length that a row is divided "
        "by.",
        (
            (f"parity of 3 tokens, G = {GROUP}, rows divided by their length: kappa; cosine", _scale_and_cosine(found)),
            ("the same kappa with row sums", four_digits(found.scale * world.horizon)),
            *((f"Dr. GRPO, G = {G}: kappa", four_digits(baseline_kappa(G))) for G in (2, 8)),
        ),
        lesson=6,
        claims=("actor_update_is_value_gradient",),
        terms=("kappa", "normaliser"),
    )


def _scale_and_cosine(found: Alignment) -> str:
    return f"{four_digits(found.scale)}; {found.cosine:.6f}"


def adam_divides() -> Question:
    """A common factor is divided out, factors of single prompts are not."""
    hard, even = grpo_kappa(_chances(0.02, 0.5), 8)
    return Question(
        "I use Adam, which divides by the size of the gradient. Does kappa matter at all?",
        "A common kappa does not, kappas of single prompts do.",
        "Adam divides out a factor that all prompts share and that changes slowly. With the division by the standard "
        "deviation each prompt has a kappa of its own, and the sum over prompts points elsewhere before Adam sees it.",
        (
            ("kappa of GRPO at G = 8, p = 0.02; p = 0.5", f"{four_digits(hard)}; {four_digits(even)}"),
            ("a hard prompt counts more by the factor", four_digits(hard / even)),
        ),
        lesson=6,
        claims=("actor_update_is_value_gradient", "grpo_arcsine"),
        terms=("kappa",),
    )


def wrong_objective() -> Question:
    """Another objective with the same optimum."""
    p = (0.05, 0.25, 0.5, 0.95)
    F = grpo_objective(_chances(*p, 1.0), 16)
    return Question(
        "Does GRPO optimise the wrong thing?",
        "Another thing, with the same best policy.",
        "With the division by the standard deviation GRPO climbs the mean of F_G(p) over the prompts in place of that of p. "
        "Both are largest where every p is 1. They differ where prompts compete for the parameters: F_G is steep near 0 and "
        "near 1, so that GRPO prefers the first successes of a hard prompt, and the last ones of an easy one.",
        tuple(
            (f"share of the way that F_16 has done at p = {x:g}", four_digits(f / F[-1]))
            for x, f in zip(p, F[:-1], strict=True)
        ),
        lesson=7,
        claims=("grpo_arcsine",),
        terms=("arcsine objective", "kappa"),
    )


def nearly_solved() -> Question:
    """The weight is symmetric in p and 1 - p."""
    p = (0.02, 0.5, 0.98)
    kappas, signals = grpo_kappa(_chances(*p), 8), signal_probability(_chances(*p), 8)
    return Question(
        "Why does GRPO push prompts that are nearly solved as much as hopeless ones?",
        "Its weight depends on p (1 - p) alone.",
        "The standard deviation is small at both ends, and dividing by it makes the rare group that is not silent count more: "
        "a lone failure as much as a lone success. If this is not wanted, leave the division out (Dr. GRPO).",
        tuple(
            (f"p = {x:g}, G = 8: weight; share of groups with a signal", f"{four_digits(c)}; {four_digits(s)}")
            for x, c, s in zip(p, kappas, signals, strict=True)
        ),
        lesson=7,
        claims=("grpo_arcsine",),
        terms=("group", "kappa"),
    )


def all_normalisers_learn() -> Question:
    """A biased direction climbs, too."""
    world: TokenMDP = make_world("TokenSumAndStop", horizon=4)
    policy = _policy(world)
    lengths = ("row sum", "row mean", "group token mean")
    found = {n: expected_update(world, policy, grpo(std="none", length=n), GROUP).alignment for n in lengths}
    return Question(
        "Every normaliser makes the reward rise. Why should I care?",
        "It also rises along a wrong direction.",
        "A step with a cosine above 0 to grad J still climbs, only more slowly, and what it adds is a preference of its own: "
        "the row mean favours longer failures. A rising reward therefore does not tell a right loss from a wrong one; the "
        "cosine does.",
        tuple((f"{name}, G = {GROUP}: cosine to grad J", f"{x.cosine:.4f}") for name, x in found.items()),
        lesson=8,
        claims=("normalisation_breaks",),
        terms=("normaliser",),
    )


def one_length() -> Question:
    """The normaliser is then a constant."""
    world: TokenMDP = make_world("TokenParity", V=3, horizon=3)
    policy = _policy(world)
    lengths = ("row sum", "row mean", "group token mean")
    found = {n: expected_update(world, policy, grpo(std="none", length=n), GROUP).alignment for n in lengths}
    return Question(
        "All my completions have the same length. Does the normaliser matter?",
        "It changes the length of the step alone.",
        "Every row is divided by the same number, which is another learning rate. Beware of truncated rows: those that stop at "
        "the limit have one length, and the first row that ends earlier brings the bias back.",
        tuple((f"parity of 3 tokens, {name}: scale; cosine", _scale_and_cosine(x)) for name, x in found.items()),
        lesson=8,
        claims=("normalisation_breaks",),
        terms=("normaliser", "end token"),
    )


def best_checkpoint() -> Question:
    """The best one has no headroom left."""
    p = _chances(0.001, 0.1, 0.5, 0.9, 0.999)
    sd, headroom = (p * (1 - p)).sqrt(), 1 - (1 - p) ** 8 - p
    return Question(
        "Why not begin RL from the checkpoint that scores best?",
        "It may have nothing left to gain.",
        "A gain needs a signal (answers that are sometimes right and sometimes wrong) and headroom (8 tries that do better "
        "than one). Both are 0 for a prompt that is always right, as for one that is never right.",
        tuple(
            (f"success probability {x:g}: pass@8 - pass@1; standard deviation of the reward", f"{h:.3f}; {s:.3f}")
            for x, h, s in zip(p.tolist(), headroom.tolist(), sd.tolist(), strict=True)
        ),
        lesson=9,
        claims=("impact_inverted_u", "impact_product"),
        terms=("headroom", "signal", "pass@k"),
    )


def never_right() -> Question:
    """No group, no signal."""
    p = _chances(0.0, 1e-6, 1e-3)
    shares = signal_probability(p, 8)
    return Question(
        "Can RL teach what no completion gets right?",
        "Not from a reward of 0 and 1 for that prompt.",
        "If no completion is right, every group is silent and the update is 0. What is learned on other prompts may bring a "
        "first success; more pretraining, or a reward for parts of the answer, does so on purpose.",
        tuple(
            (f"success probability {x:g}: share of groups of 8 with a signal", four_digits(s))
            for x, s in zip(p.tolist(), shares, strict=True)
        ),
        lesson=9,
        claims=("impact_product",),
        terms=("group", "signal", "headroom"),
    )
