"""Questions students ask, lesson by lesson: a page of the lessons, and a list for `figures/README.md`."""

from collections.abc import Sequence

from figures.lessons.catalogue import LESSONS, Lesson
from figures.pages.rendering import render
from figures.report.question import Question


def as_page(asked: Sequence[Question], written: Sequence[Lesson]) -> str:
    """The page.

    Args:
        asked: all questions.
        written: lessons whose pages lie beside it.

    Returns:
        HTML.
    """
    pages = {lesson.number: f"{lesson.stem}.html" for lesson in written}
    return render("figures.lessons", "questions.html", questions=asked, lessons=LESSONS, pages=pages)


def as_markdown(asked: Sequence[Question]) -> str:
    """Every question with its short answer, without numbers."""
    lines = list[str]()
    for lesson in LESSONS:
        lines += [
            "",
            f"**After [lesson {lesson.number}](lessons/notebooks/{lesson.path.name}): {lesson.question}**",
            "",
        ]
        lines += [f"- {q.question} *{q.short}*" for q in asked if q.lesson == lesson.number]
    return "\n".join(lines[1:]) + "\n"


if __name__ == "__main__":
    from figures.report.questions import questions

    print(as_markdown(questions()), end="")
