"""`gymnasium.make("costate/World-v0", world=...)`: the shells around any world, a user's own among them."""

from typing import Any

from envs.gym_env import WorldEnv, WorldVectorEnv
from envs.shell import Shell, build
from envs.token_env import TokenEnv, TokenVectorEnv
from envs.token_mdp import TokenMDP
from envs.vector_shell import VectorShell

_OF_SHELL = ("render_mode", "limit", "clock", "bound", "max_episode_steps", "autoreset_mode")


def make_env(world: Any, **options: Any) -> Shell:
    """One copy of a world.

    Args:
        world: a world, the name of a registered one, `my_world.py:build`, `package.module:build`, or `my.json` (a system's
            matrices or a token world's tables).
        options: of the shell (`envs.shell.Shell`), and keywords of what builds the world.

    Returns:
        A `TokenEnv` or a `WorldEnv`.

    Raises:
        InputError: there is no such world, or an option is out of its range.
    """
    built, own = _built(world, options)
    return (TokenEnv if isinstance(built, TokenMDP) else WorldEnv)(built, **own)


def make_vector_env(world: Any, num_envs: int = 1, **options: Any) -> VectorShell:
    """`num_envs` copies of a world.

    Args:
        world: as in `make_env`.
        num_envs: number of copies.
        options: of the shell (`envs.vector_shell.VectorShell`), and keywords of what builds the world.

    Returns:
        A `TokenVectorEnv` or a `WorldVectorEnv`.

    Raises:
        InputError: there is no such world, or an option is out of its range.
    """
    built, own = _built(world, options)
    return (TokenVectorEnv if isinstance(built, TokenMDP) else WorldVectorEnv)(built, num_envs, **own)


def _built(world: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The world, and the shell's own options."""
    own = {name: options.pop(name) for name in _OF_SHELL if name in options}
    return build(world, options), own
