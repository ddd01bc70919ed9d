"""The claim entropy_knobs on errors, entropies and bounds made by hand: what rises, what is kept, what ranks the error."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from figures.claims.tokens import entropy_knobs as claim
from figures.harness.judge import judge
from figures.measures.attention_errors import E1
from figures.measures.token_systems import build_policy, build_world
from theory.tokens.costates import expected_costates

NEVER_RISES = "offset: the error never rises"
OFFSETS = (0.0, 2.0, 4.0, 6.0)
SETTING = claim.EntropyKnobsSetting("offset", 2, offsets=OFFSETS, worlds=("lock",), alpha=0.5, costates=(E1,))


def measured(setting=SETTING):
    return pd.DataFrame(claim.measure(setting, torch.Generator(), "cpu"))


@pytest.fixture
def made_up(monkeypatch):
    """`made_up(error, bound)` with an entry for each entropy 4, 3, 2, 1, in the order of the offsets 2, 0, 6, 4."""
    place = {2.0: 0, 0.0: 1, 6.0: 2, 4.0: 3}

    def use(error, bound):
        def errors(world, policy, alpha, site, costates):
            (k, seed) = policy
            each = {"error": error[k] * (1 + seed), "entropy": 4.0 - k, "gini": 9.0}
            tiers = [7.0, 8.0, bound[k] * (1 + seed), 1e6]
            split = SimpleNamespace(
                tiers=torch.tensor(tiers)[:, None], **{n: torch.tensor([x]) for n, x in each.items()}
            )
            return dict.fromkeys(costates, split)

        monkeypatch.setattr(claim, "build_policy", lambda world, seed, offset: (place[offset], seed))
        monkeypatch.setattr(claim, "attention_errors", errors)
        rows = measured()
        return rows, {name: part.result.outcome for name, part in judge(claim.CLAIM, rows).parts.items()}

    return use


@pytest.mark.parametrize(
    ("error", "outcome"),
    [((4.0, 3.0, 2.0, 1.0), "holds"), ((4.0, 3.0, 2.0, 2.5), "fails"), ((1.0, 2.0, 3.0, 4.0), "fails")],
)
def test_an_error_rises_where_it_is_larger_at_a_smaller_entropy(made_up, error, outcome):
    rows, outcomes = made_up(error, (5.0, 6.0, 7.0, 8.0))
    assert outcomes[NEVER_RISES] == outcome
    rises = rows[rows["part"] == NEVER_RISES]
    assert rises["seed"].tolist() == [0, 1]
    assert rises["measured"].to_numpy() == pytest.approx(max(np.diff(np.log(error))))
    sweep = rows[(rows["part"] == "sweep") & (rows["seed"] == 1)]
    assert sweep["H"].tolist() == [4.0, 3.0, 2.0, 1.0]
    assert sweep["measured"].tolist() == [2 * e for e in error]
    assert sweep["target"].tolist() == [10.0, 12.0, 14.0, 16.0]


def test_a_bound_that_is_exceeded_once_fails_the_control(made_up):
    assert made_up((4.0, 3.0, 2.0, 1.0), (4.0, 3.0, 2.0, 1.0))[1][claim._BOUND] == "holds"
    assert made_up((4.0, 3.0, 2.0, 1.0), (4.0, 3.0, 1.9, 1.0))[1][claim._BOUND] == "fails"


def test_rank_correlations_are_those_of_entropy_and_of_the_bound(made_up):
    rows, _ = made_up((1.0, 2.0, 3.0, 4.0), (10.0, 20.0, 40.0, 30.0))
    ranks = rows[rows["part"].str.startswith(claim._RANK)].set_index("part")["measured"]
    assert ranks[claim._RANK + "entropy"] == pytest.approx(-1)
    assert ranks[claim._RANK + "bound"] == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)


def test_the_sweep_holds_the_errors_of_its_own_policies():
    rows, world = measured(), build_world("lock")
    sweep = rows[rows["part"] == "sweep"]
    for seed in range(2):
        wanted = []
        for offset in OFFSETS:
            policy = build_policy(world, seed, offset=offset)
            total, path = (expected_costates(world, policy, x, "layer1", 0.5)[0][:, -1] for x in ("total", "E1"))
            wanted.append(float((total - path).norm(dim=-1).mean()))
        own = sweep[sweep["seed"] == seed]
        assert sorted(own["measured"]) == pytest.approx(sorted(wanted))
        assert (own["H"].diff().dropna() < 0).all()
    assert sweep["measured"].nunique() == 2 * len(OFFSETS)
