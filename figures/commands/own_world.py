"""A user's own world on the command line, as the name under which claims take it."""

from pathlib import Path

from envs.linear_quadratic import LinearQuadratic
from envs.own_tables import holds_tokens
from envs.own_world import load_own_world, marked, names_own_world, read_fields, system_text
from envs.token_mdp import TokenMDP
from envs.world import InputError, one_line
from figures.harness.claim import Claim, OwnKind
from figures.measures.linear_systems import checked_system, read_system
from figures.measures.token_systems import check_world


def own_world(spec: str, what: str = "--world") -> tuple[OwnKind, str]:
    """Kind and name of the world that a user's file holds or builds, checked before anything is run.

    Args:
        spec: the JSON file of a linear-quadratic system or a token world, `my_world.py:build` or `package.module:build`.
        what: the option that named it; every error begins with it.

    Raises:
        InputError: there is no such world, or no claim takes one of its kind.
    """
    if ":" not in spec and not holds_tokens(read_fields(Path(spec), what)):
        return "system", read_system(Path(spec), what)
    world = load_own_world(spec, what)
    if isinstance(world, TokenMDP):
        return "tokens", marked(spec, what)
    if type(world) is not LinearQuadratic:
        kind = type(world).__name__
        raise InputError(
            f"{what} {one_line(spec, 200)} must build a TokenMDP or a LinearQuadratic for a claim; got {kind}"
        )
    return "system", checked_system(system_text(world), f"{what} {one_line(spec, 200)}")


def own_value(field: str, text: str) -> str:
    """The value of a setting's field: a user's file becomes the name of its world, all else stays as it is.

    Raises InputError for a world that cannot be read or has no known name: before anything is run.
    """
    wanted = {"world": "tokens", "system": "system"}.get(field)
    if wanted is None or text.startswith("{") or "#" in text:
        return text
    if not names_own_world(text):
        if wanted == "tokens":
            check_world(text)
        return text
    kind, name = own_world(text, f"--set {field}=")
    if kind != wanted:
        raise InputError(f"--set {field}={one_line(text, 80)}: this claim takes no world of that kind")
    return name


def takers(claims: list[Claim], own: tuple[OwnKind, str]) -> list[str]:
    """The claims that take this kind of world; InputError where none does."""
    names = [claim.name for claim in claims if claim.own_settings is not None and claim.own_kind == own[0]]
    if not names:
        raise InputError("--world is taken by none of the claims that were named: leave it out, or check all claims")
    return names
