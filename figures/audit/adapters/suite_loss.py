"""The recipes of this suite."""

from typing import Any

from agents.recipes.learners import LEARNERS, build_learner
from envs.world import unknown
from figures.audit.contract import Subject
from figures.audit.recipes import learner_loss

PACKAGE, TRIED = "", ""
OPTIONS = {
    "std": ("population", "sample", "none"),
    "length": ("row sum", "row mean", "group token mean", "token mean"),
    "drop_truncated": (False, True),
}
_WITHOUT_WEIGHTS = (
    "ppo",
    "svg",
    "vgl",
    "gumbel",
    "soft_grpo",
    "value_gradient",
)  # a critic, paths, or log-densities of noise


def names() -> list[str]:
    """The recipes whose loss is a function of log-probabilities and rewards alone."""
    return [name for name in LEARNERS if name not in _WITHOUT_WEIGHTS]


def build(name: str, **options: Any) -> Subject:
    """A recipe by name.

    Args:
        name: as in `LEARNERS`.
        options: of its builder, and of every recipe.

    Returns:
        The loss.

    Raises:
        InputError: the name or an option is unknown.
    """
    if name not in names():
        raise unknown("recipe", name, names())
    return learner_loss(build_learner(name, **options))
