"""Token tables: belief and reward against plain look-ups, bilinearity, simulation; every refusal of the docstring."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.token_mdp import TokenMDP, check_tokens
from envs.token_tasks import garnet, sum_and_stop
from envs.world import InputError
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by

S, V, H = 4, 3, 3


def random_tables(seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet([0.5] * S, (S, V)), rng.standard_normal((H, S, V))


def world(**changes):
    P, r = random_tables()
    given = {"P": P, "r": r, "prompts": [[0, 1], [2, 2]], "starts": [3, 1], "horizon": H, "gamma": 0.9}
    return TokenMDP(**(given | changes))


def simplex(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1]))


def onehot(i, size):
    return torch.eye(size, dtype=torch.float64)[i]


def test_steps_and_rewards_of_one_hot_tokens_are_table_look_ups():
    mdp = world()
    P, r = random_tables()
    for z, a, k in np.ndindex(S, V, H):
        belief, token = onehot(z, S), onehot(a, V)
        np.testing.assert_allclose(mdp.step(belief, token), P[z, a], rtol=1e-14)
        np.testing.assert_allclose(mdp.reward(k, belief, token), r[k, z, a], rtol=1e-14)


@pytest.mark.parametrize("name", ["step", "reward"])
def test_they_are_bilinear_in_belief_and_relaxed_token(name):
    f = {"step": world().step, "reward": lambda b, u: world().reward(1, b, u)}[name]
    b, c, u, v = simplex(S), simplex(S, seed=1), simplex(V, seed=2), simplex(V, seed=3)
    mixed = 0.18 * f(b, u) + 0.12 * f(b, v) + 0.42 * f(c, u) + 0.28 * f(c, v)
    torch.testing.assert_close(f(0.3 * b + 0.7 * c, 0.6 * u + 0.4 * v), mixed, rtol=1e-13, atol=1e-14)
    assert not torch.allclose(f(b, u), f(c, u))
    assert not torch.allclose(f(b, u), f(b, v))


def test_relaxed_steps_are_the_double_sum_and_stay_on_the_simplex():
    P, r = random_tables()
    b, u = simplex(5, S), simplex(5, V, seed=1)
    after, paid = np.zeros((5, S)), np.zeros(5)
    for i, z, a in np.ndindex(5, S, V):
        after[i] += float(b[i, z] * u[i, a]) * P[z, a]
        paid[i] += float(b[i, z] * u[i, a]) * r[2, z, a]
    np.testing.assert_allclose(world().step(b, u), after, rtol=1e-13)
    np.testing.assert_allclose(world().reward(2, b, u), paid, rtol=1e-12)
    np.testing.assert_allclose(world().step(b, u).sum(-1), 1, rtol=1e-14)


@pytest.mark.parametrize(("prompt", "tokens"), [(0, [1, 2]), (1, [0, 0, 2])])
def test_the_belief_after_a_prefix_is_how_often_simulation_ends_in_each_state(prompt, tokens):
    P, rng = random_tables()[0], np.random.default_rng(7)
    ends = np.full(20_000, [3, 1][prompt])
    for token in tokens:
        ends = (P[ends, token].cumsum(-1) < rng.random((20_000, 1))).sum(-1)
    reached = np.eye(S)[ends]
    assert_mean_within(reached, world().belief_after(prompt, torch.tensor(tokens)))
    assert differs_by(reached, world().belief_after(prompt, torch.tensor(tokens[::-1] if prompt == 0 else [0, 0, 1])))


def test_start_beliefs_are_one_hot_at_the_start_states():
    torch.testing.assert_close(world().start_belief(1), onehot(1, S))
    torch.testing.assert_close(world().start_belief(torch.tensor([[1, 0]])), onehot([1, 3], S)[None])
    torch.testing.assert_close(world().belief_after(0, torch.tensor([], dtype=torch.int64)), onehot(3, S))


def test_sizes_defaults_and_a_table_for_every_step():
    r = random_tables()[1][0]
    mdp = world(r=r)
    assert (mdp.S, mdp.V) == (S, V)
    assert mdp.r.shape == (H, S, V)
    assert (mdp.r == torch.from_numpy(r)).all()
    assert mdp.weights.tolist() == [0.5, 0.5]
    assert world(weights=[0.25, 0.75]).weights.tolist() == [0.25, 0.75]
    assert mdp.optimal_return is None
    assert mdp.P.dtype == mdp.r.dtype == torch.float64


def test_deterministic_means_that_every_token_leads_to_one_state():
    sure = np.zeros((2, 2, 2))
    sure[:, :, 1] = 1
    tables = {"r": np.zeros((2, 2)), "prompts": [[0]], "starts": [0], "horizon": 1}
    assert TokenMDP(sure, **tables).deterministic
    sure[1, 0] = 0.5
    assert not TokenMDP(sure, **tables).deterministic


def test_another_dtype_keeps_whole_numbers_and_the_same_one_keeps_the_world():
    mdp = world()
    single = mdp.to(dtype=torch.float32)
    assert mdp.to() is mdp
    assert (single.P.dtype, single.r.dtype, single.weights.dtype) == (torch.float32,) * 3
    assert single.prompts.dtype == single.starts.dtype == torch.int64
    assert (single.horizon, single.gamma, single.V) == (H, 0.9, V)
    assert single.step(simplex(S).float(), simplex(V).float()).dtype == torch.float32
    torch.testing.assert_close(single.P.double(), mdp.P, atol=1e-7, rtol=0)


def spoiled(name, index, value):
    tables = dict(zip("Pr", random_tables(), strict=True))
    tables[name][index] = value
    return {name: tables[name]}


REFUSED = {
    "row too large": ("P[1, 2]", spoiled("P", (1, 2), [0.5, 0.5, 0.5, 0.0])),
    "row of zeros": ("P[0, 1]", spoiled("P", (0, 1), 0.0)),
    "nearly one": ("P[3, 0]", spoiled("P", (3, 0), [0.5, 0.5 - 1e-7, 0.0, 0.0])),
    "negative": ("P", spoiled("P", (1, 2), [1.5, -0.5, 0.0, 0.0])),
    "NaN in P": ("P", spoiled("P", (0, 0, 0), np.nan)),
    "NaN in r": ("r", spoiled("r", (0, 0, 0), np.nan)),
    "infinite r": ("r", spoiled("r", (2, 3, 1), -np.inf)),
    "P of two dimensions": ("P", {"P": np.eye(S)}),
    "P not square": ("P", {"P": np.ones((S, V, 1))}),
    "P ragged": ("P", {"P": [[[1.0]], [[0.5, 0.5]]]}),
    "P of words": ("P", {"P": "table"}),
    "r too short": ("r", {"r": np.zeros((H - 1, S, V))}),
    "r transposed": ("r", {"r": np.zeros((V, S))}),
    "token = V": ("prompts:", {"prompts": [[0, V], [0, 0]]}),
    "token < 0": ("prompts:", {"prompts": [[0, -1], [0, 0]]}),
    "ragged prompts": ("prompts", {"prompts": [[0, 1], [0]]}),
    "one flat prompt": ("prompts", {"prompts": [0, 1]}),
    "no prompts": ("prompts", {"prompts": [], "starts": []}),
    "empty prompt": ("prompts", {"prompts": [[], []]}),
    "half a token": ("prompts", {"prompts": [[0.5, 1.0], [0.0, 0.0]]}),
    "words": ("prompts", {"prompts": [["a", "b"], ["c", "d"]]}),
    "state = S": ("starts:", {"starts": [0, S]}),
    "state < 0": ("starts:", {"starts": [0, -1]}),
    "too few starts": ("starts", {"starts": [0]}),
    "half a state": ("starts", {"starts": [0.5, 1.0]}),
    "no horizon": ("horizon", {"horizon": 0}),
    "gamma 0": ("gamma", {"gamma": 0.0}),
    "gamma > 1": ("gamma", {"gamma": 1.01}),
    "gamma NaN": ("gamma", {"gamma": float("nan")}),
    "weights of sum 2": ("weights", {"weights": [1.0, 1.0]}),
    "negative weight": ("weights", {"weights": [1.5, -0.5]}),
    "too many weights": ("weights", {"weights": [0.5, 0.25, 0.25]}),
    "NaN weight": ("weights", {"weights": [np.nan, 1.0]}),
}


@pytest.mark.parametrize(("argument", "changes"), REFUSED.values(), ids=REFUSED)
def test_tables_that_do_not_fit_are_refused(argument, changes):
    world()
    with refused(argument):
        world(**changes)


@pytest.mark.parametrize("horizon", [None, True])
def test_an_endless_token_world_is_refused_where_nobody_checks_types(horizon):
    given = dict(world().__dict__) | {"horizon": horizon}
    unchecked = object.__new__(TokenMDP)
    for name, value in given.items():
        object.__setattr__(unchecked, name, value)
    with refused("horizon"):
        unchecked.__post_init__()


def test_rounding_in_a_row_is_forgiven():
    P = random_tables()[0]
    P[0, 0] *= 1 + 1e-13
    assert world(P=P).S == S


@pytest.mark.parametrize("token", [V, -1, 99])
def test_tokens_outside_the_vocabulary_are_refused_by_name(token):
    with refused(f"token {token}"):
        check_tokens(world(), torch.tensor([0, token, 1]))
    with refused(f"token {token}"):
        world().belief_after(0, torch.tensor([token]))
    assert check_tokens(world(), torch.tensor([0, V - 1])).tolist() == [0, V - 1]


def test_without_an_end_token_every_token_counts_and_with_one_all_up_to_the_first():
    tokens = torch.tensor([[0, 1, 2, 1], [2, 2, 0, 0], [0, 0, 0, 0]])
    assert garnet(V=3).mask(tokens).all()
    assert sum_and_stop(2, 4).mask(tokens).tolist() == [[True] * 3 + [False], [True] + [False] * 3, [True] * 4]


@pytest.mark.parametrize("end", [3, -1, 1.0, "x"])
def test_an_end_token_outside_the_vocabulary_is_refused(end):
    world = sum_and_stop(2, 3)
    with refused("end"):
        TokenMDP(world.P, world.r, [[0]], [0], 3, end=end)


@pytest.mark.parametrize("spoil", ["paid after", "left again", "readout"])
def test_an_end_token_after_which_something_is_still_paid_is_refused(spoil):
    world = sum_and_stop(2, 3)
    P, r = world.P.clone(), world.r.clone()
    if spoil == "paid after":
        r[2, 2, 0] = 1
    if spoil == "left again":
        P[2, 0] = torch.tensor([1.0, 0, 0])
    with refused("end"):
        TokenMDP(P, r, [[0]], [0], 3, end=2, readout=[1.0] if spoil == "readout" else None)
    TokenMDP(P, r, [[0]], [0], 3, readout=[1.0] if spoil == "readout" else None)


@pytest.mark.parametrize("step", [1, 2])
def test_the_rest_pays_what_the_later_steps_pay_and_the_first_steps_what_they_pay(step):
    """In a world whose rewards differ from step to step."""
    whole = world()
    rest, first = whole.rest(step), whole.first(step)
    assert (rest.horizon, first.horizon) == (3 - step, step)
    for k in range(3 - step):
        assert torch.equal(rest.r[k], whole.r[step + k])
    for k in range(step):
        assert torch.equal(first.r[k], whole.r[k])
    assert not torch.equal(whole.r[0], whole.r[step])
    assert whole.rest(0) is whole
    with refused("step"):
        whole.rest(3)
    with refused("steps"):
        whole.first(4)


def test_signals_go_with_the_world_wherever_it_goes():
    """One table is that of all steps; later steps, first steps, another precision; the world that pays a signal."""
    plain, rng = world(), torch.Generator().manual_seed(3)
    table = torch.rand(3, plain.S, plain.V, generator=rng, dtype=torch.float64)
    told = replace(plain, gamma=0.5, signals={"accuracy": table, "style": table[0].tolist()})
    assert torch.equal(told.signals["style"], table[:1].expand(3, -1, -1))
    assert torch.equal(told.rest(1).signals["accuracy"], table[1:])
    assert torch.equal(told.first(2).signals["accuracy"], table[:2])
    assert told.to("cpu", torch.float32).signals["accuracy"].dtype == torch.float32
    paid = told.paying("accuracy")
    assert torch.equal(paid.r, table)
    assert (paid.gamma, paid.horizon, paid.signals, paid.optimal_return) == (1.0, 3, {}, None)
    assert torch.equal(paid.P, plain.P)
    assert plain.signals == {}
    assert told.gamma == 0.5


@pytest.mark.parametrize(
    "signals",
    [
        [1.0],
        {"accuracy": [1.0]},
        {"accuracy": [[[0.0]]]},
        {"two words": 0.0},
        {1: 0.0},
        {"rewards": 0.0},
        {"ended": 0.0},
        {"accuracy": "x"},
        {"accuracy": [[float("nan")] * 3] * 3},
    ],
)
def test_signals_that_are_no_tables_of_their_own_names_are_refused(signals):
    base = sum_and_stop(2, 3)
    with pytest.raises(InputError, match=r"^signals"):
        replace(base, signals=signals)
    with refused("signals"):
        base.paying("style")


def test_a_signal_after_the_end_is_refused():
    base = sum_and_stop(2, 3)
    late = base.r.clone()
    late[2, 2, 0] = 1
    with refused("end"):
        replace(base, signals={"accuracy": late})


@pytest.mark.parametrize(("off", "sound"), [(1e-5, True), (1e-4, False)])
def test_long_rows_of_single_precision_may_miss_one_by_the_rounding_of_their_length(off, sound):
    row = torch.full((200,), (1 + off) / 200, dtype=torch.float32)
    given = {
        "P": torch.ones(1, 200, 1),
        "r": np.zeros((1, 200)),
        "prompts": [[0]] * 200,
        "starts": [0] * 200,
        "horizon": 1,
    }
    if sound:
        assert float(TokenMDP(**given, weights=row).weights.sum()) == pytest.approx(1, abs=1e-15)
        return
    with refused("weights"):
        TokenMDP(**given, weights=row)
