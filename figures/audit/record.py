"""The record of an audit: plain numbers and words, so that it can be written, read, tabled and drawn."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from figures.audit.finding import Example, Finding


@dataclass(frozen=True)
class Shown:
    """What a page draws of a loss, beside its findings; lists of plain numbers.

    Attributes:
        batch: the weights of one batch, beside those of the nearest recipe.
        recipe: what the nearest recipe is called; empty where there is none.
        log_ratio: log(pi / pi_old) along which slopes were read; empty for a loss without a ratio.
        slopes: by the sign of A the slopes there, over that at ratio 1.
        bias: by group size G the share of the mean update that does not lie along the gradient.
        kappa: by group size the scale of the mean update against the gradient.
        place: name of the world in which the bias was taken.
    """

    batch: Example
    recipe: str = ""
    log_ratio: list[float] = field(default_factory=list)
    slopes: dict[str, list[float]] = field(default_factory=dict)
    bias: dict[str, float] = field(default_factory=dict)
    kappa: dict[str, float] = field(default_factory=dict)
    place: str = ""


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        name: of the loss.
        findings: one for each property.
        seconds: how long it took.
        shown: what a page draws; None where nothing was measured for it.
        version: of the library that the loss is from; empty for a function of one's own.
    """

    name: str
    findings: tuple[Finding, ...]
    seconds: float
    shown: Shown | None = None
    version: str = ""

    @property
    def ok(self) -> bool:
        """Whether no universal property is broken and all that was declared holds."""
        return not self.defects

    @property
    def defects(self) -> tuple[Finding, ...]:
        """The findings that are defects."""
        return tuple(f for f in self.findings if f.status == "defect")

    def __getitem__(self, name: str) -> Finding:
        """The finding of this name."""
        return next(f for f in self.findings if f.name == name)

    def frame(self) -> pd.DataFrame:
        """One row for each property.

        Returns:
            Columns `loss`, `property`, `status`, `value`, `words` and `declared`.
        """
        rows = [(self.name, f.name, f.status, f.value, f.words, f.declared) for f in self.findings]
        return pd.DataFrame(rows, columns=["loss", "property", "status", "value", "words", "declared"])

    def __str__(self) -> str:
        """The table in words, and the smallest batch that shows each defect."""
        version = f" ({self.version})" if self.version else ""
        head = (
            f"{self.name}{version}: {len(self.defects)} of {len(self.findings)} properties broken, {self.seconds:.1f} s"
        )
        return "\n".join([head, *(str(f if f.status == "defect" else replace(f, example=None)) for f in self.findings)])

    def to_json(self) -> str:
        """The record as JSON; NaN and infinity are written as Python's json does."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Audit":
        """The record that `to_json` wrote.

        Args:
            text: the JSON.

        Returns:
            The record.
        """
        given: dict[str, Any] = json.loads(text)
        findings = tuple(Finding(**{**f, "example": _example(f["example"])}) for f in given.pop("findings"))
        shown = given.pop("shown")
        drawn = None if shown is None else Shown(**{**shown, "batch": Example(**shown["batch"])})
        return cls(findings=findings, shown=drawn, **given)


def _example(given: dict[str, Any] | None) -> Example | None:
    return None if given is None else Example(**given)
