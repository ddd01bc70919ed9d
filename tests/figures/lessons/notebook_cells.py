"""The code of a lesson's notebook, cell by cell, for tests that follow it as a student would; nothing of Jupyter is needed."""

from figures.lessons.catalogue import chosen_lessons


def code_cells(number):
    """Sources of the code cells of a lesson, without those of the exercises."""
    (lesson,) = chosen_lessons([number])
    cells = ("\n" + lesson.path.read_text()).split("\n# %%")[1:]
    heads_and_sources = [cell.split("\n", 1) for cell in cells]
    return [source for head, source in heads_and_sources if "[markdown]" not in head and "exercise" not in head]


def run_cells(number, change=lambda source: source):
    """The names that a notebook's cells leave behind."""
    names = {}
    for source in code_cells(number):
        exec(change(source), names)
    return names
