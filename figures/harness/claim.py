"""What a claim is: a statement, the parts that it is judged by, and the functions that measure and draw it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pandas as pd
import torch

from figures.harness.rows import Row
from figures.harness.statistics import Outcome

OwnKind = Literal["system", "tokens"]
Preset = Literal["tiny", "quick", "full"]
PRESETS: tuple[Preset, ...] = get_args(Preset)  # from the smallest to the largest
Role = Literal["claim", "control"]

ASSUMPTIONS = {
    "A1": "The rollout is differentiable: transition, reward and policy mean have no steps, roundings or thresholds.",
    "A2": "The noise is additive: a = mu(s) + xi, and the law of xi depends neither on the state nor on the parameters.",
    "A3": "The noise density is continuous and vanishes at the edge of its support (for the score function only).",
    "A4": "Values are finite, and derivative and expectation may be exchanged; endless worlds need gamma rho(Phi)^2 < 1.",
    "A5": "The derivative is total: it follows every path - dynamics, policy input, noise scale, attention to the past.",
    "A6": "The dynamics are tame: the derivative's variance stays bounded in the horizon (for use, not for unbiasedness).",
}


def knob(default: Any) -> Any:
    """A field of a setting that a user may change, and that none of the presets does.

    A point's random stream is named by its setting. A knob at its default does not enter that name
    (`figures.harness.records.Point.stream`), so a claim that gets a new one keeps its numbers.
    """
    return field(default=default, metadata={"knob": True})


@dataclass(frozen=True)
class Part:
    """A family of rows that is judged together.

    Attributes:
        name: the `part` of its rows.
        role: "claim" for what the claim says, "control" for what shows that the test can see an error, or a remedy.
        documented: the outcome that is expected. A negative control is a part whose documented outcome is "fails".
        every: a column; a part documented to fail must then fail for every value of it, so that no control rests on one
            easy case.
    """

    name: str
    role: Role
    documented: Outcome
    every: str | None = None


@dataclass(frozen=True)
class Claim:
    """One claim of the paper: what it says, where it must hold, where it must fail, how it is measured and drawn.

    Attributes:
        name: the file's name, as `costate check NAME` takes it.
        statement, formula (LaTeX), source: what is claimed, and where.
        assumptions: keys of `ASSUMPTIONS` that it uses.
        must_hold, must_fail: where it must hold and which controls must fail, in words.
        how_to_read: two sentences under the figure.
        parts: the families of rows that decide it.
        settings: preset -> the points, frozen dataclasses that say everything about a run.
        measure: (setting, generator, device) -> the rows of a point (`figures.harness.rows`).
        draw: (rows, figure) -> None; draws the rows with the exact answer dashed.
        own_settings: (preset, name) -> the same points for a user's own world, where the claim takes one.
        own_kind: which: a linear-quadratic system, whose name is its JSON text, or a token world, whose name is a marked one
            (`envs.own_world`).
        height: of the figure, in inches.
        figure_for_each: a column; `costate sweep` draws one more figure for each of its values.
        advice: rows -> what follows for a practitioner, computed from the rows, for the report.
        study: name of the study whose points the claim is judged on; "" for its own points.
        derive: rows of the study -> the claim's rows.
    """

    name: str
    statement: str
    formula: str
    source: str
    assumptions: tuple[str, ...]
    must_hold: str
    must_fail: str
    how_to_read: str
    parts: tuple[Part, ...]
    settings: Callable[[Preset], list[Any]]
    measure: Callable[[Any, torch.Generator, str], list[Row]]
    draw: Callable[[pd.DataFrame, Any], None]
    own_settings: Callable[[Preset, str], list[Any]] | None = None
    own_kind: OwnKind = "system"
    height: float = 5.5
    figure_for_each: str | None = None
    advice: Callable[[pd.DataFrame], str] | None = None
    study: str = ""
    derive: Callable[[pd.DataFrame], list[Row]] | None = None

    @property
    def documented(self) -> Outcome:
        """The outcome that is expected: "fails" where one of the claim's own parts is documented to fail."""
        failing = any(part.role == "claim" and part.documented == "fails" for part in self.parts)
        return "fails" if failing else "holds"

    @property
    def recorded_as(self) -> str:
        """Name under which the records are stored: the study's, if there is one, else the claim's."""
        return self.study or self.name

    def rows_from(self, stored: pd.DataFrame) -> pd.DataFrame:
        """Comparison rows, from the rows of the records."""
        return stored if self.derive is None else pd.DataFrame(self.derive(stored))
