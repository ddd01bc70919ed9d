"""How many prefixes a tree has, and what they need in memory: refused before anything is allocated."""

from decimal import Decimal
from itertools import accumulate

from envs.policy import TokenPolicy
from envs.token_mdp import TokenMDP
from envs.world import InputError

DEFAULT_BUDGET = 8 * 2**30
_NUMBERS_PER_WIDTH = 48  # kept by autograd per node, layer and unit of width; the tests compare it with a measurement


def node_count(world: TokenMDP) -> int:
    """Number of prefixes that need logits: `prompts * sum_{k<H} V^k`.

    Args:
        world: the token world.

    Returns:
        The count, for all prompts together.
    """
    of_one_prompt: int = sum(world.V**k for k in range(world.horizon))
    return len(world.prompts) * of_one_prompt


def bytes_per_node(world: TokenMDP, policy: TokenPolicy) -> int:
    """Upper estimate of what autograd keeps of one node, in bytes.

    Args:
        world: the token world.
        policy: over its tokens; its `width`, `layers` or `numbers_per_position` are read where it has them.

    Returns:
        Bytes.
    """
    if hasattr(policy, "numbers_per_position"):  # it runs whole contexts again
        own: int = policy.numbers_per_position * world.longest
    else:
        own = _NUMBERS_PER_WIDTH * getattr(policy, "width", 1) * getattr(policy, "layers", 1)
    return 8 * (own + 2 * world.V**2 + world.V * world.S)


def check_size(world: TokenMDP, policy: TokenPolicy, roots: int, branching: bool, budget: int) -> None:
    """Refuse a tree that needs more than `budget` bytes, naming its prefixes, its bytes and what would fit.

    Args:
        world: the token world.
        policy: over its tokens.
        roots: number of roots, copies included.
        branching: whether every token is followed; else one for each node.
        budget: bytes that are allowed.

    Raises:
        InputError: the tree needs more than the budget.
    """
    each, steps = bytes_per_node(world, policy), world.horizon + (world.readout is not None)
    sizes = list(accumulate(roots * (world.V**k if branching else 1) for k in range(steps)))
    if sizes[-1] * each <= budget:
        return
    fitting = sum(size * each <= budget for size in sizes) - (world.readout is not None)
    count, needed = Decimal(sizes[-1]), Decimal(sizes[-1] * each) / 2**30  # beyond what a float can hold
    remedy = f"horizon={fitting}" if fitting > 0 else "no horizon"
    if not branching:
        remedy = f"{budget // (each * steps)} samples in all"
    raise InputError(
        f"horizon={world.horizon} with V={world.V} and {roots} {'prompts' if branching else 'samples'} makes {count:.6g} "
        f"prefixes, about {needed:.3g} GiB of {budget / 2**30:.3g} allowed; {remedy} would fit"
    )
