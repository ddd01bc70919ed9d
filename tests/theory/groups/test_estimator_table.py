"""The table of estimators of a policy: against whole completions run one by one, for any world, prompt and estimator."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from agents.policies.nucleus import Nucleus
from agents.policies.prefix_table import PrefixTable
from envs.token_mdp import TokenMDP
from envs.token_tasks import combination_lock, garnet, sum_and_stop
from envs.tool_tasks import ask_oracle
from envs.world import InputError
from tests.envs.refusals import refused
from tests.theory.groups.enumeration import Enumeration, two_prompts
from tests.theory.groups.test_estimators import by_loops
from tests.theory.groups.test_speech_updates import own_scores
from tests.theory.speech_cases import Conversations, talking
from tests.theory.token_cases import several_prompts, transformer
from tests.typecheck import unchecked
from theory.differences import central_gradient
from theory.groups.estimator_table import _check_pairs, estimator_table, outcomes
from theory.groups.estimators import ESTIMATORS, reinforce
from theory.groups.variance import hoeffding
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import tree_gradients

WORLDS = {
    "two prompts, chance": two_prompts(),
    "end token": sum_and_stop(2, 3, gamma=0.7),
    "lock": combination_lock(2, 2),
    "tool that answers": ask_oracle(2, 1, noise=0.2, cost=0.1, gamma=0.9),
    "two prompts, the environment speaks": talking(2),
}


def whole_completions(world, policy):
    """Prompt, probability, return and score of every completion with its states, by running whole contexts."""
    if world.speech is not None:
        every = Conversations(world)
        return every, every.p(policy).detach(), own_scores(every, policy), every.words
    every = Enumeration(world)
    totals = (every.evaluate(policy)[0] * every.mask).sum(1)
    s = [torch.autograd.grad(x, list(policy.parameters()), retain_graph=True, allow_unused=True) for x in totals]
    flat = [
        torch.cat(
            [(torch.zeros_like(q) if g is None else g).flatten() for g, q in zip(x, policy.parameters(), strict=True)]
        )
        for x in s
    ]
    return every, every.chances(policy), torch.stack(flat), [word for _, word, _ in every.words]


def merged(world, policy, prompt):
    """p, f, s of the outcomes of a prompt: completions that agree in tokens and rewards together."""
    every, p, s, words = whole_completions(world, policy)
    found = {}
    for i, row in enumerate(every.rewards):
        if int(every.prompt[i]) == prompt and float(p[i]) > 0:
            key = (*words[i], *(round(float(x), 9) for x in row))
            known = found.setdefault(key, [0.0, float(row.sum()), s[i].numpy()])
            known[0] += float(p[i])
    p, f, s = (np.array(x) for x in zip(*found.values(), strict=True))
    return p, f, s


@pytest.mark.parametrize("place", WORLDS)
def test_every_row_is_that_of_all_ordered_draws_of_whole_completions(place):
    world = WORLDS[place]
    policy = transformer(world, temperature=0.3, seed=1)
    table = estimator_table(world, policy).set_index("estimator")
    weights, cases = world.weights.numpy(), [merged(world, policy, i) for i in range(len(world.prompts))]
    truth = tree_gradients(world, policy).flat.numpy()
    assert list(table.index) == list(ESTIMATORS)
    for name, row in table.iterrows():
        if max(len(p) for p, _, _ in cases) > 20 and name.startswith("unordered set"):
            continue  # the loops over Kool's formula take long
        moments = [by_loops(name, *case) for case in cases]
        means = np.array([mean for _, mean, _ in moments])
        mean = weights @ means
        variance = weights @ [v for *_, v in moments] + weights @ ((means - mean) ** 2).sum(1)
        assert row["variance"] == pytest.approx(variance, rel=1e-8)
        assert np.linalg.norm(mean - truth) < 1e-9 * max(1.0, np.linalg.norm(truth))
        assert row["bias"] < 1e-9
        assert row["noise_to_signal"] == pytest.approx(variance / (truth @ truth), rel=1e-8)


def test_one_prompt_alone_is_the_world_of_that_prompt():
    world = several_prompts(2)
    policy = transformer(world, seed=2)
    for prompt in range(2):
        alone = TokenMDP(world.P, world.r, world.prompts[[prompt]], world.starts[[prompt]], 2, 0.8)
        left, right = estimator_table(world, policy, prompt), estimator_table(alone, policy)
        pd.testing.assert_frame_equal(left, right, rtol=1e-9, atol=1e-12)
    both, one = estimator_table(world, policy), estimator_table(world, policy, 0)
    assert not np.allclose(both["variance"], one["variance"], rtol=1e-3), "the control"


def test_the_gradient_of_one_prompt_is_that_of_central_differences():
    world = several_prompts(2)
    table = PrefixTable(world, seed=0)
    p, f, s = outcomes(grow(world, table), table, 1)

    def value(x):
        tree = grow(world, PrefixTable(world, x.reshape(-1, world.V)))
        return tree.V[0][1].detach()

    slopes = central_gradient(value, table.logits.detach().flatten())
    torch.testing.assert_close(p @ (f[:, None] * s), slopes, rtol=1e-6, atol=1e-8)
    assert float((p @ s).abs().max()) < 1e-14


def test_alike_completions_are_one_outcome():
    world = sum_and_stop(2, 3)
    policy = transformer(world)
    p, _, _ = outcomes(grow(world, policy), policy)
    assert len(p) == 1 + 2 + 4 * 3  # at once, after one number, two numbers and then anything
    world = two_prompts()
    policy = transformer(world)
    tree = grow(world, policy)
    drawn, mean = (outcomes(tree, policy, 1, returns) for returns in ("drawn", "mean"))
    assert len(mean.p) == world.V**world.horizon < len(drawn.p)
    assert float(drawn.p @ drawn.f) == pytest.approx(float(mean.p @ mean.f), rel=1e-12)


@pytest.mark.parametrize("place", ["two prompts, chance", "tool that answers"])
def test_mean_returns_leave_the_mean_and_less_variance(place):
    world = WORLDS[place]
    policy = transformer(world, temperature=0.3, seed=1)
    drawn, mean = (estimator_table(world, policy, returns=x).set_index("estimator") for x in ("drawn", "mean"))
    assert float(mean["bias"].max()) < 1e-9
    for name in ("REINFORCE", "value baseline", "RLOO"):
        assert mean.loc[name, "variance"] < drawn.loc[name, "variance"]


def test_rloo_agrees_with_hoeffding_and_the_basis_changes_no_length():
    world = garnet(V=2, horizon=3, seed=1, gamma=0.9)
    policy = transformer(world, seed=3)
    p, f, s = outcomes(grow(world, policy), policy)
    table = estimator_table(world, policy).set_index("estimator")
    assert table.loc["RLOO", "variance"] == pytest.approx(sum(hoeffding(p, f, s, 2)), rel=1e-9)
    seen = []

    def look(p, f, s):
        seen.append(s @ s.mT)
        return reinforce(p, f, s)

    estimator_table(world, policy, extra={"mine": look})
    torch.testing.assert_close(seen[0], s @ s.mT, rtol=1e-9, atol=1e-12)


def test_an_estimator_of_ones_own_stands_beside_the_others_and_a_biased_one_is_seen():
    world = sum_and_stop(2, 3)
    policy = transformer(world, temperature=0.3)

    def one_draw(p, f, s):
        return p, f[:, None] * s

    def halved(p, f, s):
        chances, gradients = reinforce(p, f, s)
        return chances, gradients / 2

    def listed(p, f, s):
        return p.tolist(), (f[:, None] * s).tolist()

    extra = {"one draw": one_draw, "halved": halved, "lists": listed}
    table = estimator_table(world, policy, extra=extra).set_index("estimator")
    assert list(table.index)[-3:] == list(extra)
    assert table.loc["one draw", "variance"] == pytest.approx(2 * table.loc["REINFORCE", "variance"], rel=1e-9)
    assert table.loc["lists", "variance"] == pytest.approx(table.loc["one draw", "variance"], rel=1e-12)
    size = float(tree_gradients(world, policy).flat.norm())
    assert table.loc["halved", "bias"] == pytest.approx(size / 2, rel=1e-9)
    assert table.loc["one draw", "bias"] < 1e-9


def test_policies_in_float32_with_impossible_tokens_or_without_a_gradient():
    world = sum_and_stop(2, 3)
    single = transformer(world, seed=1).float()
    double = transformer(world, seed=1)
    double.load_state_dict({k: v.double() for k, v in single.state_dict().items()})
    one, two = (estimator_table(world.to("cpu", x.head.weight.dtype), x) for x in (single, double))
    np.testing.assert_allclose(one["variance"], two["variance"], rtol=1e-4)
    cut = Nucleus(transformer(world, temperature=0.2, seed=1), 0.8)
    table = estimator_table(world, cut)
    assert len(outcomes(grow(world, cut), cut).p) < 15
    assert float(table["bias"].max()) < 1e-9
    flat = TokenMDP.from_rewards([[1.0, 1.0], [1.0, 1.0]])
    nothing = estimator_table(flat, transformer(flat))
    assert float(nothing["variance"].iloc[2]) < 1e-25
    assert all(math.isnan(x) or x > 1e-3 for x in nothing["noise_to_signal"])
    sure = TokenMDP.from_rewards([[1.0], [0.0]][:1])
    assert float(estimator_table(sure, transformer(sure))["variance"].max()) < 1e-25


@unchecked()
def test_bad_input_is_refused_in_one_line(monkeypatch):
    world = two_prompts()
    policy = transformer(world)
    with refused("world"):
        estimator_table("TokenParity", policy)
    with refused("prompt"):
        estimator_table(world, policy, prompt=-1)
    with pytest.raises(InputError, match=r"^prompt=2 does not exist: the world has prompts 0 ... 1$"):
        estimator_table(world, policy, prompt=2)
    with pytest.raises(InputError, match="returns"):
        estimator_table(world, policy, returns="both")
    for wrong in (
        lambda p, f, s: p,
        lambda p, f, s: (p * 2, s),
        lambda p, f, s: (p, s[:, :1] * math.nan),
        lambda p, f, s: (p[1:], s),
        lambda p, f, s: (p, s @ s),
        lambda p, f: (p, f),
    ):
        with pytest.raises(
            InputError, match=r"^extra\['mine'\] must give \(chances, gradients\), one row for each chance: .*$"
        ):
            estimator_table(world, policy, extra={"mine": wrong})
    with pytest.raises(InputError, match=r"^extra\['mine'\] must give gradients as long as the scores"):
        estimator_table(world, policy, extra={"mine": lambda p, f, s: (p, s[:, :1])})
    with pytest.raises(InputError, match=r"^\d+ completions x \d+ parameters need"):
        outcomes(grow(world, policy), policy, budget=2**12)
    with pytest.raises(InputError, match=r"^world has \d+ completions of a prompt, whose pairs need"):
        _check_pairs(10**5, 100, 2**30)
