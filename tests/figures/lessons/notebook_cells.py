"""The code of a lesson's notebook, cell by cell, for tests that follow it as a student would."""

from figures.lessons.catalogue import chosen_lessons
from figures.lessons.running import read_lesson


def code_cells(number):
    """Sources of the code cells of a lesson, without those of the exercises."""
    (lesson,) = chosen_lessons([number])
    return [
        cell.source
        for cell in read_lesson(lesson.path).cells
        if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", [])
    ]


def run_cells(number, change=lambda source: source):
    """The names that a notebook's cells leave behind."""
    names = {}
    for source in code_cells(number):
        exec(change(source), names)
    return names
