"""The claim on DeepSeek-V3.2's repairs: its measures by a second road, and defects that turn its parts."""

import itertools
import math

import pandas as pd
import pytest
import torch

from agents.policies.nucleus import Nucleus
from agents.policies.prefix_table import PrefixTable
from agents.recipes import learner as learner_module
from agents.recipes.learners import Penalty
from agents.recipes.surrogates import off_policy_mask
from envs.token_tasks import sum_and_stop
from figures.claims.systems import off_policy_masks as claim
from figures.harness.judge import judge
from figures.measures import repairs
from figures.measures.token_systems import build_world
from tests.theory.token_cases import several_prompts
from theory.differences import central_gradient
from theory.tokens.prefix_tree import grow

close = torch.testing.assert_close
STOP = sum_and_stop(2, 3, gamma=0.9)


def outcomes(*settings):
    rows = [row for s in settings for row in claim.measure(s, torch.Generator().manual_seed(0), "cpu")]
    return {name: part.result.outcome for name, part in judge(claim.CLAIM, pd.DataFrame(rows)).parts.items()}


def prefixes(world):
    """Rows of a table by what was said so far, for a world with one prompt."""
    level, found = [()], {}
    for _ in range(world.horizon):
        found |= {said: len(found) + i for i, said in enumerate(level)}
        level = [(*said, a) for said in level for a in range(world.V)]
    return found


def test_the_slope_of_rho_k3_is_that_of_the_kl_at_old_prefixes_by_plain_sums():
    now, old, reference = (PrefixTable(STOP, seed=seed) for seed in range(3))
    at = prefixes(STOP)
    q, ref = (torch.softmax(x.logits.detach(), -1) for x in (old, reference))

    def loss(x):
        pi, total = torch.softmax(x.reshape(-1, STOP.V), -1), 0.0
        for said, row in at.items():
            if STOP.end not in said:
                chance = math.prod(float(q[at[said[:k]], a]) for k, a in enumerate(said))
                total = total - chance * (pi[row] * (pi[row] / ref[row]).log()).sum()
        return total

    truth = central_gradient(loss, now.logits.detach().flatten())
    close(repairs.reverse_kl_slope(STOP, now, old, reference), truth, rtol=1e-6, atol=1e-8)
    updates = repairs.penalty_updates(STOP, now, old, reference)
    close(updates[repairs.WITH], truth, rtol=1e-6, atol=1e-8)
    for name in (repairs.WITHOUT, repairs.DETACHED):
        assert float((updates[name] - truth).norm()) > 0.05 * float(truth.norm())


def test_the_masked_update_of_two_rows_is_a_plain_sum_over_pairs_of_completions():
    now, old, at, delta = PrefixTable(STOP, seed=0), PrefixTable(STOP, seed=1), prefixes(STOP), 0.1
    words = []
    for word in itertools.product(range(STOP.V), repeat=STOP.horizon):
        n = word.index(STOP.end) + 1 if STOP.end in word else STOP.horizon
        if all(a == 0 for a in word[n:]):  # one representative of what is said after the end
            words.append((word, n))
    pi, q = (torch.softmax(x.logits.detach(), -1) for x in (now, old))
    tree = grow(STOP, now)
    paid = dict(zip(itertools.product(range(STOP.V), repeat=STOP.horizon), returns(tree), strict=True))
    mean = torch.zeros_like(pi)
    for (one, n), (other, m) in itertools.product(words, words):
        chance = math.prod(float(q[at[one[:k]], a]) for k, a in enumerate(one[:n]))
        chance *= math.prod(float(q[at[other[:k]], a]) for k, a in enumerate(other[:m]))
        A = paid[one] - paid[other]
        away = sum(math.log(q[at[one[:k]], a] / pi[at[one[:k]], a]) for k, a in enumerate(one[:n])) / n
        if A < 0 and away > delta:
            continue
        for k, a in enumerate(one[:n]):
            row = at[one[:k]]
            score = torch.eye(STOP.V)[a].double() - pi[row]
            mean[row] += chance * A * float(pi[row, a] / q[row, a]) * score
    update = repairs.stale_update(STOP, now, old, repairs.BARE, delta, 2).mean.flat
    close(update, mean.flatten(), rtol=1e-9, atol=1e-12)
    bare = repairs.stale_update(STOP, now, old, repairs.BARE, math.inf, 2).mean.flat
    assert float((update - bare).norm()) > 0.05 * float(bare.norm())


def returns(tree):
    """R of every word, from the levels' rewards alone."""
    total = torch.zeros(1, dtype=torch.float64)
    for k, level in enumerate(tree.levels):
        total = (total[:, None] + tree.world.gamma**k * level.rewards).flatten()
    return total.detach().tolist()


