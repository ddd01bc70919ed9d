"""What people ask about critic-free training runs ("is this a bug?"), and students after a lesson, with exact numbers."""

from functools import cache

from figures.report import (
    questions_on_costates,
    questions_on_groups,
    questions_on_paths,
    questions_on_ratios,
    questions_on_updates,
)
from figures.report.question import Example, Question


@cache
def questions() -> tuple[Question, ...]:
    """All questions, lesson by lesson, and last those of a training run. Their numbers are computed here and need no record."""
    return (*_after_lessons(), *_of_a_run())


def _after_lessons() -> tuple[Question, ...]:
    return (
        questions_on_paths.one_costate_is_far_off(),
        questions_on_paths.detached_state(),
        questions_on_paths.which_of_the_two(),
        questions_on_paths.jumps_between_states(),
        questions_on_paths.backprop_in_chaos(),
        questions_on_paths.clipped_norm(),
        questions_on_costates.arrow_is_zero(),
        questions_on_costates.straight_through(),
        questions_on_costates.noise_of_the_score(),
        questions_on_costates.entropy_does_not_help(),
        questions_on_costates.error_falls_to_zero(),
        questions_on_updates.kappa_is_below_one(),
        questions_on_updates.adam_divides(),
        questions_on_updates.wrong_objective(),
        questions_on_updates.nearly_solved(),
        questions_on_updates.all_normalisers_learn(),
        questions_on_updates.one_length(),
        questions_on_updates.best_checkpoint(),
        questions_on_updates.never_right(),
    )


def _of_a_run() -> tuple[Question, ...]:
    example = Example.build()
    return (
        questions_on_groups.loss_is_zero(example),
        questions_on_groups.reward_does_not_move(),
        questions_on_groups.groups_agree(),
        questions_on_groups.std_blows_up(),
        questions_on_ratios.accumulation(),
        questions_on_ratios.clip_never_acts(example),
        questions_on_ratios.bfloat16(example),
        questions_on_ratios.negative_kl(example),
    )
