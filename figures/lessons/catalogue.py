"""The lessons: which there are, how long each takes a class, and what it needs."""

from dataclasses import dataclass
from pathlib import Path

from envs.world import InputError

NOTEBOOKS = Path(__file__).resolve().parent / "notebooks"


@dataclass(frozen=True)
class Lesson:
    """One notebook.

    Attributes:
        number: its place, which its exercises begin with.
        name: of the file, without the number.
        question: that it answers.
        minutes: that a class needs, exercises included.
        needs: numbers of the lessons before it.
        claims: that judge what it shows (`costate check CLAIM`).
        in_class: whether it belongs to the class of 60 minutes.
    """

    number: int
    name: str
    question: str
    minutes: int
    needs: tuple[int, ...]
    claims: tuple[str, ...]
    in_class: bool = False

    @property
    def stem(self) -> str:
        """Name of its files."""
        return f"{self.number}_{self.name}"

    @property
    def path(self) -> Path:
        """The notebook, as a Python file with cells."""
        return NOTEBOOKS / f"{self.stem}.py"


LESSONS = (
    Lesson(1, "one_path", "What does one path know?", 12, (), ("costate_mean", "assumption_removed"), in_class=True),
    Lesson(2, "bellman", "Where is Bellman?", 10, (1,), ("bellman_costate",), in_class=True),
    Lesson(3, "score_or_path", "REINFORCE or backprop?", 15, (1,), ("estimator_variance", "chaos")),
    Lesson(
        4, "backward_passes", "A token has no derivative: which backward pass?", 14, (2,), ("error_map",), in_class=True
    ),
    Lesson(5, "entropy", "Does low entropy help?", 12, (4,), ("entropy_knobs", "error_bound")),
    Lesson(
        6,
        "kappa",
        "From REINFORCE to GRPO: what is kappa?",
        12,
        (4,),
        ("actor_update_is_value_gradient",),
        in_class=True,
    ),
    Lesson(7, "objective", "What does GRPO climb?", 15, (6,), ("grpo_arcsine",)),
    Lesson(
        8, "normalisers", "Which normaliser bends the gradient?", 12, (6,), ("normalisation_breaks",), in_class=True
    ),
    Lesson(9, "impact", "When does RL pay?", 25, (7,), ("impact_inverted_u", "impact_product")),
)


def chosen_lessons(numbers: list[int]) -> list[Lesson]:
    """The lessons of these numbers, all where there is none; InputError for a number that is none of theirs."""
    unknown = [number for number in numbers if number not in {lesson.number for lesson in LESSONS}]
    if unknown:
        raise InputError(f"lesson {unknown[0]} does not exist: give numbers from 1 to {len(LESSONS)}")
    return [lesson for lesson in LESSONS if not numbers or lesson.number in numbers]
