"""What is known of one policy before RL: exact J, entropy, success, signals and headrooms, and the predictors made of them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.sampling.token_rewards import token_returns
from envs.corpus import Corpus
from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError
from theory.impact import Signal, best_of_headroom, kl_headroom, null_models, power_headroom, signal
from theory.tokens.completions import Completions, Words, completions, mean_entropy, words
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_size import DEFAULT_BUDGET

SIGNALS = {"costate": "|E costate|", "snr": "signal to noise", "gradient": "|grad J|"}
HEADROOMS = {"rest": "J* - J", "best_of": "pass@k - pass@1", "ball": "KL ball", "power": "power sampling"}
NULLS = {"sqrt_spread": "sqrt(P(1-P))", "spread": "P(1-P)", "J": "J", "H": "H", "entropy_law": "entropy law"}
_FACTORS = {name: f"({text})" if " - " in text else text for name, text in HEADROOMS.items()}
PRODUCTS = {f"{s} x {h}": f"{SIGNALS[s]} x {_FACTORS[h]}" for s in SIGNALS for h in HEADROOMS}
OURS = {"gradient^2": "|grad J|^2 (first order, SGD)"}
PREDICTORS = PRODUCTS | SIGNALS | HEADROOMS | NULLS | OURS
SITE = "layer1"
SMALLEST_BALL = 1e-8  # nats; a divergence has an absolute error of about 1e-16
LARGEST_POWER = 1e9


@dataclass(frozen=True)
class Definitions:
    """The free choices in the definitions.

    Attributes:
        site: where the costate is read.
        k: of pass@k.
        eps: radius of the KL ball, in nats.
        alpha: the power of power sampling from `p^alpha`.
    """

    site: str = SITE
    k: int = 8
    eps: float = 0.5
    alpha: float = 4.0

    def __post_init__(self) -> None:
        """Refuse what defines no headroom."""
        if self.k < 2:
            raise InputError(f"k must be a whole number >= 2: pass@1 - pass@1 is no headroom; got {self.k}")
        for name, least in (("eps", 0.0), ("alpha", 1.0)):
            if not least < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a finite number > {least:g}; got {getattr(self, name)!r}")
        if self.eps < SMALLEST_BALL or self.alpha > LARGEST_POWER:
            raise InputError(
                f"eps must be >= {SMALLEST_BALL:g} and alpha <= {LARGEST_POWER:g}: beyond them rounding decides; "
                f"got {self.eps!r} and {self.alpha!r}"
            )


def describe_policy(
    world: TokenMDP, policy: TokenPolicy, definitions: Definitions | None = None, budget: int = DEFAULT_BUDGET
) -> dict[str, float]:
    """All PREDICTORS of a policy, by name, and the numbers that they are made of; means over prompts by their weights.

    A product is formed prompt by prompt before the mean; |grad J|, which belongs to no prompt, multiplies the mean headroom.
    `J*` is the return of each prompt's best completion, the most that a policy over tokens can have. `P(1-P)` and its root are
    variance and standard deviation of the return, which they are for returns of 0 and 1. `entropy_law` is `e^H - 1`: the gain
    that the law `R = -a e^H + b` promises when the entropy is spent, over a.

    Raises:
        InputError: the world pays a hidden readout, is too large, or its environment speaks: headrooms are over words, which
            the policy alone must say; or a number is not finite, as it is where the policy's logits are too far apart for the
            digits of a float.
    """
    definitions = definitions or Definitions()
    if world.speech is not None:
        raise InputError("world must be one in which the policy alone speaks: here the environment speaks too")
    with torch.no_grad():
        tree = grow(world, policy, budget=budget)
        answers, spoken = completions(tree, budget), words(tree)
    weights, H = tree.levels[0].reach, mean_entropy(tree)
    at_prompts = signal(world, policy, definitions.site, budget)
    per_prompt = _per_prompt(answers, spoken, at_prompts, H, definitions)
    means = {name: float(weights @ x) for name, x in per_prompt.items()}
    means |= {"J": float(tree.J), "H": float(H), "entropy_law": float(H.exp() - 1)}
    means |= {"gradient^2": at_prompts.gradient**2, "pass_at_k": means["best_of"] + float(tree.J)}
    known = means | _cap(at_prompts, answers, weights) | _by_skill(world, (answers.p * answers.returns).sum(-1))
    undefined = [name for name, number in known.items() if not math.isfinite(number)]
    if undefined:
        raise InputError(
            f"policy has no finite {', '.join(undefined[:3])}: its weights are too large or its logits too far apart"
        )
    return known


def _per_prompt(
    answers: Completions, spoken: Words, at_prompts: Signal, H: Tensor, definitions: Definitions
) -> dict[str, Tensor]:
    """Signals, headrooms, their products, and the spread of the return, one number for each prompt.

    What a policy could reach is a matter of words and their mean returns; pass@k and the spread are those of returns as drawn.
    """
    P, R, costate = answers.p, answers.returns, at_prompts.costate
    nulls = null_models(P, R, H.expand_as(costate))
    J, best = (P * R).sum(-1), spoken.returns.amax(-1)
    balls = [kl_headroom(p, r, definitions.eps) for p, r in zip(spoken.p, spoken.returns, strict=True)]
    signals = {"costate": costate, "snr": at_prompts.snr, "gradient": torch.full_like(costate, at_prompts.gradient)}
    headrooms = {
        "rest": best - J,
        "best_of": best_of_headroom(P, R, definitions.k),
        "ball": torch.tensor(balls).to(P),
        "power": power_headroom(*_each_once(spoken), definitions.alpha),
    }
    products = {f"{s} x {h}": signals[s] * headrooms[h] for s in signals for h in headrooms}
    return {**signals, **headrooms, "sqrt_spread": nulls["sqrt(P(1-P))"], "spread": nulls["P(1-P)"], **products}


def _each_once(spoken: Words) -> tuple[Tensor, Tensor]:
    """Probabilities and mean returns, (prompts, words), of words that end at their end token, each once.

    A power of a sum is not the sum of powers, so rows that differ only after their end must be one.
    """
    once = ((spoken.tokens * ~spoken.span).sum(-1) == 0).all(0)
    return (spoken.log_law * spoken.span).sum(-1).exp()[:, once], spoken.returns[:, once]


def _cap(at_prompts: Signal, answers: Completions, weights: Tensor) -> dict[str, float]:
    """The Cauchy-Schwarz cap: how much of it is used; and the signal over sd(R) alone, without the Fisher matrix."""
    V = (answers.p * answers.returns).sum(-1, keepdim=True)
    sd = (answers.p * (answers.returns - V) ** 2).sum(-1).sqrt()
    over_sd = at_prompts.costate / sd.clamp(min=torch.finfo(sd.dtype).tiny)
    means = {"alignment": at_prompts.alignment, "cap": at_prompts.cap, "sd": sd}
    return {name: float(weights @ x) for name, x in means.items()} | {
        "largest_alignment": float(at_prompts.alignment.max()),
        "smallest_alignment": float(at_prompts.alignment.min()),
        "over_sd": float(over_sd.max()),
    }


def _by_skill(world: TokenMDP, V: Tensor) -> dict[str, float]:
    """Mean return, by weight, of the prompts that share their first token."""
    first, weights = world.prompts[:, 0].to(V.device), world.weights.to(V)
    share = {int(name): weights * (first == name) for name in first.unique()}
    return {f"skill {name}": float(w @ V / w.sum()) for name, w in share.items() if float(w.sum()) > 0}


def reader_return(corpus: Corpus) -> float:
    """Expected return of a policy that has learned the corpus perfectly, on the prompts that the corpus shows."""
    world = corpus.world
    words = torch.cartesian_prod(*[torch.arange(world.V)] * world.horizon).reshape(-1, world.horizon)
    prompts = torch.arange(len(world.prompts))
    rows = prompts.repeat_interleave(len(words)), words.repeat(len(prompts), 1)
    R = token_returns(world, *rows).reshape(len(prompts), -1)
    weights = world.weights * corpus.shown
    return float(weights @ (corpus.chances(words) * R).sum(-1) / weights.sum())
