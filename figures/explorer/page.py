"""The explorer as one file: template, style and scripts, with the numbers of a pretraining run where there are some."""

import json
from pathlib import Path
from typing import NamedTuple

from figures.drawing.colours import COLOURS
from figures.explorer.study import CLAIM, study_numbers
from figures.harness.code import version
from figures.harness.records import write_atomically
from figures.pages.rendering import render

SCRIPTS = (
    *("numbers", "plot", "panel", "address", "groups", "tokens", "tokens_panel"),
    *("linear", "chaos", "checkpoints", "main"),
)  # in the order in which they need each other
_JS = Path(__file__).parent / "js"


class Panel(NamedTuple):
    """What a panel says before anything is moved.

    Attributes:
        link: its name among the links.
        heading: what it shows, as a sentence.
        text: what is seen, in two or three sentences.
    """

    link: str
    heading: str
    text: str


PANELS = {
    "groups": Panel(
        "Groups",
        "GRPO follows the gradient, kappa times as fast",
        "A prompt is answered G times, and each answer is right with probability P. On average every recipe pushes along "
        "the gradient of P; kappa is the factor. Dividing by the group's spread makes rare successes count more, and a group "
        "whose answers are all right or all wrong pushes nothing.",
    ),
    "tokens": Panel(
        "Tokens",
        "Over tokens, the loss carries the value gradient and attention alone does not",
        "A policy writes two tokens, each one of three, and is paid for the answer. The arrows are derivatives with respect to "
        "the embedding of the prompt: grad V is the truth; the others are what backprop gives when it may follow only some of "
        "the paths. With real tokens (alpha = 1) E2, the loss of GRPO, lies on grad V, and the paths through attention (E1, "
        "E1b) do not.",
    ),
    "linear": Panel(
        "Paths",
        "One costate is noisy; the mean of many is the value gradient",
        "In a world with smooth dynamics and additive noise, backprop along one path gives one costate: a dot. The dots "
        "scatter around the dashed line, which is the value gradient. Cut the path through the policy, and their mean "
        "leaves the line.",
    ),
    "chaos": Panel(
        "Chaos",
        "In a chaotic world backprop is still right on average, and useless",
        "Paths from one start are stretched by a factor at every step, and so is the derivative that backprop carries along "
        "them. Its spread grows exponentially with the number of steps; that of the score function does not.",
    ),
    "checkpoints": Panel(
        "Checkpoints",
        "RL pays where there is a signal to follow and something left to win",
        "A small network is pretrained on a corpus, and RL with a fixed budget is started from each of its checkpoints. "
        "All numbers are exact answers for real networks, from the records of a run; thin lines are single trajectories.",
    ),
}


def explorer_page(runs: Path) -> str:
    """The page.

    Args:
        runs: folder of results whose pretraining run is shown; the page says how to make one where there is none.

    Returns:
        HTML that needs no other file and no network.

    Raises:
        InputError: the records there are too few or incomplete.
    """
    study = study_numbers(runs)
    missing = (
        f"There are no records of a pretraining run in {runs}. `costate check {CLAIM}` makes them; after it run "
        "`costate explore` again."
    )
    return render(
        "figures.explorer",
        "page.html",
        panels=PANELS,
        colours=COLOURS,
        version=version(),
        missing="" if study else missing,
        source=f"records in {runs} ({study['kind']})" if study else "",
        data=_inline(json.dumps({"checkpoints": study})),
        scripts=_inline("\n".join((_JS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)),
    )


def _inline(text: str) -> str:
    """Text inside a script element, which nothing but its own end tag may end."""
    return text.replace("</", "<\\/")


def write_explorer(path: Path, runs: Path) -> Path:
    """Write the page.

    Args:
        path: of the file.
        runs: as in `explorer_page`.

    Returns:
        The path.
    """
    write_atomically(path, explorer_page(runs))
    return path
