"""A folder of results without a run: verdicts on real claims from made-up rows, and a small picture of each."""

from dataclasses import replace

import pandas as pd
import pytest

from figures.drawing.frame import add_frame, picture
from figures.drawing.style import house_style, new_figure
from figures.harness.judge import NOT_JUDGED, Run, judge
from figures.harness.registry import CLAIM_NAMES, load_claim
from figures.harness.rows import at_least, at_most, equals
from figures.report.report import write_report

RUN = Run("quick", "cpu", 0, [{}], [], {"torch": "2"}, "abc")
PLAIN = tuple(name for name in CLAIM_NAMES if load_claim(name).advice is None)
MAKERS = {"equals": equals, "at most": at_most, "at least": at_least}


def verdict(name, relation="at most", wrong=(), **changes):
    """A verdict from one row for each part: as documented, but for the parts `wrong`."""
    claim, rows = load_claim(name), []
    for part in claim.parts:
        fails = (part.documented == "fails") != (part.name in wrong)
        off = {"equals": 3.0, "at most": 3.0, "at least": -3.0}[relation]
        labels = {part.every: "a"} if part.every else {}
        rows += MAKERS[relation](part.name, off if fails else 1.0, 1.0, labels=labels)
    return replace(judge(claim, pd.DataFrame(rows)), run=RUN, **changes)


def made_wrong(name):
    """A claim that is documented to hold and fails."""
    own = next(part.name for part in load_claim(name).parts if part.role == "claim")
    return verdict(name, wrong=(own,))


def not_judged(name):
    """A claim on a subset of its settings that does not tell."""
    changes = {"outcome": NOT_JUDGED, "as_documented": False, "subset": True}
    return verdict(name, reason="not judged on this subset: no control is left", **changes)


def page_of(verdicts, out):
    """The page of these verdicts, without the sentences whose numbers come from records: there are none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("figures.report.sections.NUMBERS", {})
        return write_report(verdicts, drawn_folder(out, verdicts))


def drawn_folder(out, verdicts):
    """`out` with a figure and rows for every verdict."""
    with house_style():
        figure = new_figure(4)
        left, right = figure.subplots(1, 2)
        left.plot([1, 2, 3], [1, 4, 9], "o", label="measured")
        right.set(xscale="log", xlabel="size", title="panels")
        left.legend()
        add_frame(figure, "Words above the panels", "Words below the panels.")
        content = picture(figure, "svg")
    for name in (verdict.claim for verdict in verdicts):
        for folder in ("figures", "rows"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        (out / "figures" / f"{name}.svg").write_bytes(content)
        (out / "rows" / f"{name}.csv").write_text("part,measured\n")
    return out
