"""Defects that must turn the claims about what an actor's update is on average."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

import figures.claims.critic_free.actor_update_is_value_gradient as actor
import figures.claims.critic_free.grpo_arcsine as arcsine
from agents.recipes.advantages import leave_one_out
from agents.recipes.learners import rloo
from figures.harness.judge import judge
from figures.measures import actor_updates
from figures.measures.actor_cases import ActorSetting
from theory.groups import large_groups
from theory.groups.objectives import std_objective

LOCK = ActorSetting("exact", "lock (2,3)", 4)
LINEAR = [s for s in actor.settings("quick") if s.kind == "linear" and s.world == "scalar"]
COPY = arcsine.GrpoArcsineSetting("copy (2,3)", (2, 3, 4), directions=1)


def verdict(module, settings, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return judge(module.CLAIM, pd.DataFrame([row for s in settings for row in module.measure(s, rng, "cpu")]))


def test_a_wrong_kappa_is_seen(monkeypatch):
    own = ("kappa grad V at every prefix", "parameter gradient")
    parts = verdict(actor, [LOCK]).parts
    assert {parts[part].result.outcome for part in own} == {"holds"}
    wrong = [replace(r, kappa=lambda P, L, k=r.kappa: k(P, L) * (1 + 1e-7)) for r in actor_updates.recipes(4)]
    monkeypatch.setattr(actor_updates, "recipes", lambda most: wrong)
    parts = verdict(actor, [LOCK]).parts
    assert {parts[part].result.outcome for part in own} == {"fails"}


def test_a_sampled_learner_of_another_kappa_is_seen(monkeypatch):
    setting = next(s for s in actor.settings("quick") if s.recipe == "Dr. GRPO" and s.kind == "sampled")
    real = actor.group_costates
    monkeypatch.setattr(actor, "group_costates", lambda w, p, learner, *rest: real(w, p, rloo(), *rest))
    assert verdict(actor, [setting]).parts["sampled update"].result.outcome == "fails"


def test_a_baseline_taken_for_another_is_seen(monkeypatch):
    monkeypatch.setitem(actor._BASELINES, "Dr. GRPO", leave_one_out)
    assert verdict(actor, LINEAR).parts["linear-quadratic counterpart"].result.outcome == "fails"


def test_another_objective_is_seen(monkeypatch):
    part = "finite G: the gradient of F_G"
    assert verdict(arcsine, [COPY]).parts[part].result.outcome == "holds"
    monkeypatch.setattr(arcsine, "std_objective", lambda G, population: std_objective(G + 1, population))
    assert verdict(arcsine, [COPY]).parts[part].result.outcome == "fails"


@pytest.mark.parametrize(
    ("part", "name", "wrong"),
    [
        ("objective: error 1/sqrt G", "ZETA_HALF", -1.45),
        ("weight: error 1/G", "kappa_gap_correction", lambda P, G: torch.full_like(P, 0.4 / G)),
    ],
)
def test_an_error_with_another_term_is_seen(monkeypatch, part, name, wrong):
    limit = arcsine.settings("quick")[0]
    assert verdict(arcsine, [limit]).parts[part].result.outcome == "holds"
    monkeypatch.setattr(large_groups, name, wrong)
    assert verdict(arcsine, [limit]).parts[part].result.outcome == "fails"
