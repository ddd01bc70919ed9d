"""What an audit finds: one property of one loss, in words and as a number, with the smallest batch that shows a defect."""

from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from figures.audit.rows import Rows

Status = Literal["holds", "choice", "defect"]


@dataclass(frozen=True)
class Example:
    """A batch that shows a defect.

    Attributes:
        rewards: returns of its rows.
        mask: which steps count.
        group: numbers of the groups.
        found: the weights of the update that the loss gives.
        expected: those that it should give.
    """

    rewards: list[float]
    mask: list[list[bool]]
    group: list[int]
    found: list[list[float]]
    expected: list[list[float]]

    def __str__(self) -> str:
        """One line for each row; equal rows that follow each other share one."""
        lines = list[str]()
        for i, group in enumerate(self.group):
            found, expected = (
                " ".join(_shown(x, on) for x, on in zip(row, self.mask[i], strict=True))
                for row in (self.found[i], self.expected[i])
            )
            lines.append(f"  {group:>5} {self.rewards[i]:>8.4g}  {found:<38} {expected}")
        counted = [(line, len(list(same))) for line, same in groupby(lines)]
        head = f"  {'group':>5} {'return':>8}  {'weights found':<38} weights expected"
        return "\n".join([head, *(f"{line}  ({n} rows)" if n > 1 else line for line, n in counted)])


def _shown(weight: float, counts: bool) -> str:
    """A weight; in brackets where no token is, a point where it is 0 there."""
    if counts:
        return f"{weight:9.4g}"
    return f"{'.' if weight == 0 else f'({weight:.3g})':>9}"


@dataclass(frozen=True)
class Finding:
    """One property.

    Attributes:
        name: of the property.
        status: "holds"; "choice", where losses may differ; or "defect".
        words: what was found, in one line.
        value: the number that was judged; NaN where there is none.
        declared: what the user declared of it; None where nothing was.
        example: the smallest batch that shows a defect.
        facts: further numbers by name.
    """

    name: str
    status: Status
    words: str
    value: float = float("nan")
    declared: str | None = None
    example: Example | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The line of a report, and the example below it."""
        line = f"{self.status:<6}  {self.name}: {self.words}"
        return line if self.example is None else f"{line}\n{self.example}"

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings, for JSON."""
        return asdict(self)


def example(rows: Rows, found: Float[Tensor, "rows T"], expected: Float[Tensor, "rows T"], worst: int = 2) -> Example:
    """The rows of a batch where two tables of weights differ most, whole groups if these are small.

    Args:
        rows: the batch.
        found: the weights that a loss gives.
        expected: those that it should give.
        worst: how many groups are shown.

    Returns:
        The example.
    """
    gap = (found - expected).nan_to_num(nan=torch.inf).abs().amax(1)
    scores = {g: float(gap[rows.group == g].max()) for g in rows.group.unique().tolist()}
    shown = sorted(sorted(scores, key=lambda g: -scores[g])[:worst])
    index = torch.cat([(rows.group == g).nonzero()[:, 0] for g in shown])
    some = rows.take(index)
    return Example(
        some.returns.tolist(), some.mask.tolist(), some.group.tolist(), found[index].tolist(), expected[index].tolist()
    )


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference relative to the largest expected entry; infinite where an entry is NaN or infinite."""
    gap = (found - expected).abs().max() if found.isfinite().all() else torch.tensor(torch.inf)
    return float(gap / expected.abs().max().clamp(min=1e-300)) if gap > 0 else 0.0
