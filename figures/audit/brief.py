"""A finding in a word or two, for the cell of a table."""

from collections.abc import Callable, Mapping
from typing import Any

from figures.audit.declared import EXACT_RECIPE
from figures.audit.finding import Finding, Status
from figures.audit.invariance import INVARIANCE
from figures.audit.numbers import NUMBERS
from figures.audit.penalties import PENALTIES

# what no loss may break; losses may differ in all others
UNIVERSAL = ("climbs", *INVARIANCE, *NUMBERS, "clip on the right side", *PENALTIES)
SIGNS: dict[Status, str] = {"holds": "\N{CHECK MARK}", "choice": "\N{EN DASH}", "defect": "\N{BALLOT X}"}
MEANINGS: dict[Status, str] = {"holds": "holds", "choice": "a choice", "defect": "a defect"}
_Brief = Callable[[Finding, Mapping[str, Any]], str]


def brief(finding: Finding) -> str:
    """What was found, in at most three words or so.

    Args:
        finding: of an audit.

    Returns:
        The words; empty where the sign says it all.
    """
    if finding.status != "defect":
        return _WORDS[finding.name](finding, finding.facts) if finding.name in _WORDS else ""
    if finding.declared and finding.words.startswith("declared "):
        return f"not {finding.words.removeprefix('declared ').split(', but')[0]}"
    if finding.words.startswith("the loss raises "):
        return "an error"
    return _DEFECTS[finding.name](finding, finding.facts) if finding.name in _DEFECTS else ""


_DEFECTS: dict[str, _Brief] = {
    "climbs": lambda finding, facts: "descends" if finding.value < -1e-9 else "learns nothing",
    "padding": lambda finding, facts: f"off by {finding.value:.2g}" if finding.value < 1e300 else "NaN",
    "silent groups": lambda finding, facts: (
        f"{finding.value:.0%} of a signal" if finding.value < 10 else f"{finding.value:.2g} x a signal"
    ),
    "KL term": lambda finding, facts: "does nothing" if finding.value == 0 else "pulls away",
    "entropy bonus": lambda finding, facts: "does nothing" if finding.value == 0 else "",
}


def _mean(finding: Finding, facts: Mapping[str, Any]) -> str:
    return "exact" if facts.get("unbiased") else f"bias {facts.get('bias', finding.value):.2g}"


def _clip(finding: Finding, facts: Mapping[str, Any]) -> str:
    if not facts:
        return "no ratio"
    sizes = (("-", facts["low"]), ("+", facts["high"]))
    sides = [f"{sign}{size:.2g}".replace("0.", ".", 1) for sign, size in sizes if size < float("inf")]
    return " ".join(sides) or "no clip"


def _recipe(finding: Finding, facts: Mapping[str, Any]) -> str:
    factor = facts.get("factor", 1.0)
    times = "" if abs(factor - 1) < 5e-4 else f" x {factor:.3g}"
    name = str(facts["recipe"]).replace("population", "pop.")
    return f"{name}{times}" if facts.get("residual", 1.0) < EXACT_RECIPE else "none of ours"


def _split(finding: Finding, facts: Mapping[str, Any]) -> str:
    if facts["groups"] != "same":
        return {"sum": "sums", "changes": "changes it", "refused": "refused"}[facts["groups"]]
    return "any cut" if facts["rows"] == "same" else "groups"


def _law(finding: Finding, facts: Mapping[str, Any]) -> str:
    own, others = facts["own"], facts["others"]
    known = {("ratio", "1"): "each token", ("ratio", "ratio"): "product", ("ratio^(1/T)", "ratio^(1/T)"): "mean of row"}
    return known.get((own, others), own if own == others else f"{own}; {others}")


_WORDS: dict[str, _Brief] = {
    "silent groups": lambda finding, facts: "" if finding.status == "holds" else "no baseline",
    "clip on the right side": _clip,
    "KL term": lambda finding, facts: {"nothing": "none"}.get(facts["kl"], str(facts["kl"]).split(";")[0]),
    "entropy bonus": lambda finding, facts: "raises it" if finding.status == "holds" else "none",
    "mean update": _mean,
    "recipe": _recipe,
    "split": _split,
    "coupling": lambda finding, facts: "mixed" if facts["groups"] == "coupled" else "apart",
    "shift of rewards": lambda finding, facts: "no effect" if facts["invariant"] else "counts",
    "batch twice": lambda finding, facts: {"mean": "a mean", "sum": "a sum"}.get(facts["over"], "neither"),
    "law of the ratio": _law,
}
