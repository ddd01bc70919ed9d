"""A token world of several skills: the prompt names one and gives two numbers, and decides the whole answer."""

from collections.abc import Callable, Sequence

from envs.arguments import whole
from envs.token_mdp import TokenMDP
from envs.token_tasks import check_tables, sequence_task
from envs.world import InputError, unknown

# name -> token k of the answer to (a, b), modulo the number of numbers; about from easy to hard for a small network
SKILLS: dict[str, Callable[[int, int, int], int]] = {
    "say": lambda a, b, k: k,
    "copy": lambda a, b, k: (a, b)[k % 2],
    "reverse": lambda a, b, k: (b, a)[k % 2],
    "add": lambda a, b, k: a + (k + 1) * b,
    "multiply": lambda a, b, k: a * b + k,
    "square": lambda a, b, k: (a + k) ** 2 + b,
}


def skills(
    modulus: int = 4,
    horizon: int = 2,
    names: str | Sequence[str] = "say,copy,add",
    sparse: bool = True,
    gamma: float = 1.0,
) -> TokenMDP:
    """Prompts (skill, a, b) for every named skill and all a, b below `modulus`; answers of `horizon` numbers.

    Tokens 0 ... modulus - 1 are numbers, the token modulus + i is the name of skill i. Reward and optimal return are
    those of `sequence_task`: 1 at the end for a wholly right answer, or 1/H for every right token where `sparse` is
    false.

    Args:
        modulus: how many numbers there are.
        horizon: length of the answers.
        names: of the skills, in a list or separated by commas.
        sparse: whether only a wholly right answer is paid.
        gamma: discount per token.

    Returns:
        The world.

    Raises:
        InputError: a skill does not exist or is named twice, a size is below 1, or the tables would be too large.
    """
    for size, value in (("modulus", modulus), ("horizon", horizon)):
        whole(size, value, 1)
    chosen = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in SKILLS:
            raise unknown("skill", name, SKILLS)
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"names must be different skills, at least one; got {', '.join(chosen) or 'none'}")
    states, sizes = len(chosen) * modulus**2 * (horizon if sparse else 1) + 1, {"modulus": modulus, "horizon": horizon}
    check_tables(modulus + len(chosen), states, horizon, **sizes)
    asked = [(i, a, b) for i in range(len(chosen)) for a in range(modulus) for b in range(modulus)]
    answers = [[SKILLS[chosen[i]](a, b, k) % modulus for k in range(horizon)] for i, a, b in asked]
    prompts = [(modulus + i, a, b) for i, a, b in asked]
    return sequence_task(modulus + len(chosen), prompts, answers, sparse, gamma)
