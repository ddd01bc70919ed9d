"""The named recipes: advantage x surrogate x normaliser, with an optional KL term and entropy bonus.

Each builder's docstring states the exact mean of its first update (rows drawn from the policy itself, one prompt, no KL term)
and how it departs from its paper. P is the success probability of a binary reward, G the group size, |o| a row's length.
`theory.groups.expected_update` computes that mean for every recipe, with any rewards, in a world that can be enumerated.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from agents.recipes.advantages import (
    batch_baseline,
    full_return,
    leave_one_out,
    leave_one_out_to_go,
    mean_baseline,
    mean_normalised,
    reward_to_go,
    standardised,
    whitened,
)
from agents.recipes.best_of import best_of, best_of_standardised
from agents.recipes.learner import Learner as Learner
from agents.recipes.learner import Pathwise
from agents.recipes.learner import Penalty as Penalty
from agents.recipes.relaxed_tokens import RelaxedTokens
from agents.recipes.selections import SELECTIONS
from agents.recipes.soft_thoughts import SoftThoughts
from agents.recipes.surrogates import (
    NORMALISERS,
    clipped,
    group_token_mean,
    row_mean,
    sequence_clipped,
    token_mean,
    truncated_importance,
)
from agents.recipes.value_gradient_learning import WIDTH, ValueGradientLearning
from envs.world import InputError, unknown

Build = TypeVar("Build", bound=Callable[..., Learner])
LEARNERS: dict[str, Callable[..., Learner]] = {}  # name -> builder, in the order of this file
# options of every recipe: fields of `Learner`
_COMMON = {
    "drop_truncated": False,
    "count_dropped": False,
    "compare_dropped": True,
    "count_environment": False,
    "off_policy_delta": math.inf,
    "use_rewards": True,
}


def recipe(build: Build) -> Build:
    """Make a builder known under its own name, to `build_learner` and to `costate train`.

    Args:
        build: the builder.

    Returns:
        The builder itself.
    """
    LEARNERS[build.__name__] = build
    return build


@recipe
def reinforce(baseline: bool = False, to_go: bool = False) -> Learner:
    """REINFORCE: `A = R`, or the reward-to-go where `to_go`.

    With a baseline the mean over all other rows is subtracted (with `to_go`, over the group's other rows). Mean: grad J.
    Departs from Williams (1992) in the baseline, which is a leave-one-out mean and not a running mean.

    Args:
        baseline: whether a leave-one-out mean is subtracted.
        to_go: whether rewards before the token are left out.

    Returns:
        The learner.
    """
    advantages = {
        (False, False): full_return,
        (True, False): batch_baseline,
        (False, True): reward_to_go,
        (True, True): leave_one_out_to_go,
    }
    return Learner("reinforce", advantages[baseline, to_go], least=2 if baseline and to_go else 1)


@recipe
def rloo() -> Learner:
    """RLOO (arXiv:2402.14740): `A = R - mean over the group's other rows`, on whole rows as in its paper. Mean: grad J.

    Returns:
        The learner.
    """
    return Learner("rloo", leave_one_out, least=2)


@recipe
def dr_grpo(clip: float = 0.2) -> Learner:
    """Dr. GRPO (arXiv:2503.20783): `A = R - mean`, sum over tokens. Mean: (G-1)/G grad J.

    Its authors' code divides by a constant number of tokens; here the constant is 1.

    Args:
        clip: epsilon of PPO's clip.

    Returns:
        The learner.

    Raises:
        InputError: clip is negative.
    """
    return Learner("dr_grpo", mean_baseline, clipped(clip, clip), least=2)


@recipe
def grpo(std: str = "population", length: str = "row mean", clip: float = 0.2, eps: float = 0.0) -> Learner:
    """GRPO (arXiv:2402.03300): `A = (R - mean) / (std + eps)`, PPO's clip, the factor 1/|o|.

    Mean for binary rewards: with `length="row sum"` it is `c_G(P) grad J`; with the other lengths it is `c_G(P) / L` times
    grad J where all rows have one length L, and no multiple of grad J where their lengths differ. The KL term of its paper is
    an option of every learner (k3 in the loss).

    Args:
        std: "population", "sample" (the mean is multiplied by sqrt((G-1)/G)) or "none" (the mean is (G-1)/G grad J).
        length: the normaliser; "row mean" is GRPO's at sequence level, "group token mean" at token level.
        clip: epsilon of PPO's clip.
        eps: added to the std; 1e-4 in common code.

    Returns:
        The learner.

    Raises:
        InputError: a name is unknown, or clip or eps is negative.
    """
    if std not in ("population", "sample", "none"):
        raise InputError(f"std must be population, sample or none; got {std!r}")
    if length not in NORMALISERS:
        raise InputError(f"length must be one of {', '.join(NORMALISERS)}; got {length!r}")
    scaled = mean_baseline if std == "none" else standardised(std == "population", eps)
    return Learner("grpo", scaled, clipped(clip, clip), NORMALISERS[length], least=2)


@recipe
def maxrl(length: str = "row sum", clip: float = 0.2) -> Learner:
    """MaxRL (arXiv:2602.02710): `A = (R - mean) / mean`, 0 where no row of the group is paid; sum over tokens.

    Mean for binary rewards, with `length="row sum"`: `(1 - (1-P)^{G-1}) / P grad P`. It climbs `-sum_{k<G} (1-P)^k / k`, a sum
    of pass@k with weights 1/k, which tends to the likelihood `log P` of a success as G grows; at G = 2 it is grad J.
    A trainer takes no world in which returns may be negative. Departs from its paper: PPO's clip, which acts from the
    second step on.

    Args:
        length: the normaliser.
        clip: epsilon of PPO's clip.

    Returns:
        The learner.

    Raises:
        InputError: the length is unknown, or clip is negative.
    """
    if length not in NORMALISERS:
        raise InputError(f"length must be one of {', '.join(NORMALISERS)}; got {length!r}")
    return Learner("maxrl", mean_normalised, clipped(clip, clip), NORMALISERS[length], least=2)


@recipe
def dapo(low: float = 0.2, high: float = 0.28, drop_truncated: bool = False, dynamic_sampling: str = "none") -> Learner:
    """DAPO (arXiv:2503.14476): GRPO's advantage, clip-higher, mean over the group's tokens.

    Mean: GRPO's at token level, u for a group; the wider clip acts from the second step on. With dynamic sampling by the
    accuracy of a batch of N groups, the groups with successes and failures alone are in the update, and its mean is
    `(1 - (1 - s)^N) E[u | kept]`, s the probability that a group is kept. This has the direction of the paper's,
    `E[u | kept]`, which draws until the batch is full. Where the reward is the accuracy itself, u is 0 in the other groups, and
    the mean is `(1 - (1 - s)^N) / s` times that without. Departs from its paper: a batch is not filled up, and truncated
    rows are kept or left out, not penalised by length. Where they are left out, the mean over tokens is one over the tokens
    that are kept; their rewards stay in mean and std. `Learner.count_dropped` and `Learner.compare_dropped` change either.

    Args:
        low: how far below 1 the ratio may go.
        high: how far above.
        drop_truncated: whether rows that were cut are left out of the loss.
        dynamic_sampling: "none", "accuracy" (needs that signal of the world) or "reward" (by returns that differ).

    Returns:
        The learner.

    Raises:
        InputError: dynamic_sampling is unknown, or low or high is negative.
    """
    if dynamic_sampling not in SELECTIONS:
        raise InputError(f"dynamic_sampling must be one of {', '.join(SELECTIONS)}; got {dynamic_sampling!r}")
    built = Learner("dapo", standardised(), clipped(low, high), group_token_mean, least=2)
    return replace(built, drop_truncated=drop_truncated, select=SELECTIONS[dynamic_sampling])


@recipe
def reinforce_pp(baseline: bool = False, clip: float = 0.2) -> Learner:
    """REINFORCE++ (arXiv:2501.03262): advantages whitened over the tokens of the whole batch, PPO's clip, mean over its tokens.

    The advantage is the reward-to-go, or with `baseline` the return less the mean of the group. Mean: it depends on the
    batch, `expected_update(..., prompts=...)`; in a large batch it tends to grad J over the standard deviation and the
    mean length, times (G-1)/G with a baseline, as the subtracted constant adds nothing in the mean. Departs from its
    paper: a KL term is an option (k1 in the reward there; with a baseline k2 in the loss).

    Args:
        baseline: whether the mean of the row's group is subtracted.
        clip: epsilon of PPO's clip.

    Returns:
        The learner.

    Raises:
        InputError: clip is negative.
    """
    return Learner("reinforce_pp", whitened(baseline), clipped(clip, clip), token_mean, least=2 if baseline else 1)


@recipe
def gspo(low: float = 3e-4, high: float = 4e-4) -> Learner:
    """GSPO (arXiv:2507.18071): GRPO's advantage, one ratio for each row, the geometric mean of its tokens' ratios.

    Mean: at the first step that of GRPO with the factor 1/|o|, which comes from the geometric mean.

    Args:
        low: how far below 1 the row's ratio may go.
        high: how far above.

    Returns:
        The learner.

    Raises:
        InputError: low or high is negative.
    """
    return Learner("gspo", standardised(), sequence_clipped(low, high), row_mean, least=2)


@recipe
def cispo(high: float = 0.28) -> Learner:
    """CISPO (arXiv:2506.13585): GRPO's advantage, a truncated importance weight as a constant, group token mean.

    Mean: at the first step that of DAPO. The weight has no lower bound, as in the paper's runs.

    Args:
        high: how far above 1 the weight may go.

    Returns:
        The learner.

    Raises:
        InputError: high is negative.
    """
    return Learner("cispo", standardised(), truncated_importance(high), group_token_mean, least=2)


@recipe
def ppo(lam: float = 0.95, clip: float = 0.2, critic: str = "learned") -> Learner:
    """PPO (arXiv:1707.06347) with GAE on the values of a critic, "exact" or "learned"; sum over tokens.

    Mean: grad J for the exact V at every lam, and for any V at lam = 1. For lam < 1 a learned V biases it, and so does
    the exact V of the world's reward where a KL penalty is in the reward (the trainer refuses that). Departs from
    common code: advantages are not standardised over the batch, and the value loss is not clipped.

    Args:
        lam: lambda of GAE.
        clip: epsilon of PPO's clip.
        critic: "exact" or "learned".

    Returns:
        The learner.

    Raises:
        InputError: the critic is unknown, lam lies outside [0, 1], or clip is negative.
    """
    if critic not in ("exact", "learned"):
        raise InputError(f"critic must be exact or learned; got {critic!r}")
    if not 0 <= lam <= 1:
        raise InputError(f"lam must lie in [0, 1]; got {lam!r}")
    return Learner("ppo", None, clipped(clip, clip), critic=critic, lam=lam)


@recipe
def pkpo(k: int = 2, baseline: str = "loo-1") -> Learner:
    """PKPO (arXiv:2505.15201): every row is paid what it adds to the best of k rows of its group, a sum over tokens.

    Mean: grad max@k, `max@k = E max(R_1 ... R_k)`, for any rewards and any group of k rows or more; grad pass@k =
    `k (1 - P)^{k-1} grad P` where rewards are 0 and 1. It is no multiple of grad J, unless there is one prompt and rewards are
    binary. Departs from its paper: its "loo" baseline is weighed like the row's own term (every weight has the same mean).

    Args:
        k: of max@k.
        baseline: "none", "loo" or "loo-1", as in `agents.recipes.best_of.best_of`.

    Returns:
        The learner.

    Raises:
        InputError: as there.
    """
    return Learner("pkpo", best_of(k, baseline), least=k + (baseline == "loo"), best_of=k)


@recipe
def pass_k_training(k: int = 2, length: str = "row sum", clip: float = 0.2) -> Learner:
    """Pass@k training (arXiv:2508.10751) by its analytical advantage: best of k, standardised over the subsets of a group.

    Mean for binary rewards, with `length="row sum"`: `c(P) grad P`,
    `c = E[(1 - M_{j+1}) / S_{j+1} - (1 - M_j - C(G-1-j, k-1) / C(G-1, k-1)) / S_j]`, j ~ Bin(G-1, P) successes among the other
    rows, `M_j = 1 - C(G-j, k) / C(G, k)`, `S_j = sqrt(M_j (1 - M_j))`, and 0 for a quotient by 0. Undivided by S it would be
    `(1/k - 1/G) grad pass@k`; as G grows it tends to `(1/k) grad 2 arcsin sqrt(pass@k)`. So it climbs pass@k at every prompt
    but weighs the prompts otherwise, as GRPO's std does in J. At G = k it is 0, at G = k + 1 `k^{-3/2} grad pass@k`. Departs
    from its paper: no length factor by default, and rewards other than 0 and 1 are taken.

    Args:
        k: of pass@k.
        length: the normaliser.
        clip: epsilon of PPO's clip.

    Returns:
        The learner.

    Raises:
        InputError: k < 1, the length is unknown, or clip is negative.
    """
    if length not in NORMALISERS:
        raise InputError(f"length must be one of {', '.join(NORMALISERS)}; got {length!r}")
    advantage = best_of_standardised(k)
    return Learner("pass_k_training", advantage, clipped(clip, clip), NORMALISERS[length], least=max(2, k), best_of=k)


@recipe
def svg(horizon: int = 1, model_error: float = 0.0, model_seed: int = 0, imagined: bool = False) -> Learner:
    """SVG (Heess et al. 2015), in linear-quadratic worlds: sampled paths are differentiated, and an exact critic ends them.

    Mean: grad J with the true model, for every horizon; 0 is the slope of Q at the sampled action, 1 one step and then that of
    V, from the world's horizon on it is the pathwise gradient without a critic. A wrong model biases it, and `imagined` paths
    twice as much as real ones in the symmetric part. Departs from its paper: the critic is exact and not learned, the model
    is not learned, and there is no replay of old paths.

    Args:
        horizon: sampled steps before the critic.
        model_error: relative error of the model's matrices A and B.
        model_seed: of the direction of that error.
        imagined: whether the paths are drawn in the model.

    Returns:
        The learner.

    Raises:
        InputError: horizon or model_error is negative.
    """
    return Learner("svg", full_return, pathwise=Pathwise(horizon, model_error, model_seed, imagined))


@recipe
def vgl(lam: float = 0.7, Omega: str = "identity", critic: str = "linear", width: int = WIDTH) -> Learner:
    """VGL(lam) (Fairbank and Alonso 2012), in worlds of commands: a learned field of value gradients G~ is the critic.

    Mean: at a fixed critic the pathwise gradient with `lam G' + (1 - lam) G~`, G' the targets (`theory.continuous.
    lambda_gradient`, for a linear G~); grad J at lam = 1 whatever the critic, or where G~ is the value gradient. Departs from
    its paper: the actor is a policy of its own and not greedy on the critic, and both move by Adam. With "commands" the
    critic's error counts only where it can change a command; for lam < 1 the rest of the field, which is never fitted, then
    enters the targets.

    Args:
        lam: lambda.
        Omega: weight of the critic's error, "identity", or "commands" for `B B'`.
        critic: what G~ is: "linear", `X_t s + c_t`, free at every time, or "network", a tanh network of state and time.
        width: components of each of a network's two hidden layers.

    Returns:
        The learner.

    Raises:
        InputError: lam lies outside [0, 1], Omega or critic is unknown, or width is < 1 or given for a linear critic.
    """
    how = ValueGradientLearning(lam, Omega, critic, width)
    return Learner("vgl", full_return, critic="learned", pathwise=how)


@recipe
def gumbel(tau: float = 0.5) -> Learner:
    """Gumbel-softmax (arXiv:1611.01144, arXiv:1611.00712): rollouts of relaxed tokens are differentiated, in token worlds.

    Every token is `y = softmax((log p + g) / tau)`, p the policy's law, g Gumbel noise; the policy reads it, and the world is
    moved and pays, as by a mixture of tokens. Mean: grad J_tau, `J_tau` the expected return of the relaxed rollout. Its bias
    against grad J is of order tau; with one token and a table of rewards R it is of order tau^2, zeta(2) = 1.645,
    `-tau^2 zeta(2) grad R'(diag p - p p')p` (`theory.tokens.gumbel_limits`). The variance grows as 1 / tau. The log's J and
    cosine are those of sampled tokens. Departs from these papers: tau is not annealed, and the whole rollout is relaxed.

    Args:
        tau: temperature of the relaxed tokens.

    Returns:
        The learner.

    Raises:
        InputError: tau is no finite number > 0.
    """
    return Learner("gumbel", full_return, pathwise=RelaxedTokens(tau))


@recipe
def soft_grpo(thoughts: int = 2, tau: float = 0.5, clip: float = 0.2, official: bool = False) -> Learner:
    """SofT-GRPO (arXiv:2511.06411), in token worlds: relaxed tokens with Gumbel noise are fed on, then the answer is sampled.

    GRPO's advantage with the population's std, a sum over steps, PPO's clip; a thought's ratio is that of its noise densities.
    Mean for binary rewards: `c_G(P) grad P`, P the success probability with thoughts. With `official` it takes the form of the
    paper's code (zz1358m/SofT-GRPO-master, commit 2b9d8ec; see `agents.recipes.soft_thoughts.SoftThoughts`), whose mean is in
    general no multiple of grad P. Departs from the paper: the number of thoughts is fixed, the answer's tokens are drawn from
    the whole softmax, and the KL term is an option.

    Args:
        thoughts: relaxed tokens before the answer.
        tau: temperature of the relaxed tokens, 0.1 in the paper's code.
        clip: epsilon of PPO's clip.
        official: whether the code's cut to likely tokens, clamp and mean are used.

    Returns:
        The learner.

    Raises:
        InputError: thoughts < 1, tau is no finite number > 0, or clip is negative.
    """
    soft = SoftThoughts(thoughts, tau, official)
    return Learner("soft_grpo", standardised(), clipped(clip, clip), least=2, soft=soft)


@recipe
def value_gradient() -> Learner:
    """Ascent on the exact gradient, the noise-free limit of all unbiased recipes; nothing is sampled.

    Returns:
        The learner.
    """
    return Learner("value_gradient", full_return, exact=True)


def build_learner(
    name: str, kl_reward: Penalty | None = None, kl_loss: Penalty | None = None, entropy: float = 0.0, **options: Any
) -> Learner:
    """The recipe called `name`.

    Args:
        name: a key of `LEARNERS`.
        kl_reward: a KL penalty in the reward.
        kl_loss: a KL penalty in the loss.
        entropy: coefficient of an entropy bonus.
        options: keywords of the recipe's builder, and `drop_truncated`, `count_dropped`, `compare_dropped`,
            `count_environment`, `off_policy_delta` and `use_rewards`, which every `Learner` has.

    Returns:
        The learner.

    Raises:
        InputError: the learner is unknown (the message gives near names), it does not have the option, or the bonus is
            negative, or the learner refuses the penalty in the reward or `off_policy_delta`.
    """
    if name not in LEARNERS:
        raise unknown("learner", name, LEARNERS)
    own = inspect.signature(LEARNERS[name]).parameters
    known = {option: parameter.default for option, parameter in own.items()} | _COMMON
    for option, value in options.items():
        if option not in known:
            raise unknown(f"learner {name!r}: option", option, known)
        kind = type(known[option])
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise InputError(f"option {option} of learner {name!r} must be a {kind.__name__}; got {value!r}")
    if not 0 <= entropy < math.inf:
        raise InputError(f"entropy must be a finite number >= 0, the bonus's coefficient; got {entropy!r}")
    common: dict[str, Any] = {option: options[option] for option in _COMMON if option in options}
    built = LEARNERS[name](**{option: value for option, value in options.items() if option in own})
    return replace(built, kl_reward=kl_reward, kl_loss=kl_loss, entropy=entropy, **common)
