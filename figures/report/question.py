"""One entry of the report's list "is this a bug?", and the example that several of them share."""

from dataclasses import dataclass
from typing import Any

import torch

from agents.policies.transformer import Transformer
from envs.token_mdp import TokenMDP
from figures.measures.token_systems import build_policy, build_world
from theory.tokens.completions import Completions, completions
from theory.tokens.prefix_tree import grow

GROUP = 4  # rows of a group, where a question does not say otherwise


@dataclass(frozen=True)
class Question:
    """A question that people ask of a training run, or after a lesson.

    Attributes:
        question: as it is asked.
        short: the answer in a few words.
        answer: the reason.
        numbers: lines (what, value) that show it.
        lesson: number of the lesson that explains it.
        claims: that judge it (`costate check CLAIM`).
        terms: of the glossary, that the answer uses.
        run: whether it is asked of a training run ("is this a bug?"), else it is asked after the lesson.
    """

    question: str
    short: str
    answer: str
    numbers: tuple[tuple[str, str], ...]
    lesson: int
    claims: tuple[str, ...]
    terms: tuple[str, ...]
    run: bool = False


@dataclass(frozen=True)
class Example:
    """A world with an end token, a small random policy in it, and all completions of its prompts."""

    world: TokenMDP
    policy: Transformer
    completions: Completions

    @classmethod
    def build(cls) -> "Example":
        """The world with completions of one to four tokens."""
        world = build_world("stop (2,4)")
        policy = build_policy(world, seed=1)
        return cls(world, policy, all_completions(world, policy))


def all_completions(world: TokenMDP, policy: Transformer) -> Completions:
    """All completions of all prompts, as constants."""
    with torch.no_grad():
        return completions(grow(world, policy))


def four_digits(x: Any) -> str:
    """A number with four digits; one that is 0 up to rounding is shown as 0."""
    value = float(x)
    return "0" if abs(value) < 1e-15 else f"{value:.4g}"
