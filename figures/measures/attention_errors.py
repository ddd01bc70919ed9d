"""What attention costates miss of the value gradient: E1 and E1b of a world's own reward, and E1 of a hidden readout."""

from collections.abc import Iterable, Mapping, Sequence

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from figures.measures.token_systems import with_reward
from theory.tokens.error_split import ErrorSplit, split_of_tree
from theory.tokens.forward_mode import logit_slopes
from theory.tokens.prefix_tree import grow
from theory.tokens.softmax_bounds import gini_entropy_bound

E1, E1B, READOUT = "E1", "E1b", "hidden readout"
COSTATES = (E1, E1B, READOUT)
ZERO = "E1 = 0"  # E1 of a token reward at alpha = 1: its error is the value gradient itself
_EXACT = 1e-12  # of E1b: where tier 3 is smaller, E1b is exact and its error is rounding


def attention_errors(
    world: TokenMDP,
    policy: TokenPolicy,
    alpha: float,
    site: str,
    costates: Sequence[str] = COSTATES,
    whole_prompt: bool = False,
    seed: int = 0,
) -> dict[str, ErrorSplit]:
    """The split of the value gradient for several attention costates, all from the same slopes of the logits.

    Args:
        world: the token world.
        policy: over its tokens.
        alpha: sampling-gap knob.
        site: where in the network delta is added.
        costates: some of E1, E1b and "hidden readout": E1 of a random readout in the place of the world's reward.
        whole_prompt: add delta at all positions of the prompt instead of the last one.
        seed: of the readout.

    Returns:
        Costate -> split; "E1 = 0" in the place of "E1" where that costate is exactly 0. E1b is left out where it is exact, the
        readout where the world has an end token.
    """
    slopes = logit_slopes(world, policy, alpha, site, whole_prompt)
    tree = grow(world, policy, alpha, (site,))
    splits: dict[str, ErrorSplit] = {}
    for costate in costates:
        if costate == READOUT:
            if world.end is None:  # no readout is paid after an end token
                paid = grow(with_reward(world, "readout", seed), policy, alpha, (site,))
                splits[costate] = split_of_tree(paid, slopes, alpha, site, whole_prompt)
            continue
        split = split_of_tree(tree, slopes, alpha, site, whole_prompt, own_token_averaged=costate == E1B)
        if costate == E1B and split.tiers[3].max() <= _EXACT * split.attention.norm(dim=-1).max():
            continue
        splits[ZERO if costate == E1 and not split.attention.any() else costate] = split
    return splits


def error_points(
    world: TokenMDP, policy: TokenPolicy, alpha: float, site: str, costates: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Error of every costate and its bounds, in the mean over the prompts; arguments as in `attention_errors`.

    `alone` is what gap and entropy allow with a constant of 1, `alpha min(H / (2 ln 2), 1 - e^{-H})`.
    """
    splits = attention_errors(world, policy, alpha, site, costates)
    return {costate: _point(split, alpha) for costate, split in splits.items()}


def _point(split: ErrorSplit, alpha: float) -> dict[str, float]:
    H = split.entropy.mean()
    return {
        "error": float(split.error.mean()),
        **{f"tier{i}": float(split.tiers[i].mean()) for i in (1, 2, 3)},
        "H": float(H),
        "G": float(split.gini.mean()),
        "gap": float(split.gap.mean()),
        "alone": alpha * float(gini_entropy_bound(H)),
    }


def constant_of(costate: str) -> str:
    """The costate whose constant serves: E1 has one for all alphas, also where it is 0."""
    return E1 if costate == ZERO else costate


def smallest_constants(points: Iterable[Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Costate -> the smallest constant with which gap and entropy alone bound the errors of all these points."""
    C: dict[str, float] = {}
    for each in points:
        for costate, point in each.items():
            name = constant_of(costate)
            C[name] = max(C.get(name, 0.0), point["error"] / point["alone"])
    return C
