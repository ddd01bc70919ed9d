"""What a user may declare of a loss, and how it is judged against what was found."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from envs.arguments import short
from envs.world import InputError, unknown
from figures.audit.finding import Finding

_CLOSE = 1e-7
EXACT_RECIPE = 1e-9  # what is left of the weights beside those of a recipe that the loss is


class Declaration(NamedTuple):
    """One keyword.

    Attributes:
        about: name of the finding that it is judged by.
        text: what it says, for help.
        holds: of the declared value and the finding's facts: None where it holds, else why not.
    """

    about: str
    text: str
    holds: Callable[[Any, Mapping[str, Any]], str | None]


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name} must be a number; got {short(value)}")
    return float(value)


def _unbiased(value: Any, facts: Mapping[str, Any]) -> str | None:
    if not isinstance(value, bool):
        raise InputError(f"unbiased must be True or False; got {short(value)}")
    return None if value == facts["unbiased"] else f"the mean's bias is {facts['bias']:.3g}"


def _kappa(value: Any, facts: Mapping[str, Any]) -> str | None:
    wanted = _number("kappa", value)
    worst = max(facts["kappas"], key=lambda x: abs(x - wanted))
    return None if abs(worst - wanted) <= _CLOSE * max(1.0, abs(wanted)) else f"kappa is {worst:.7g}"


def _split(value: Any, facts: Mapping[str, Any]) -> str | None:
    if value not in ("groups", "rows"):
        raise InputError(f"split must be groups or rows, what a micro-batch may hold; got {value!r}")
    said = {
        "changes": f"micro-batches of {value} change the update",
        "refused": f"micro-batches of {value} are refused",
    }
    return said.get(facts[value])


def _clip(value: Any, facts: Mapping[str, Any]) -> str | None:
    bounds = (math.inf, math.inf) if value in (None, "none") else value
    if isinstance(bounds, str) or not isinstance(bounds, Sequence) or len(bounds) != 2:
        raise InputError(f"clip must be two numbers, below and above 1, or none; got {value!r}")
    found = facts.get("low", math.inf), facts.get("high", math.inf)
    wanted = [_number("clip", b) for b in bounds]
    same = all(a == b or abs(a - b) <= 1e-6 for a, b in zip(found, wanted, strict=True))
    return None if same else f"rows are silent {found[0]:.6g} below and {found[1]:.6g} above 1"


def _starts(key: str) -> Callable[[Any, Mapping[str, Any]], str | None]:
    def holds(value: Any, facts: Mapping[str, Any]) -> str | None:
        found = str(facts.get(key))
        return None if found.replace(" ", "").startswith(str(value).replace(" ", "")) else f"it is {found}"

    return holds


def _equal(key: str) -> Callable[[Any, Mapping[str, Any]], str | None]:
    return lambda value, facts: None if str(facts.get(key)) == str(value) else f"it is {facts.get(key)}"


def _recipe(value: Any, facts: Mapping[str, Any]) -> str | None:
    if facts.get("recipe") == str(value) and facts["residual"] < EXACT_RECIPE:
        return None
    nearest = (
        ""
        if facts.get("residual", 0.0) < EXACT_RECIPE
        else f"none of this suite's, off by {facts['residual']:.2g} from "
    )
    return f"it is {nearest}{facts.get('recipe')}"


def _near(key: str) -> Callable[[Any, Mapping[str, Any]], str | None]:
    def holds(value: Any, facts: Mapping[str, Any]) -> str | None:
        found, wanted = facts.get(key), _number(key, value)
        same = found is not None and abs(float(found) - wanted) <= _CLOSE * max(1.0, abs(wanted))
        return None if same else f"it is {found}"

    return holds


DECLARATIONS = {
    "unbiased": Declaration("mean update", "the mean is kappa times the gradient, at every prompt", _unbiased),
    "kappa": Declaration("mean update", "and kappa is this number", _kappa),
    "recipe": Declaration("recipe", '"advantage; normaliser", as this suite calls them', _recipe),
    "factor": Declaration("recipe", "how many times the recipe's weights", _near("factor")),
    "split": Declaration(
        "split", "micro-batches of whole groups (groups) or of single rows (rows) change nothing", _split
    ),
    "groups": Declaration("coupling", "over groups the loss is a mean, a sum, or coupled", _equal("groups")),
    "shift": Declaration("shift of rewards", "whether a constant in the rewards changes nothing", _equal("invariant")),
    "twice": Declaration("batch twice", "over rows the loss is a mean, or a sum", _equal("over")),
    "clip": Declaration("clip on the right side", "how far below and above 1 the ratio may go; none", _clip),
    "own": Declaration("law of the ratio", "how a token's slope goes with its ratio: ratio, 1", _equal("own")),
    "others": Declaration("law of the ratio", "how it goes with another token's ratio", _equal("others")),
    "kl": Declaration(
        "KL term", "the divergence that is lowered, KL(pi||ref) or KL(ref||pi), or nothing", _starts("kl")
    ),
    "beta": Declaration("KL term", "and its weight", _near("beta")),
}


def check_declared(declared: Mapping[str, Any], properties: Sequence[str]) -> None:
    """Refuse declarations that are unknown, or that concern a property which is not looked at.

    Args:
        declared: values by name.
        properties: names of those that are looked at.

    Raises:
        InputError: as said.
    """
    for name in declared:
        if name not in DECLARATIONS:
            raise unknown("declaration", name, list(DECLARATIONS))
        if DECLARATIONS[name].about not in properties:
            raise InputError(f"{name} is declared: properties must hold {DECLARATIONS[name].about!r}")


def judge(findings: Sequence[Finding], declared: Mapping[str, Any]) -> list[Finding]:
    """Findings whose status follows from what was declared of them.

    Args:
        findings: of a description.
        declared: values by name.

    Returns:
        The findings; a declaration that fails makes a defect of a choice.
    """
    by_name = {f.name: f for f in findings}
    for name, value in declared.items():
        declaration = DECLARATIONS[name]
        found = by_name[declaration.about]
        if not found.facts and found.status == "defect":  # the loss raised an error, which says enough
            continue
        why = declaration.holds(value, found.facts)
        said = f"{found.declared}, {name}={value}" if found.declared else f"{name}={value}"
        if why is None:
            status = found.status if found.status == "defect" else "holds"
            if name == "kl" and str(value) == "nothing" and found.facts.get("kl", "").startswith("nothing"):
                status = "holds"
            by_name[found.name] = replace(found, declared=said, status=status)
        else:
            words = f"declared {name}={value}, but {why}. {found.words}"
            by_name[found.name] = replace(found, declared=said, status="defect", words=words)
    return list(by_name.values())
