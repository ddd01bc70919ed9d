"""The one table of worlds: from it come the Gymnasium ids, `make_world`, the commands' names and envs/README.md's table."""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium

from envs import linear_quadratic, lq_variants, skills, token_tasks, tool_tasks
from envs.arguments import short
from envs.own_world import load_own_world, names_own_world
from envs.world import InputError, one_line, unknown


@dataclass(frozen=True)
class Entry:
    """One kind of world.

    Attributes:
        build: the builder, whose keywords are the world's options.
        description: one line, for envs/README.md and `costate list`.
        shell: module with the Gymnasium shells, `Env` and `VectorEnv` classes named in `_SHELLS`.
        limit: where the shells truncate an endless world unless they are told otherwise; a horizon has no such limit.
    """

    build: Callable[..., Any]
    description: str
    shell: str = "envs.token_env"
    limit: int | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the builder's keywords; a variant takes those of the scalar world and its own fields."""
        signature = inspect.signature(self.build)
        if "settings" not in signature.parameters:
            return tuple(signature.parameters)
        matrices = {field.name for field in dataclasses.fields(linear_quadratic.LinearQuadratic)}
        own = [f.name for f in dataclasses.fields(signature.return_annotation) if f.name not in matrices]
        return (*inspect.signature(linear_quadratic.scalar).parameters, *own)

    @property
    def builder_name(self) -> str:
        """The builder as "module:function", the form that Gymnasium's keywords take."""
        return f"{self.build.__module__}:{self.build.__qualname__}"


_SHELLS = {"envs.gym_env": ("WorldEnv", "WorldVectorEnv"), "envs.token_env": ("TokenEnv", "TokenVectorEnv")}


def _lq(build: Callable[..., Any], description: str, limit: int | None = None) -> Entry:
    return Entry(build, description, "envs.gym_env", limit)


WORLDS = {
    "LQScalar": _lq(linear_quadratic.scalar, "linear-quadratic, one state, slightly unstable, finite horizon"),
    "LQDoubleIntegrator": _lq(linear_quadratic.double_integrator, "linear-quadratic, a point mass, finite horizon"),
    "LQRandom": _lq(
        linear_quadratic.random_system,
        "random linear-quadratic system, endless, truncated after 200 steps (`limit`)",
        200,
    ),
    "LQUniformNoise": _lq(lq_variants.uniform_noise, "without A3: action noise whose density jumps"),
    "LQStepReward": _lq(lq_variants.step_reward, "without A1: a step in the reward"),
    "LQQuantisedAction": _lq(lq_variants.quantised_action, "without A1: actions rounded to a grid"),
    "LQStateScaledNoise": _lq(lq_variants.state_scaled_noise, "without A2: action noise that grows with the state"),
    "ChaoticMap": _lq(lq_variants.ChaoticMap, "without A6: `s' = beta sin(s) + a`, reward `cos(s_T)`"),
    "TokenLock": Entry(token_tasks.combination_lock, "one secret word opens the lock, sparse reward"),
    "TokenCopy": Entry(token_tasks.copy, "say the prompt again"),
    "TokenReverse": Entry(token_tasks.reverse, "say the prompt backwards"),
    "TokenArithmetic": Entry(token_tasks.arithmetic, "prompt (a, b), answer a + b, a + 2b, ... mod V"),
    "TokenParity": Entry(token_tasks.parity, "the last token must be the parity of those before"),
    "TokenGarnet": Entry(token_tasks.garnet, "seeded random stochastic tables, dense reward"),
    "TokenDistractor": Entry(token_tasks.distractor, "only the first token counts, paid at the end"),
    "TokenSumAndStop": Entry(
        token_tasks.sum_and_stop, "say numbers until their sum is the prompt's, then the end token: many lengths"
    ),
    "TokenOracle": Entry(
        tool_tasks.ask_oracle,
        "guess a number, or ask an oracle first: the environment speaks between the policy's tokens",
    ),
    "TokenSkills": Entry(
        skills.skills, "the prompt names a skill and two numbers (say, copy, reverse, add, multiply, square)"
    ),
}


def make_world(name: str, **options: Any) -> Any:
    """The world called `name` with its builder's options, or a user's own world (`envs.own_world`).

    Args:
        name: of a registered world, `my_world.py:build`, `package.module:build`, or `my.json`.
        options: keywords of what builds the world.

    Returns:
        The world.

    Raises:
        InputError: the name does not exist (the error says the near ones), or the builder has no such option.
    """
    if not isinstance(name, str):
        raise InputError(f"world must be a name here, 'TokenParity' for instance; got {short(name)}")
    if name.endswith(".py"):
        shown = one_line(name, 80)
        raise InputError(f"world {shown} needs the name of the function that builds it too, {shown}:build for instance")
    if names_own_world(name):
        return load_own_world(name, **options)
    if name not in WORLDS:
        raise unknown("world", name, WORLDS)
    for option in options:
        if option not in WORLDS[name].options:
            raise unknown(f"options of world {name}:", option, WORLDS[name].options)
    try:
        return WORLDS[name].build(**options)
    except TypeError as error:
        raise InputError(f"options of world {name}: {error}") from None


def gymnasium_id(name: str) -> str:
    """The id that `gymnasium.make` takes.

    Args:
        name: of a registered world.

    Returns:
        The id.
    """
    return f"costate/{name}-v0"


def register() -> None:
    """Register every world of the table with Gymnasium, and "costate/World-v0", which takes any `world`."""
    shells = "envs.own_env:make_env", "envs.own_env:make_vector_env"
    gymnasium.register(id=gymnasium_id("World"), entry_point=shells[0], vector_entry_point=shells[1])
    for name, entry in WORLDS.items():
        single, vector = _SHELLS[entry.shell]
        gymnasium.register(
            id=gymnasium_id(name),
            entry_point=f"{entry.shell}:{single}",
            vector_entry_point=f"{entry.shell}:{vector}",
            kwargs={"make_world": entry.builder_name, "limit": entry.limit},
        )
