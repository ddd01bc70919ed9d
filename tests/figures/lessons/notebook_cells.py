"""The code of a lesson's notebook, cell by cell, for tests that follow it as a student would; nothing of Jupyter is needed."""

from figures.lessons.catalogue import chosen_lessons


def _cells(number):
    """Head and source of every cell of a lesson."""
    (lesson,) = chosen_lessons([number])
    cells = ("\n" + lesson.path.read_text()).split("\n# %%")[1:]
    return [cell.split("\n", 1) for cell in cells]


def code_cells(number):
    """Sources of the code cells of a lesson, without those of the exercises."""
    return [source for head, source in _cells(number) if "[markdown]" not in head and "exercise" not in head]


def exercise_cells(number):
    """Sources of the cells in which a student's answer is checked."""
    return [source for head, source in _cells(number) if "exercise" in head]


def run_cells(number, change=lambda source: source):
    """The names that a notebook's cells leave behind."""
    names = {}
    for source in code_cells(number):
        exec(change(source), names)
    return names
