"""What a claim is, how its rows become a verdict, and the registry of claims."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from envs.world import InputError, unknown
from figures.harness.statistics import RELATIONS, Outcome, PartResult, judge_part

CLAIM_NAMES = (
    "costate_mean",
    "costate_covariance",
    "costate_recursion",
    "score_equals_pathwise",
    "estimator_variance",
    "assumption_removed",
    "chaos",
    "attention_path",
    "bellman_costate",
    "score_costate_unbiased",
    "attention_costate_biased",
    "error_split",
    "error_bound",
    "entropy_knobs",
    "attention_transport",
    "relaxed_costates",
    "error_map",
    "large_vocabulary",
    "transformer_in_lq",
    "actor_update_is_value_gradient",
    "normalisation_breaks",
    "grpo_arcsine",
    "u_statistic",
    "off_policy_steps",
    "kl_estimators",
    "batch_split",
    "critic_or_not",
    "impact_inverted_u",
    "impact_product",
    "signal_cap",
    "what_moves_the_peak",
)
CLAIM_PARTS = {
    "continuous": (
        "costate_mean",
        "costate_covariance",
        "costate_recursion",
        "score_equals_pathwise",
        "estimator_variance",
        "assumption_removed",
        "chaos",
        "attention_path",
        "transformer_in_lq",
    ),
    "tokens": (
        "bellman_costate",
        "score_costate_unbiased",
        "attention_costate_biased",
        "error_split",
        "error_bound",
        "entropy_knobs",
        "attention_transport",
        "relaxed_costates",
        "error_map",
        "large_vocabulary",
    ),
    "critic_free": (
        "actor_update_is_value_gradient",
        "normalisation_breaks",
        "grpo_arcsine",
        "u_statistic",
        "off_policy_steps",
        "kl_estimators",
        "batch_split",
        "critic_or_not",
    ),
    "impact": (
        "impact_inverted_u",
        "impact_product",
        "signal_cap",
        "what_moves_the_peak",
    ),
}
STUDIES = {"impact_runs": "figures.impact.runs"}

ASSUMPTIONS = {
    "A1": "The rollout is differentiable: transition, reward and policy mean have no steps, roundings or thresholds.",
    "A2": "The noise is additive: a = mu(s) + xi, and the law of xi depends neither on the state nor on the parameters.",
    "A3": "The noise density is continuous and vanishes at the edge of its support (for the score function only).",
    "A4": "Values are finite, and derivative and expectation may be exchanged; endless worlds need gamma rho(Phi)^2 < 1.",
    "A5": "The derivative is total: it follows every path - dynamics, policy input, noise scale, attention to the past.",
    "A6": "The dynamics are tame: the derivative's variance stays bounded in the horizon (for use, not for unbiasedness).",
}

Preset = Literal["quick", "full"]
Role = Literal["claim", "control"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper: what it says, where it must hold, where it must fail, how it is measured and drawn.

    `settings(preset)` lists the points, frozen dataclasses that say everything about a run; `measure(setting, rng, device)`
    returns its comparison rows; `parts` names each family of rows as (role, documented outcome); `draw(rows, figure)`
    draws them. A negative control is a part whose documented outcome is *fails*. A claim on a `study` (a module of
    figures.studies) shares its settings and measurements with others, and `derive` makes its rows from the study's.
    """

    name: str
    statement: str
    formula: str
    source: str
    assumptions: tuple[str, ...]
    must_hold: str
    must_fail: str
    how_to_read: str
    parts: dict[str, tuple[Role, Outcome]]
    settings: Callable[[Preset], list[Any]]
    measure: Callable[[Any, torch.Generator, str], list[Row]]
    draw: Callable[[pd.DataFrame, Any], None]
    expected_outcome: Outcome = "holds"
    seconds: tuple[float, float] = (10.0, 600.0)  # of one core; quick measured, full scaled up from it
    cost: Callable[[Any], float] | None = None  # seconds of one core of a setting, where they differ much
    own_settings: Callable[[Preset, str], list[Any]] | None = None  # the same points for a user's own system
    height: float = 5.5  # of the figure, in inches
    figure_for_each: str | None = None  # a column: `costate sweep` draws one more figure for each of its values
    groups: dict[str, str] = field(
        default_factory=dict
    )  # part -> column: a part documented to fail must, in each group
    advice: str = ""  # what follows for a practitioner, for the report
    study: str = ""
    derive: Callable[[pd.DataFrame], list[Row]] | None = None

    @property
    def runs(self) -> str:
        """Whose points the claim is judged on: its own, or those of its study."""
        return self.study or self.name

    def rows_from(self, stored: pd.DataFrame) -> pd.DataFrame:
        """Comparison rows, from what the records hold."""
        return stored if self.derive is None else pd.DataFrame(self.derive(stored))


@dataclass(frozen=True)
class Verdict:
    """A claim's outcome with the parts behind it; `headline` is the most telling row of the claim's own parts."""

    claim: str
    outcome: Outcome
    expected_outcome: Outcome
    parts: dict[str, PartResult]
    as_documented: bool
    reason: str
    headline: dict[str, Any]


