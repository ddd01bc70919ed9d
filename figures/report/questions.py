"""What people ask about critic-free training runs, "is this a bug?", each answered with exact numbers of small worlds."""

from functools import cache

from figures.report import questions_on_groups, questions_on_ratios
from figures.report.question import Example, Question


@cache
def questions() -> tuple[Question, ...]:
    """All questions, in the order of the report. Their numbers are computed here and need no record."""
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
