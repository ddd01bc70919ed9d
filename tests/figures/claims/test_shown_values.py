"""The values that pictures show beside the exact ones, by a second way; and pictures of single settings."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.sampling.rollout import rollout
from envs.noise import Noise
from figures.claims.continuous import attention_path, costate_mean, costate_recursion
from figures.claims.critic_free import batch_split, normalisation_breaks, off_policy_steps, u_statistic
from figures.claims.tokens import (
    attention_costate_biased,
    attention_transport,
    bellman_costate,
    error_split,
    large_vocabulary,
    relaxed_costates,
    score_costate_unbiased,
)
from figures.drawing.attention_path import ATTENTION, CLOSED, DYNAMICS, OPEN
from figures.measures.linear_systems import build_system
from figures.measures.memory_policies import attention_system, costates_by_path
from figures.measures.token_systems import build_world
from figures.report.pictures import draw
from tests.figures.drawing.readable import unreadable

CLAIMS = (
    attention_path,
    costate_mean,
    costate_recursion,
    attention_costate_biased,
    attention_transport,
    bellman_costate,
    error_split,
    large_vocabulary,
    relaxed_costates,
    score_costate_unbiased,
    batch_split,
    normalisation_breaks,
    off_policy_steps,
    u_statistic,
)


def measured(module, *settings):
    rng = torch.Generator().manual_seed(0)
    return pd.DataFrame([row for setting in settings for row in module.measure(setting, rng, "cpu")])


def shown(module, *settings):
    """Kind of row -> its rows."""
    rows = measured(module, *settings)
    rows = rows[rows["shown"].notna()]
    assert set(rows["relation"]) == {"report"}
    return dict(list(rows.groupby("shown")))


def test_values_of_states_are_sums_of_rewards_of_the_states_that_follow():
    setting = bellman_costate.BellmanCostateSetting("garnet", 3.0)
    world = build_world("garnet")
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(world.horizon, world.S, world.V, generator=rng, dtype=torch.float64)
    pi = torch.softmax(3.0 * logits, -1).numpy()
    P, r, values = world.P.numpy(), world.r.numpy(), []
    for z in range(world.S):
        reach, value = np.eye(world.S)[z], 0.0
        for k in range(world.horizon):
            value += world.gamma**k * sum(
                reach[s] * pi[k, s, a] * r[k, s, a] for s in range(world.S) for a in range(world.V)
            )
            reach = np.einsum("s,sa,say->y", reach, pi[k], P)
        values.append(value)
    kinds = shown(bellman_costate, setting)
    assert len(kinds) == 3
    for kind, rows in kinds.items():
        right = [values[int(z)] for z in rows["state"]]
        assert rows["target"].tolist() == pytest.approx(right)
        assert (rows["measured"].tolist() == pytest.approx(right)) == (kind != bellman_costate._TRANSPOSED)


@pytest.mark.parametrize(("alpha", "alone"), [(0.0, 1.0), (0.5, None), (1.0, 0.0)])
def test_attention_alone_is_all_or_nothing_only_at_the_ends(alpha, alone):
    kinds = shown(error_split, error_split.CLAIM.settings("tiny")[0].__class__("garnet", alpha, 1.0, 0.0, 0))
    whole, part = kinds[error_split._IDENTITY], kinds[error_split._ALONE]
    truth = whole["target"].to_numpy()
    assert np.abs(truth).max() > 1e-3
    assert np.allclose(whole["measured"], truth)
    if alone is not None:
        assert np.allclose(part["measured"], alone * truth)
    else:
        assert not any(np.allclose(part["measured"], share * truth) for share in (0.0, 1.0))
    assert (error_split._INCOMPLETE in kinds) == (alpha > 0)


def test_the_dashed_lines_are_no_estimates(monkeypatch):
    """What is exact stays where it is when the costates or covariances beside it are made wrong."""
    settings = {
        error_split: error_split.CLAIM.settings("tiny")[0].__class__("garnet", 0.5, 1.0, 0.0, 0),
        score_costate_unbiased: score_costate_unbiased.ScoreCostateUnbiasedSetting("garnet", 1.0, "layer1", 50, 0.1),
    }
    right = {module: shown(module, setting) for module, setting in settings.items()}
    split, expected = error_split.error_split, score_costate_unbiased.expected_costates

    def wrong_split(*arguments):
        found = split(*arguments)
        return replace(found, attention=1.1 * found.attention, sampling=1.2 * found.sampling)

    monkeypatch.setattr(error_split, "error_split", wrong_split)
    monkeypatch.setattr(score_costate_unbiased, "expected_costates", lambda *a: [1.1 * g for g in expected(*a)])
    for module, setting in settings.items():
        for kind, rows in shown(module, setting).items():
            before = right[module][kind]
            assert rows["target"].tolist() == before["target"].tolist()
            assert not np.allclose(rows["measured"], before["measured"])


def test_the_score_costate_is_shown_on_the_value_gradient_and_the_detached_one_off_it():
    setting = score_costate_unbiased.ScoreCostateUnbiasedSetting("garnet", 1.0, "embedding", 50, 0.1)
    kinds = shown(score_costate_unbiased, setting)
    exact, detached = kinds[score_costate_unbiased._EXACT], kinds[score_costate_unbiased._DETACHED]
    assert np.allclose(exact["measured"], exact["target"], atol=1e-12)
    assert np.abs(detached["measured"] - detached["target"]).max() > 0.01 * np.abs(exact["target"]).max()


def test_costates_along_the_path_are_slopes_of_the_return_and_sums_of_their_parts():
    pull, step = 1.0, 1e-4
    kinds = shown(attention_path, attention_path.AttentionPathSetting(pull, 2_000, 0.1))
    system = attention_system(pull)
    world, T = system.world, system.world.horizon
    start = system.Sigma[0].diagonal()[: world.n].sqrt()
    slopes = []
    for i in range(world.n):
        moved = torch.stack([start, start])
        moved[0, i] += step
        moved[1, i] -= step
        quiet = Noise(moved, torch.zeros(2, T, world.m).double(), torch.zeros(2, T, world.n).double())
        up, down = rollout(world, system.policy, quiet).returns.detach().tolist()
        slopes.append((up - down) / (2 * step))  # the noise only adds a constant to the value
    table = pd.concat(kinds.values()).set_index(["shown", "t", "i"]).sort_index()
    assert table.loc[OPEN, "target"].loc[0].tolist() == pytest.approx(slopes, rel=1e-6)
    assert table.loc[CLOSED, "target"].loc[0].tolist() != pytest.approx(slopes, rel=0.1)
    parts = table.loc[DYNAMICS, "target"] + table.loc[ATTENTION, "target"]
    assert np.allclose(parts, table.loc[OPEN, "target"])
    still = Noise(start[None], torch.zeros(1, T, world.m).double(), torch.zeros(1, T, world.n).double())
    on_the_mean = costates_by_path(system, still)  # autograd's; all is linear
    for kind, own in ((OPEN, on_the_mean.whole), (CLOSED, on_the_mean.closed), (ATTENTION, on_the_mean.attention)):
        assert np.allclose(table.loc[kind, "target"], own[0, :T].flatten())
    for kind, right in ((OPEN, OPEN), (CLOSED, CLOSED)):
        off = (table.loc[kind, "measured"] - table.loc[right, "target"]) / table.loc[kind, "standard_error"].clip(
            lower=1e-12
        )
        assert off.abs().max() < 4.5
    off = (table.loc[CLOSED, "measured"] - table.loc[OPEN, "target"]) / table.loc[CLOSED, "standard_error"].clip(
        lower=1e-12
    )
    assert off.abs().max() > 20


def test_mean_costates_stand_beside_slopes_of_the_return_from_where_the_paths_are_on_average():
    """The exact line, by central differences: the noise only adds a constant to the value of a linear policy."""
    kinds = shown(costate_mean, costate_mean.CostateMeanSetting("double_integrator", 2_000, 0.1))
    world, K, _ = build_system("double_integrator")
    T, step = world.horizon, 1e-4
    quiet = Noise(world.m_0[None], torch.zeros(1, T, world.m).double(), torch.zeros(1, T, world.n).double())
    start = (world.S_0.diagonal() + world.m_0**2).sqrt()[None]
    path = rollout(world, LinearPolicy(K), Noise(start, quiet.xi, quiet.w)).states[0].detach()
    total, cut = kinds[costate_mean._TOTAL], kinds[costate_mean._CUT]
    i = int(total["component"].iloc[0])
    for t in (0, 7, T - 1):
        rest, later, policy = quiet.after(t), replace(world, horizon=T - t), LinearPolicy(K[t:])  # a gain for each time
        moved = path[t] + step * torch.tensor([[1.0], [-1.0]]).double() * torch.eye(world.n)[i]
        up, down = (rollout(later, policy, Noise(s[None], rest.xi, rest.w)).returns.item() for s in moved)
        exact = total.loc[total["t"] == t, "target"].item()
        assert exact == pytest.approx((up - down) / (2 * step), rel=1e-6)
    assert total["target"].tolist() == cut["target"].tolist()
    off = {
        kind: ((rows["measured"] - rows["target"]) / rows["standard_error"].clip(lower=1e-9)).abs().max()
        for kind, rows in kinds.items()
    }
    assert off[costate_mean._TOTAL] < 4.5
    assert off[costate_mean._CUT] > 20


def test_the_roads_of_one_path_agree_and_the_partial_derivative_is_off():
    kinds = shown(costate_recursion, costate_recursion.CostateRecursionSetting("random_finite", 3))
    recursion, differences, partial = (kinds[part] for part in costate_recursion._ROADS)
    size = recursion["scale"].iloc[0]
    assert np.allclose(recursion["measured"], recursion["target"], atol=1e-12 * size)
    assert np.allclose(differences["measured"], differences["target"], atol=1e-8 * size)
    assert not np.array_equal(differences["measured"], recursion["measured"]), "another road"
    assert np.abs(partial["measured"] - partial["target"]).max() > 0.01 * size


@pytest.mark.parametrize("module", CLAIMS, ids=lambda module: module.CLAIM.name)
@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
def test_one_setting_makes_a_picture_that_can_be_read(module, which):
    rows = measured(module, module.CLAIM.settings("tiny")[which])
    for width in (3.3, 6.75)[: 2 + which]:  # the last setting in a column alone, where there is least room
        figure = draw(module.CLAIM.name, rows, width=width)
        figure.draw_without_rendering()
        assert unreadable(figure) == []
