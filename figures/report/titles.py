"""What a verdict means in one true sentence, and the words of its outcome and of its comparisons."""

from collections.abc import Mapping

from figures.harness.judge import NOT_JUDGED, Verdict
from figures.report.found import FOUND

RELATIONS: Mapping[str, str] = {"==": "equals", "<=": "at most", ">=": "at least", "report": "shown beside"}
_CAME_OUT: Mapping[str, str] = {"undecided": "is undecided", NOT_JUDGED: "was not judged on these settings"}


def title(verdict: Verdict) -> str:
    """One sentence that is true of what came out, without a full stop.

    Args:
        verdict: where it is the documented one the sentence is the finding; else it is about the statement, in quotes.
    """
    if verdict.as_documented and verdict.claim in FOUND:
        return FOUND[verdict.claim].says.removesuffix(".")
    if verdict.outcome == "holds":
        return verdict.statement
    return f'The statement "{verdict.statement}" {_CAME_OUT.get(verdict.outcome, verdict.outcome)}'


def heading(verdict: Verdict, which: str = "", told: bool = True) -> str:
    """What stands above a figure.

    Args:
        verdict: of the claim that is drawn.
        which: what the rows are restricted to; "" for all.
        told: whether the verdict stands there. Of a claim that fails as documented it is the finding.
    """
    if told and verdict.outcome == "fails" and verdict.as_documented:
        return ": ".join(filter(None, (title(verdict), which)))
    said = ", ".join(filter(None, (which, verdict.outcome + (" in all" if which else "") if told else "")))
    quoted = verdict.statement if verdict.outcome == "holds" or not told else f'"{verdict.statement}"'
    return quoted + (": " if said else "") + said


def more(verdict: Verdict) -> str:
    """What more there is to know of the finding; "" where the verdict is not the documented one."""
    return FOUND[verdict.claim].more if verdict.as_documented and verdict.claim in FOUND else ""


def relation(row: Mapping[str, object]) -> str:
    """How a comparison was judged, in words that stand between what was measured and its target."""
    return RELATIONS.get(str(row.get("relation")), "beside")
