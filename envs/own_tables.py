"""A user's token world from the fields of a JSON file: rewards of complete answers, or the tables of a `TokenMDP`."""

import dataclasses
from typing import Any

from envs.arguments import short, whole
from envs.tables import number_table
from envs.token_mdp import TokenMDP
from envs.world import InputError

_OF_REWARDS = ("V", "horizon", "rewards", "gamma", "prompts", "weights")
_OF_TABLES = ("V", *(field.name for field in dataclasses.fields(TokenMDP)))
_NEEDED = {"rewards": ("V", "horizon", "rewards"), "P": ("P", "r", "prompts", "starts", "horizon")}
TOKEN_FIELDS = tuple(dict.fromkeys((*_OF_REWARDS, *_OF_TABLES)))
TOKEN_FORMS = "V, horizon, rewards and any of gamma, prompts, weights, or P, r, prompts, starts, horizon and the like"
_MARKS = {"V", "rewards", "P", "r", "prompts", "starts"}  # no field of a linear-quadratic system is called so


def holds_tokens(fields: dict[str, Any]) -> bool:
    """Whether these are fields of a token world, and not of a linear-quadratic system.

    Args:
        fields: by name.

    Returns:
        True or False.
    """
    return bool(_MARKS & set(fields)) and not {"A", "B"} <= set(fields)


def token_world_of(fields: dict[str, Any], where: str = "") -> TokenMDP:
    """The token world with these fields.

    Args:
        fields: `V`, `horizon` and `rewards`: `V^horizon` numbers, nested or in one list in the order of the answers, once for
            each of the `prompts` where there are some; besides `gamma` and `weights` (`TokenMDP.from_rewards`). Or the fields
            of `TokenMDP` itself.
        where: what every error begins with.

    Returns:
        The world.

    Raises:
        InputError: a field is missing, is one too many, or does not fit; the message names it.
    """
    form = "P" if "rewards" not in fields and {"P", "r", "starts"} & set(fields) else "rewards"
    known = _OF_TABLES if form == "P" else _OF_REWARDS
    try:
        for name in [name for name in _NEEDED[form] if fields.get(name) is None]:
            raise InputError(f"{name} is missing: a token world has {TOKEN_FORMS}")
        for name in [name for name in fields if name not in known]:
            raise InputError(f"{name} does not go with {form}: leave one of the two out")
        return _of_tables(fields) if form == "P" else _of_rewards(fields)
    except (InputError, TypeError, OverflowError) as error:
        text = str(error) if isinstance(error, InputError) else f"a field is no number: {short(str(error))}"
        raise InputError(f"{where}: {text}" if where else text) from None


def _of_tables(fields: dict[str, Any]) -> TokenMDP:
    world = TokenMDP(**{name: x for name, x in fields.items() if name != "V"})
    if fields.get("V", world.V) != world.V:
        raise InputError(f"V must be the number of tokens in P, {world.V}; got {short(fields['V'])}")
    return world


def _of_rewards(fields: dict[str, Any]) -> TokenMDP:
    V, horizon = whole("V", fields["V"], 2), whole("horizon", fields["horizon"], 1)
    rewards, prompts = number_table("rewards", fields["rewards"]), fields.get("prompts")
    if prompts is not None and not (isinstance(prompts, list) and prompts):
        raise InputError(f"prompts must be a list of token sequences; got {short(prompts)}")
    answers, count = V ** min(horizon, 64), 1 if prompts is None else len(prompts)
    shape = ((count,) if prompts is not None else ()) + (V,) * min(horizon, 64)
    if tuple(rewards.shape) not in (shape, (count * answers,)):
        each = "" if prompts is None else f" for each of {count} prompts"
        raise InputError(
            f"rewards must hold V^horizon = {V}^{horizon} = {answers} numbers{each}, nested or in one list; "
            f"got shape {tuple(rewards.shape)}"
        )
    gamma = fields.get("gamma", 1.0)
    return TokenMDP.from_rewards(rewards.reshape(shape), gamma, prompts, fields.get("weights"))
