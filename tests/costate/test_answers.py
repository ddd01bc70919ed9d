"""Exact answers through the face: against finite differences, the theory's own functions, and with any kind of numbers."""

import numpy as np
import pytest
import torch

import costate
from tests.theory.token_cases import value_differences
from theory.differences import central_gradient
from theory.tokens.error_split import error_split

MATRICES = {"A": [[1.0, 0.3], [0.0, 0.9]], "B": [[0.2], [1.0]], "Q": [[1.0, 0.0], [0.0, 0.5]], "R": [[0.7]]}
NOISE = {"S_x": [[0.2]], "m_0": [0.4, -0.3], "gamma": 0.95}
close = torch.testing.assert_close


def system(horizon=4, kind=list, **more):
    return costate.LinearQuadratic(
        **{k: kind(v) if k in MATRICES else v for k, v in {**MATRICES, **NOISE, **more}.items()}, horizon=horizon
    )


@pytest.mark.parametrize("horizon", [4, None])
@pytest.mark.parametrize("more", [{}, {"q": [0.3, -0.2], "q_a": [0.1]}])
def test_a_systems_answers_are_differences_of_its_return_and_value(horizon, more):
    world, K, k = system(horizon, **more), torch.tensor([[0.4, 0.5]], dtype=torch.float64), torch.tensor([0.2]).double()
    answers = costate.exact(world, (K, k))
    slopes = central_gradient(lambda flat: costate.exact(world, (flat[:2][None], flat[2:])).J, torch.cat([K[0], k]))
    close(torch.cat([answers.gradient.flatten(), answers.offset_gradient.flatten()]), slopes, rtol=1e-6, atol=1e-8)
    state = torch.tensor([0.7, -1.1], dtype=torch.float64)
    close(answers.value.gradient(state), central_gradient(answers.value.value, state), rtol=1e-7, atol=1e-8)
    best = costate.exact(world)
    assert float(best.J) > float(answers.J)
    assert float(best.gradient.abs().max()) < 1e-8
    frame = answers.frame()
    assert len(frame) == (1 if horizon is None else horizon + 1)
    P, p, c = answers.value.at(0)
    row = frame.iloc[0]
    assert [row["P.0.0"], row["P.1.0"], row["p.1"], row["c"]] == [float(P[0, 0]), float(P[1, 0]), float(p[1]), float(c)]
    assert [row["K.0.1"], row["k.0"]] == [0.5, float(k[0])]


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda x: torch.tensor(x, dtype=torch.float64)])
def test_gains_may_be_lists_numpy_or_torch(kind):
    expected = costate.exact(system(), torch.tensor([[0.5, 0.25]], dtype=torch.float64))
    answers = costate.exact(system(), kind([[0.5, 0.25]]))
    assert answers.K.dtype == torch.float64
    assert float(answers.J) == float(expected.J)
    assert float(costate.exact(system(), costate.LinearPolicy([[0.5, 0.25]])).J) == float(expected.J)


def test_a_token_worlds_answers_are_differences_of_its_value():
    world = costate.TokenMDP.from_rewards([[0.3, -1.0, 0.2], [0.0, 2.0, 0.7], [0.1, 0.1, -0.4]], gamma=0.9)
    policy = costate.Transformer(world.V, width=8, length=3, seed=4)
    exact = costate.exact(world, policy, sites="layer1", alpha=0.6)
    for level in range(world.horizon):
        close(
            exact.costates["layer1"][level],
            value_differences(world, policy, 0.6, "layer1", level),
            rtol=1e-6,
            atol=1e-9,
        )
    assert repr(exact).endswith("4 prefixes, sites: layer1)")
    assert len(exact.frame()) == 4


def test_splits_of_many_policies_are_one_frame_with_a_column_for_every_knob():
    world = costate.world("TokenCopy", V=2, length=2)
    policies = costate.random_policies(world, seeds=2, temperatures=(0.5, 1), offsets=(0, 2), width=8)
    frame = costate.error_split(world, policies, alpha=(0.3, 1), site="layer1")
    assert len(frame) == 2 * 2 * 2 * 2 * len(world.prompts)
    assert list(frame.columns[:5]) == ["seed", "temperature", "offset", "alpha", "prompt"]
    for label, policy in policies.items():
        same = frame[(frame[["seed", "temperature", "offset"]] == pd_row(label)).all(axis=1) & (frame["alpha"] == 0.3)]
        split = error_split(world, policy, 0.3, "layer1")
        assert same["error"].tolist() == split.error.tolist()
        assert same["tier1"].tolist() == split.tiers[1].tolist()
    one = costate.error_split(world, next(iter(policies.values())))
    assert list(one["policy"]) == [0] * len(world.prompts)
    named = costate.error_split(world, {"mine": next(iter(policies.values()))})
    assert set(named["policy"]) == {"mine"}
    assert named["error"].tolist() == one["error"].tolist()
    assert len(costate.error_split(world, list(policies.values())[:3])["policy"].unique()) == 3


