"""The claim of the transformer in the linear-quadratic world: small runs, planted errors, a control that detaches nothing."""

import pandas as pd
import pytest
import torch

import figures.measures.conditioned_costates as conditioned
from agents.policies.linear import ClosedPath
from figures.claims.continuous import transformer_in_lq as module
from figures.harness.judge import judge
from figures.measures.rollouts import costates_of
from theory.continuous.quadrature import quadrature_value_gradient


def measured(process_noise=False, margin=0.05):
    setting = module.TransformerInLqSetting(0, process_noise, (1.0,), 1500, margin)
    return pd.DataFrame(module.measure(setting, torch.Generator().manual_seed(1), "cpu"))


@pytest.mark.parametrize("process_noise", [False, True])
def test_a_small_run_comes_out_as_documented(process_noise):
    rows = measured(process_noise)
    verdict = judge(module.CLAIM, rows) if not process_noise else None
    assert verdict is None or verdict.as_documented, verdict.reason
    for part in ("sampled mean", "exact mean", "quadrature has converged"):
        assert (rows[rows["part"] == part]["relation"] == "==").all()
        assert len(rows[rows["part"] == part]) == (1 if process_noise else 2)
    blind = rows[rows["part"] == "policy input detached"]
    assert ((blind["exact bias"].abs() > 4 * 0.05) == (blind["relation"] == "==")).all()


def scaled_costates(world, policy, noise):
    costates, trajectory = costates_of(world, policy, noise)
    return 1.1 * costates, trajectory


def scaled_quadrature(*arguments):
    return quadrature_value_gradient(*arguments) * 1.1


@pytest.mark.parametrize(
    ("place", "name", "spoilt", "parts"),
    [
        (conditioned, "costates_of", scaled_costates, ("exact mean", "sampled mean")),
        (conditioned, "quadrature_value_gradient", scaled_quadrature, ("exact mean", "sampled mean")),
        (module, "_NODES", {False: (2, 3), True: (2, 3)}, ("quadrature has converged",)),
    ],
)
def test_a_planted_error_makes_the_claim_fail(place, name, spoilt, parts, monkeypatch):
    monkeypatch.setattr(place, name, spoilt)
    verdict = judge(module.CLAIM, measured(margin=0.02))
    assert verdict.outcome == "fails"
    assert all(verdict.parts[part].result.outcome == "fails" for part in parts)


def test_a_control_that_detaches_nothing_leaves_the_claim_undecided(monkeypatch):
    monkeypatch.setattr(module, "ClosedPath", lambda p, path: p if path == "all" else ClosedPath(p, path))
    monkeypatch.setattr(module, "_SEEN", -1)  # judge it, though its exact bias is none
    verdict = judge(module.CLAIM, measured())
    assert verdict.parts["policy input detached"].result.outcome == "holds"
    assert verdict.outcome == "undecided"
    assert not verdict.as_documented