def compare(
    part: str,
    measured: Any,
    target: Any,
    standard_error: Any = 0.0,
    samples: int = 2,
    scale: Any = 1.0,
    *,
    relation: str = "==",
    tolerance: Any = 0.0,
    margin: float = 0.1,
    labels: dict[str, Any] | None = None,
    axes: tuple[str, ...] = (),
) -> list[Row]:
    """Rows of one part from arrays of one shape (numbers broadcast); `axes` name the indices that become columns."""
    if relation not in RELATIONS:
        raise ValueError(f"relation must be one of {RELATIONS}; got {relation!r}")
    arrays = np.broadcast_arrays(*[_plain(x) for x in (measured, target, standard_error, scale, tolerance)])
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError(f"part {part!r} of {labels} is not finite: the system is out of floating-point range")
    names = ("measured", "target", "standard_error", "scale", "tolerance")
    fixed = {"part": part, "relation": relation, "margin": margin, "samples": int(samples), **(labels or {})}
    return [
        {
            **fixed,
            **dict(zip(axes, (int(i) for i in index), strict=False)),
            **{name: float(array[index]) for name, array in zip(names, arrays, strict=True)},
        }
        for index in np.ndindex(arrays[0].shape)
    ]


def _plain(x: Any) -> np.ndarray:
    return np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x, dtype=np.float64)


def judge(claim: Claim, rows: pd.DataFrame) -> Verdict:
    """Test every part, then the claim: any failing claim part makes it fail; a control that is not as documented leaves
    it undecided, because a check without power has shown nothing."""  # noqa: D205, D209
    judged = rows[rows["relation"] != "report"]
    parts = {
        name: _judge_groups(claim, name, judged[judged["part"] == name].reset_index(drop=True)) for name in claim.parts
    }
    own = [name for name, (role, _) in claim.parts.items() if role == "claim"]
    off = [name for name, (_, expected) in claim.parts.items() if parts[name].outcome != expected]
    blind = [name for name in off if claim.parts[name][0] == "control"]
    outcomes = {parts[name].outcome for name in own}
    outcome: Outcome = "fails" if "fails" in outcomes else "undecided" if blind or "undecided" in outcomes else "holds"
    headline = max(
        (parts[name] for name in own if parts[name].worst),
        key=lambda result: (result.outcome == outcome, result.of_limit),
    )
    return Verdict(
        claim.name, outcome, claim.expected_outcome, parts, outcome == claim.expected_outcome and not off,
        _reason(claim, parts, off), headline.worst,
    )  # fmt: skip


def _judge_groups(claim: Claim, name: str, rows: pd.DataFrame) -> PartResult:
    """The part as a whole; one that fails as documented must do so in every group, else it is undecided."""
    whole, column = judge_part(rows), claim.groups.get(name)
    if column is None or whole.outcome != "fails" or claim.parts[name][1] != "fails":
        return whole
    groups = {key: judge_part(group.reset_index(drop=True)) for key, group in rows.groupby(column, sort=False)}
    spared = {key: result for key, result in groups.items() if result.outcome != "fails"}
    if not spared:
        return whole
    key, result = next(iter(spared.items()))
    return replace(result, outcome="undecided", worst={**result.worst, "does not fail for": f"{column} {key}"})


def _reason(claim: Claim, parts: dict[str, PartResult], off: list[str]) -> str:
    if off:
        said = []
        for name in off:
            spared = parts[name].worst.get("does not fail for")
            where = f" (does not fail for {spared}: the check is blind there)" if spared else ""
            said.append(f"'{name}' {parts[name].outcome}, documented: {claim.parts[name][1]}{where}")
        return "; ".join(said)
    count = sum(result.comparisons for result in parts.values())
    return f"{len(parts)} parts, {count} comparisons, all as documented"


def _module(name: str) -> str:
    part = next(part for part, names in CLAIM_PARTS.items() if name in names)
    return f"figures.claims.{part}.{name}"


def load_claim(name: str) -> Claim:
    """The claim called `name`; raises InputError with the near names for an unknown one."""
    if name not in CLAIM_NAMES:
        raise unknown("claim", name, CLAIM_NAMES, " `costate list` shows all")
    claim: Claim = importlib.import_module(_module(name)).CLAIM
    return claim


def load_claims(names: list[str]) -> list[Claim]:
    """All claims named, or all there are, each once and in the documented order."""
    for name in names:
        load_claim(name)
    return [load_claim(name) for name in CLAIM_NAMES if not names or name in names]


def source_of(claim: Claim) -> str:
    """The file that measures the claim's points, as text: part of what a record is valid for."""
    return inspect.getsource(_measuring(claim.runs))


def measure_of(runs: str) -> Callable[[Any, torch.Generator, str], list[Row]]:
    """How the points of a claim or of a study are measured."""
    measure: Callable[..., list[Row]] = _measuring(runs).measure
    return measure


def _measuring(runs: str) -> Any:
    return importlib.import_module(STUDIES.get(runs) or _module(runs))


def batches(samples: int, size: int) -> Iterator[int]:
    """`samples` cut into batches of at most `size`, as even as possible: memory stays bounded at any sample size."""
    count = -(-samples // size)
    for i in range(count):
        yield samples * (i + 1) // count - samples * i // count
