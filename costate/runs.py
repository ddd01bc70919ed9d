"""Claims from Python: run one, with the very numbers of `costate check`, and read what was run before."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from envs.linear_quadratic import LinearQuadratic
from envs.own_world import system_text
from envs.token_mdp import TokenMDP
from envs.world import InputError, World, unknown
from figures.commands.options import default_jobs, device_of
from figures.commands.own_world import own_value
from figures.harness.catalogue import claim_texts
from figures.harness.claim import PRESETS, Preset
from figures.harness.judge import Verdict
from figures.harness.records import check_writable
from figures.harness.registry import load_claim
from figures.harness.runner import missing, plan, run_missing
from figures.harness.selection import select, text_of
from figures.harness.verdicts import claim_rows, judge_claim, rows_of, verdicts_of
from figures.measures.linear_systems import checked_system
from figures.report.pictures import draw


@dataclass(frozen=True)
class ClaimRun:
    """A claim that was measured and judged.

    Attributes:
        claim: its name.
        rows: its comparison rows, every field of the setting in every row.
        verdict: outcome, documented outcome, parts.
    """

    claim: str
    rows: pd.DataFrame
    verdict: Verdict

    def __repr__(self) -> str:
        return f"ClaimRun({self.claim}: {self.verdict.outcome}, {len(self.rows)} rows; {self.verdict.reason})"

    def frame(self) -> pd.DataFrame:
        """The comparison rows.

        Returns:
            One row for each comparison.
        """
        return self.rows

    def figure(self, **look: Any) -> Any:
        """The claim's figure.

        Args:
            look: keywords of `costate.draw`.

        Returns:
            A Matplotlib figure, which a notebook shows.
        """
        return draw(self.claim, self.rows, **look)


def run_claim(
    name: str,
    seed: int = 0,
    preset: Preset = "quick",
    *,
    only: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    device: str = "cpu",
    jobs: int | None = None,
    **fields: Any,
) -> ClaimRun:
    """Measure and judge a claim; with no `only` and no `fields` these are the numbers of `costate check`.

    Args:
        name: the claim, "entropy_knobs" for instance.
        seed: of all noise.
        preset: "tiny", "quick" or "full".
        only: field -> value, or list of values: the settings of the preset that are kept.
        out: a folder where finished points are kept, so that the same call goes on from there; None for none.
        device: "cpu", "cuda" or "auto".
        jobs: processes, by default one for each core; the numbers do not depend on it.
        fields: of the claim's settings, with another value for all: `temperatures=(0.2, 1, 5)`. Where a claim has a `world`, a
            name or a user's file ("my_world.py:build", "my.json"); where it has a `system`, a `LinearQuadratic` too.

    Returns:
        Rows, verdict and figure.

    Raises:
        InputError: a name or value is unknown, or the settings cannot be run.
    """
    claim, kind = load_claim(name), device_of(device)
    if preset not in PRESETS:
        raise unknown("preset", str(preset), PRESETS)
    kept = [f"{field}={text_of(value)}" for field, given in (only or {}).items() for value in _values(given)]
    changes = [f"{field}={_text(field, value)}" for field, value in fields.items()]
    points = plan([claim], preset, seed, kind, None, lambda settings: select(settings, kept, changes, own_value))
    with TemporaryDirectory() as temporary:
        folder = Path(temporary if out is None else out).resolve()  # workers may have another current folder
        check_writable(folder)
        run_missing(points, missing(points, folder), folder, jobs or default_jobs(kind))
        verdict = judge_claim(claim, points, folder, preset, partial=bool(kept or changes))
        return ClaimRun(name, claim.rows_from(rows_of(points, folder)), verdict)


def _text(field: str, value: Any) -> str:
    """A field's value as text; a plain linear-quadratic system is its matrices."""
    if type(value) is LinearQuadratic:
        return checked_system(system_text(value), field)
    if isinstance(value, TokenMDP | World):
        raise InputError(
            f"{field} must be a name or a file here, since a claim is measured in several processes: put the function that "
            f"builds your world into a file and give {field}='my_world.py:build'; got a {type(value).__name__}"
        )
    return text_of(value)


def _values(given: Any) -> Iterable[Any]:
    return given if isinstance(given, list | set) else [given]


def table(out: str | Path, claim: str) -> pd.DataFrame:
    """The rows of a claim from a folder of results, with every field of the setting in every row.

    Args:
        out: folder of `costate check` or `costate sweep` ("runs").
        claim: its name.

    Returns:
        The comparison rows behind the verdict; `figures/README.md` explains the columns.

    Raises:
        InputError: the claim is unknown or was not checked there, or a record is missing.
    """
    (verdict,) = verdicts_of([claim], Path(out))
    return claim_rows(verdict, Path(out))


def claims() -> pd.DataFrame:
    """All claims.

    Returns:
        One row for each: `name`, `part`, `statement`, `assumptions` and `documented` outcome.
    """
    texts = [vars(text) for text in claim_texts()]
    return pd.DataFrame(texts)[["name", "part", "statement", "assumptions", "documented"]]
