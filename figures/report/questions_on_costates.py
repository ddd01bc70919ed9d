"""Questions after lessons 4 and 5: why E1 is 0, straight-through, the noise of E2, and what entropy does to the error."""

from agents.policies.transformer import Transformer
from envs.registry import make_world
from envs.token_mdp import TokenMDP
from figures.report.question import Question, four_digits
from theory.impact import signal
from theory.tokens.costates import expected_costates
from theory.tokens.error_split import ErrorSplit, error_split

_SITE = "embedding"


def _policy(world: TokenMDP, temperature: float = 1.0) -> Transformer:
    """The random policy of lessons 4 and 5."""
    return Transformer(world.V, length=world.longest, width=8, layers=1, heads=2, temperature=temperature)


def _parity() -> TokenMDP:
    world: TokenMDP = make_world("TokenParity", V=3, horizon=3)
    return world


def arrow_is_zero() -> Question:
    """Nothing is left to differentiate."""
    world = _parity()
    split = error_split(world, _policy(world), 1.0, _SITE)
    return Question(
        "Why is the E1 arrow zero for a token reward?",
        "Nothing is left to differentiate.",
        "E1 holds the drawn tokens constant. If the reward is paid for tokens, it is then a constant too, and its derivative "
        "is 0. E1 is not 0 where the reward is a function of the hidden state.",
        (
            ("parity of 3 tokens, length of E1", four_digits(split.attention[0].norm())),
            ("length of grad V there, which E1 misses", four_digits(split.value_gradient[0].norm())),
        ),
        lesson=4,
        claims=("attention_costate_biased", "error_split"),
        terms=("E1, E1b, E2, E3, E4, E5", "value gradient"),
    )


def straight_through() -> Question:
    """Its error depends on the world."""
    worlds = {
        "TokenParity": _parity(),
        "TokenArithmetic": make_world("TokenArithmetic", modulus=3, horizon=3),
        "TokenLock": make_world("TokenLock", V=3, horizon=3),
    }
    return Question(
        "Straight-through (E3) came close to grad V in my world. May I rely on it?",
        "Not in another world.",
        "E3 needs the slope of the return between two tokens, where no return is defined. It is right if the return is linear "
        "in each token, and nobody tells you how far yours is from that. E2 has the right mean wherever rewards are paid for "
        "tokens.",
        tuple((f"{name}: |E3 - grad V| / |grad V|", four_digits(_miss(world))) for name, world in worlds.items()),
        lesson=4,
        claims=("error_map", "score_costate_unbiased"),
        terms=("E1, E1b, E2, E3, E4, E5",),
    )


def _miss(world: TokenMDP) -> float:
    """Relative error of E3 at the prompt's last position."""
    policy = _policy(world)
    E3 = expected_costates(world, policy, "E3", _SITE)[0][0, -1]
    truth = error_split(world, policy, 1.0, _SITE).value_gradient[0]
    return float((E3 - truth).norm() / truth.norm())


def noise_of_the_score() -> Question:
    """The right mean with a wide spread."""
    world = _parity()
    of_one = float(signal(world, _policy(world), _SITE).snr[0])
    return Question(
        "E2 has the right mean. Why does training need so many completions?",
        "One completion is a noisy sample of it.",
        "The ratio of the length of grad V to the spread of one completion is the signal-to-noise ratio. With n completions it "
        "grows like the root of n. Baselines and groups make the spread smaller and leave the mean as it is.",
        (
            ("parity of 3 tokens, random policy: ratio for one completion, V as baseline", four_digits(of_one)),
            ("completions until the ratio is 1", four_digits(of_one**-2)),
        ),
        lesson=4,
        claims=("score_costate_unbiased",),
        terms=("score", "signal", "advantage"),
    )


def _split(temperature: float) -> ErrorSplit:
    world = _parity()
    return error_split(world, _policy(world, temperature), 1.0, _SITE)


def entropy_does_not_help() -> Question:
    """Three factors, and entropy is in one of them."""
    return Question(
        "Why does low entropy not help here?",
        "Sharpening makes another factor larger.",
        "The bound on the error has three factors: how far apart the slopes of the logits lie, what is at stake between the "
        "tokens, and the Gini index. A low entropy makes the third small. A low temperature also multiplies the slopes by "
        "1/tau, and at first this wins.",
        tuple(
            (f"temperature {tau:g}: entropy; error of E1; bound", _three(_split(tau))) for tau in (1.0, 0.3, 0.1, 0.03)
        ),
        lesson=5,
        claims=("entropy_knobs", "error_bound"),
        terms=("entropy", "Gini index", "tier"),
    )


def _three(split: ErrorSplit) -> str:
    return "; ".join(four_digits(x[0]) for x in (split.entropy, split.error, split.tiers[2]))


def error_falls_to_zero() -> Question:
    """So does what E1 should have found."""
    splits = {tau: _split(tau) for tau in (1.0, 0.1, 0.01)}
    return Question(
        "In the end the error falls to 0. Is E1 right for a policy that is nearly certain?",
        "No: the value gradient falls to 0 with it.",
        "A policy that always says the same word has nothing to change. Divide the error by the length of grad V before you "
        "call it small. For a token reward E1 is 0, so that it misses all of grad V at every entropy.",
        tuple(
            (
                f"temperature {tau:g}: length of grad V; error over it",
                "; ".join(map(four_digits, (size := split.value_gradient[0].norm(), split.error[0] / size))),
            )
            for tau, split in splits.items()
        ),
        lesson=5,
        claims=("entropy_knobs", "error_split"),
        terms=("entropy", "value gradient"),
    )
