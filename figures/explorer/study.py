"""What the explorer shows of a pretraining run: gain, signal and headroom of every checkpoint, from the records of a run."""

from pathlib import Path
from typing import Any

import numpy as np

from envs.world import InputError
from figures.harness.registry import load_claim
from figures.harness.verdicts import read_verdicts, stored_rows
from figures.impact.contest import CRITERION
from figures.impact.runs import MAIN
from figures.impact.tables import Runs, aligned, budgets_of

CLAIM, _STUDY = "impact_inverted_u", "impact_runs"
_SHOWN = {"J": "J", "costate": "costate", "snr": "snr", "best_of": "best_of", "rest": "rest", "product": CRITERION}
_FEWEST = 3  # checkpoints: with fewer there is no middle of pretraining


def study_numbers(runs: Path) -> dict[str, Any] | None:
    """Means over the trajectories of each corpus, and the gains of every trajectory.

    Args:
        runs: folder of results of `costate check`.

    Returns:
        None where no claim on the impact study was checked there.

    Raises:
        InputError: the study has too few checkpoints, or a record is missing.
    """
    there = read_verdicts(runs) if (runs / "verdicts.json").exists() else []
    verdicts = [verdict for verdict in there if load_claim(verdict.claim).recorded_as == _STUDY]
    if not verdicts:
        return None
    rows = stored_rows(verdicts[0], runs)
    table = aligned(rows, MAIN, known=list(_SHOWN.values()))
    if table.gain.shape[1] < _FEWEST:
        raise InputError(
            f"--runs {runs} has {table.gain.shape[1]} checkpoints of pretraining, and the page needs {_FEWEST}: "
            f"run `costate check {CLAIM}` with the preset quick or full"
        )
    run = verdicts[0].run
    return {
        "folder": str(runs),
        "kind": f"preset {run.preset}, seed {run.seed}" if run else "",
        "recipe": MAIN,
        "budget": int(budgets_of(rows, MAIN)[-1]),
        "corpora": [{"name": corpus, **_corpus(table.of(corpus))} for corpus in table.corpora],
    }


def _corpus(runs: Runs) -> dict[str, Any]:
    known: dict[str, np.ndarray] = {name: runs.known[column].mean(0) for name, column in _SHOWN.items()}
    return {
        "tokens": [int(count) for count in runs.tokens.mean(0)],
        "gain": runs.gain.mean(0).tolist(),
        "gains": runs.gain.tolist(),
        **{name: values.tolist() for name, values in known.items()},
    }