def pd_row(label):
    return [label.seed, label.temperature, label.offset]


def test_the_chaotic_maps_gradient_is_a_difference_of_its_return():
    world = costate.world("ChaoticMap", beta=1.5, horizon=4)
    up, down = costate.exact(world, 1.0 + 1e-5), costate.exact(world, 1.0 - 1e-5)
    slopes = (up.expected_return - down.expected_return) / 2e-5
    close(costate.exact(world, 1).gradient, slopes, rtol=1e-7, atol=1e-9)
    assert not torch.allclose(costate.exact(world, 0.5).gradient, slopes, rtol=0.1)


def test_what_has_no_exact_answer_is_refused_in_one_line():
    world = costate.world("TokenCopy", V=2, length=1)
    for call, told in [
        (lambda: costate.exact(world, [[1.0]]), "policy must be one over tokens"),
        (lambda: costate.exact("TokenCopy", None), "world must be a TokenMDP or a LinearQuadratic"),
        (lambda: costate.exact(system(), "best"), "K must be real numbers"),
        (lambda: costate.exact(costate.world("ChaoticMap"), [1.0]), "policy must be a number in the chaotic map"),
        (lambda: costate.exact(costate.world("ChaoticMap"), float("nan")), "policy must be a finite number"),
        (lambda: costate.exact(system(), [[1.0]]), "K must"),
        (lambda: costate.error_split(world, []), "policies must hold at least one"),
        (lambda: costate.error_split(world, {"a": 3}), "policies must be over tokens .*; policy 'a' is 3"),
        (lambda: costate.world("TokenPartiy"), "did you mean TokenParity"),
    ]:
        with pytest.raises(costate.InputError, match=told) as error:
            call()
        assert "\n" not in str(error.value)


def test_the_frame_of_a_system_has_the_gain_and_the_offset_of_every_time():
    K = torch.arange(6.0, dtype=torch.float64).reshape(3, 1, 2) / 10
    k = torch.tensor([[0.1], [0.2], [0.3]], dtype=torch.float64)
    answers = costate.exact(system(3), (K, k))
    frame = answers.frame()
    assert frame["t"].tolist() == [0, 1, 2, 3]
    for name, known in {"K.0.0": K[:, 0, 0], "K.0.1": K[:, 0, 1], "k.0": k[:, 0]}.items():
        assert frame[name].iloc[:3].tolist() == known.tolist()
        assert np.isnan(frame[name].iloc[3])  # no action at the end
    x, y = 0.7, -1.1
    state = torch.tensor([x, y], dtype=torch.float64)
    values = [
        -(r["P.0.0"] * x * x + 2 * r["P.0.1"] * x * y + r["P.1.1"] * y * y + 2 * (r["p.0"] * x + r["p.1"] * y) + r["c"])
        for _, r in frame.iterrows()
    ]
    assert values == pytest.approx([float(answers.value.value(state, t)) for t in range(4)])
    assert len(set(values)) == 4


def test_a_linear_policy_brings_its_offset():
    pair = [[0.4, 0.5]], [0.2]
    one, other = costate.exact(system(), costate.LinearPolicy(*pair)), costate.exact(system(), pair)
    assert (float(one.J), one.offset_gradient.tolist()) == (float(other.J), other.offset_gradient.tolist())
    assert float(one.J) != float(costate.exact(system(), pair[0]).J)


def test_a_grid_of_policies_holds_the_networks_that_its_labels_name():
    world = costate.world("TokenCopy", V=3, length=3)
    policies = costate.random_policies(world, seeds=(4, 7), temperatures=(0.5, 2), offsets=1, width=12, layers=1)
    x = torch.arange(2)[None] % world.V
    length = world.prompts.shape[1] + world.horizon
    assert [(p.seed, p.temperature, p.offset) for p in policies] == [(4, 0.5, 1), (4, 2, 1), (7, 0.5, 1), (7, 2, 1)]
    seen = set()
    for label, policy in policies.items():
        alone = costate.Transformer(world.V, length=length, width=12, layers=1, **label._asdict())
        logits = policy(policy.embed(x))
        close(logits, alone(alone.embed(x)), rtol=0, atol=0)
        assert policy.length == length
        seen.add(tuple(logits.flatten().tolist()))
    assert len(seen) == 4