@pytest.mark.parametrize("world", [STOP, several_prompts(3)], ids=["one prompt", "several prompts"])
def test_the_gap_of_the_full_softmax_is_the_slope_of_the_masses_by_differences(world):
    policy, h = PrefixTable(world, seed=3), 1e-5
    kept, full, slope = repairs.nucleus_updates(world, policy, 0.8)
    close(full - kept.truth.flat, slope, rtol=1e-9, atol=1e-12)
    assert float(slope.norm()) > 0.01 * float(kept.truth.flat.norm())
    cut = Nucleus(policy, 0.8)
    start = grow(world, cut)
    gains = torch.cat(repairs.gains_of_prefixes(start))
    sets = torch.cat([level.logits.isneginf() for level in start.levels])
    assert gains[: len(world.prompts)].tolist() == pytest.approx([0.0] * len(world.prompts), abs=1e-14)
    for k, level in enumerate(start.levels[1:], 1):  # the gains of a prefix's children add up to its own
        first = sum(len(x.reach) for x in start.levels[:k])
        parents = gains[first - len(start.levels[k - 1].reach) : first]
        close(gains[first : first + len(level.reach)].reshape(len(parents), -1).sum(1), parents)

    def masses(x):
        levels = grow(world, PrefixTable(world, x.reshape(-1, world.V))).levels
        pi = torch.cat([torch.softmax(level.logits.detach(), -1) for level in levels])
        return (gains * alive * (pi * ~sets).sum(-1).log()).sum()

    alive = torch.cat([x.double() for x in repairs.prefixes_alive(start)])
    close(slope, central_gradient(masses, policy.logits.detach().flatten(), h), rtol=1e-6, atol=1e-8)


SMALL = {
    claim.PENALTY: claim.OffPolicyMasksSetting("stop (3,3)", claim.PENALTY, 0, (1 / 8,)),
    claim.MASK: claim.OffPolicyMasksSetting("stop (2,3)", claim.MASK, 0, (1 / 32,)),
    claim.TOP_P: claim.OffPolicyMasksSetting("garnet (3,3)", claim.TOP_P, 0, top_ps=(0.7,)),
}


def test_a_penalty_without_a_gradient_of_rho_turns_its_parts(monkeypatch):
    right = outcomes(SMALL[claim.PENALTY])
    assert right[claim.RHO] == right[claim.SLOPES] == "holds"
    assert right[claim.NO_RHO] == right[claim.HELD] == "fails"
    real = Penalty.__call__

    def held(self, log_ratio, log_rho=None):
        return real(self, log_ratio, None if log_rho is None else log_rho.detach())

    monkeypatch.setattr(Penalty, "__call__", held)
    wrong = outcomes(SMALL[claim.PENALTY])
    assert wrong[claim.RHO] == wrong[claim.SLOPES] == "fails"


def test_a_mask_that_acts_on_fresh_rows_or_never_acts_is_seen(monkeypatch):
    right = outcomes(SMALL[claim.MASK])
    assert right[claim.FRESH] == "holds"
    assert right[claim.MASKED] == right[claim.NEARER] == "fails"

    def everywhere(delta):
        return lambda log_probs, old, advantages, mask: advantages >= 0

    monkeypatch.setattr(learner_module, "off_policy_mask", everywhere)
    assert outcomes(SMALL[claim.MASK])[claim.FRESH] == "fails"
    monkeypatch.setattr(learner_module, "off_policy_mask", lambda delta: off_policy_mask(math.inf))
    assert outcomes(SMALL[claim.MASK])[claim.NEARER] == "holds"


def test_other_sets_or_none_turn_the_parts_of_top_p(monkeypatch):
    right = outcomes(SMALL[claim.TOP_P])
    assert right[claim.KEPT] == right[claim.EXTRA] == right[claim.RATIO] == "holds"
    assert right[claim.FULL] == "fails"
    real = repairs.log_mass
    monkeypatch.setattr(repairs, "log_mass", lambda logits, cut: 0.99 * real(logits, cut))
    assert outcomes(SMALL[claim.TOP_P])[claim.EXTRA] == "fails"
    built = repairs.build_learner
    monkeypatch.setattr(repairs, "build_learner", lambda name: built("dr_grpo"))
    assert outcomes(SMALL[claim.TOP_P])[claim.KEPT] == "fails"
    monkeypatch.setattr(repairs, "build_learner", built)
    monkeypatch.setattr(repairs, "Nucleus", lambda policy, top_p: Nucleus(policy, 1.0))
    assert outcomes(SMALL[claim.TOP_P])[claim.FULL] == "holds"


def test_all_repairs_are_measured_in_all_presets():
    for preset in ("tiny", "quick", "full"):
        assert {s.repair for s in claim.settings(preset)} == set(SMALL)
        assert all(build_world(name).V for name in {s.world for s in claim.settings(preset)})
