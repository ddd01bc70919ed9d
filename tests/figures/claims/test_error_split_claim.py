"""The claim error_split sees small errors: its allowance for cancelling terms is not used where they have digits."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from figures.claims.tokens import error_split as claim
from figures.harness.judge import judge

SETTINGS = [
    setting
    for setting in claim.CLAIM.settings("quick")
    if setting.world in ("lock", "arithmetic") and setting.alpha == 0.5 and setting.temperature == 1.0
]


def measured(settings):
    rng = torch.Generator()
    return pd.DataFrame([row for setting in settings for row in claim.measure(setting, rng, "cpu")])


def outcome(rows, part):
    return judge(claim.CLAIM, rows).parts[part].result.outcome


def without_the_last(sampling):
    return torch.cat([sampling[:-1], 0 * sampling[-1:]])


def stretched(step, share):
    def change(sampling):
        factors = torch.ones(len(sampling), 1, 1, dtype=sampling.dtype)
        factors[step] += share
        return factors * sampling

    return change


def test_a_sound_split_needs_no_allowance():
    rows = measured(SETTINGS)
    assert len(SETTINGS) == 4
    assert set(rows.loc[rows["relation"] == "==", "tolerance"]) == {1e-10}
    assert outcome(rows, "identity") == outcome(rows, "value gradient by both roads") == "holds"
    assert outcome(rows, "without its largest covariance") == "fails"


@pytest.mark.parametrize(
    "change",
    [without_the_last, stretched(slice(None), 1e-6), stretched(-1, 1e-6), stretched(0, 1e-8)],
    ids=["without the last", "all", "last", "first"],
)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s.world} {s.offset}")
def test_a_wrong_covariance_is_seen_in_every_single_setting(change, setting, monkeypatch):
    real = claim.error_split

    def wrong(*arguments):
        split = real(*arguments)
        return replace(split, sampling=change(split.sampling))

    monkeypatch.setattr(claim, "error_split", wrong)
    rows = measured([setting])
    assert rows["tolerance"].max() < 1e-8, "what the allowance hides is far below what was planted"
    assert outcome(rows, "identity") == "fails"
