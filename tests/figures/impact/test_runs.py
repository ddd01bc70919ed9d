"""The impact study in a tiny world: complete rows, gains of one copy trained alone, the KL of an independent enumeration."""

import copy
import inspect
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from agents.policies.transformer import Transformer
from agents.recipes.learners import grpo, rloo, value_gradient
from agents.training.copies import Copies
from agents.training.noise import noise_of
from agents.training.pretraining import next_token_loss, pretrain
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.skills import skills
from envs.token_tasks import sum_and_stop
from figures.impact.numbers import PREDICTORS, Definitions, describe_policy
from figures.impact.runs import (
    Recipe,
    corpus_of,
    evaluate,
    gains,
    kl_moved,
    measure,
    recipes,
    settings,
    trajectory,
)
from figures.impact.settings import ImpactSetting
from figures.measures.oracles import TokenOracle
from tests.envs.refusals import refused
from tests.theory.token_cases import enumerate_rollouts, transformer
from theory.tokens.completions import mean_entropy
from theory.tokens.prefix_tree import grow

TINY = ImpactSetting(
    quality=0.9,
    noise=0.1,
    coverage=0.6,
    block=3,
    seeds=2,
    groups=(2, 4),
    sgd=True,
    width=8,
    names="copy,add",
    modulus=2,
    horizon=2,
    updates=9,
    checkpoints=3,
    batch=8,
    pretraining_rate=0.02,
    budgets=(1, 3),
    rows=8,
    rate=0.01,
    sgd_rate=0.5,
    site="layer2",
)
WORLD = skills(2, 2, "copy,add")
FIRST = 11
EXACT = ("exact, Adam", "exact, SGD")
RECIPES = {("GRPO", 2), ("GRPO", 4), ("RLOO", 2), *((name, 1) for name in EXACT)}
STOP = sum_and_stop(2, 3, gamma=0.9)
LEARNERS = {
    "GRPO": Recipe("GRPO", grpo(), 4, "adam", 0.02),
    "RLOO": Recipe("RLOO", rloo(), 2, "adam", 0.02),
    "exact, Adam": Recipe("exact, Adam", value_gradient(), 1, "adam", 0.02),
    "exact, SGD": Recipe("exact, SGD", value_gradient(), 1, "sgd", 0.5),
}


@pytest.fixture(scope="module")
def rows():
    return measure(TINY, torch.Generator().manual_seed(5), "cpu")


@pytest.fixture(scope="module")
def first():
    """The seed that `measure` takes from its generator: its first draw."""
    return int(torch.randint(2**31, (1,), generator=torch.Generator().manual_seed(5)))


@pytest.fixture(scope="module")
def networks(first):
    return [network for point in trajectory(TINY, first, "cpu")[1] for network in point.networks]


def of_kind(rows, kind):
    return [row for row in rows if row["kind"] == kind]


def test_rows_are_complete_every_cell_once(rows):
    points = sorted({row["updates"] for row in rows})
    assert (points[0], points[-1]) == (0, TINY.updates)
    assert TINY.checkpoints <= len(points) <= TINY.checkpoints + 1
    cells = set(itertools.product(points, range(2)))
    known = [(row["updates"], row["trajectory"]) for row in of_kind(rows, "checkpoint")]
    assert (len(known), set(known)) == (len(cells), cells)
    gained = [(r["updates"], r["trajectory"], (r["recipe"], r["group"]), r["budget"]) for r in of_kind(rows, "gain")]
    wanted = {(*cell, recipe, budget) for cell in cells for recipe in RECIPES for budget in TINY.budgets}
    assert (len(gained), set(gained)) == (len(wanted), wanted)
    assert len(rows) == len(known) + len(gained)


def test_rows_say_where_they_come_from_and_hold_finite_numbers(rows):
    label = {"quality": 0.9, "noise": 0.1, "coverage": 0.6, "width": 8, "names": "copy,add"}
    assert len({row["run"] for row in rows}) == 1
    for row in rows:
        assert {name: row[name] for name in label} == label
        assert row["tokens"] == row["updates"] * 8 * 5  # eight documents of three and two tokens
        assert all(np.isfinite(x) for x in row.values() if not isinstance(x, str))
    for row in of_kind(rows, "checkpoint"):
        assert set(PREDICTORS) <= set(row)
    for row in of_kind(rows, "gain"):
        assert {"gain", "J_after", "H_after"} <= set(row)
        assert ("kl" in row) == (row["budget"] == 3)  # the last budget


def test_every_row_bears_the_labels_of_its_own_network(rows, first):
    """In the order of the rows a wrong label would be as regular as a right one: the return says whose row it is."""
    path = trajectory(TINY, first, "cpu")[1]
    labels = {(c, point.updates, point.tokens, i): point.networks[i] for c, point in enumerate(path) for i in range(2)}
    returns = {label: exact(WORLD, network)[0] for label, network in labels.items()}
    for row in rows:
        own = row["J"] if row["kind"] == "checkpoint" else row["J_after"] - row["gain"]
        label = (row["checkpoint"], row["updates"], row["tokens"], row["trajectory"])
        assert own == pytest.approx(returns[label], rel=1e-9)
    others = [abs(a / b - 1) for a, b in itertools.combinations(returns.values(), 2)]
    assert min(others) > 1e-6, "the control: no two networks have one return"


def test_every_row_says_what_a_perfect_reader_of_its_own_corpus_would_have(rows):
    """Nine answers of ten are right, else one of two numbers; a tenth of the tokens is replaced by one of four."""
    right, guessed = 0.9 + 0.1 / 4, 0.9 / 2 + 0.1 / 4
    truth = 0.9 * right**2 + 0.1 * guessed**2
    for row in of_kind(rows, "checkpoint"):
        assert row["reader"] == pytest.approx(truth, rel=1e-12)
    assert abs(truth - right**2) > 0.05, "the control: without guesses"


def test_the_first_checkpoint_after_the_start_is_that_of_eight_updates(rows):
    points = sorted({row["updates"] for row in rows})
    assert points == [0, 8, 9]
    assert [point.updates for point in trajectory(replace(TINY, updates=5), 1, "cpu")[1]] == [0, 5]


def test_pretraining_has_one_default_for_its_batch_and_one_for_its_rate():
    """In the study and in the function; the second road is the other's signature."""
    own = {name: parameter.default for name, parameter in inspect.signature(pretrain).parameters.items()}
    assert (own["batch"], own["rate"]) == (ImpactSetting().batch, ImpactSetting().pretraining_rate)


def numbers_of(rows, budget=None):
    """The rows without the name of their setting and, for gains, those after so many updates without their KL."""
    kept = [row for row in rows if row.get("budget") == budget]
    return [{name: x for name, x in row.items() if name not in ("run", "kl")} for row in kept]


def test_the_same_generator_gives_the_same_rows(rows):
    small = replace(TINY, budgets=(1,), groups=(2,), sgd=False)
    again = measure(small, torch.Generator().manual_seed(5), "cpu")
    assert numbers_of(again) == numbers_of(rows)  # what is known before RL does not depend on RL
    recipes_too = [
        row for row in numbers_of(rows, 1) if (row["recipe"], row["group"]) not in (("GRPO", 4), (EXACT[1], 1))
    ]
    assert numbers_of(again, 1) == recipes_too  # nor do gains depend on what else is run, or for how long
    assert len(recipes_too) == 18
    assert again[0]["run"] != rows[0]["run"]


def test_another_seed_has_other_networks(networks, first):
    _, path = trajectory(TINY, first + 2, "cpu")
    others = [network for point in path for network in point.networks]
    for one, other in zip(networks, others, strict=True):
        assert not torch.equal(next(one.parameters()), next(other.parameters()))
    generator = torch.Generator().manual_seed(6)
    assert int(torch.randint(2**31, (1,), generator=generator)) not in (first, first + 1)


def test_what_is_known_of_a_checkpoint_are_the_numbers_of_its_own_network(rows, networks):
    known = of_kind(rows, "checkpoint")
    assert len(known) == len(networks)
    for row, network in zip(known, networks, strict=True):
        truth = describe_policy(WORLD, network, Definitions(site="layer2"))
        assert {name: row[name] for name in truth} == pytest.approx(truth, rel=1e-9, abs=1e-14)
    assert len({row["J"] for row in known}) == len(known)
    at_another_site = describe_policy(WORLD, networks[-1])["costate"]
    assert at_another_site != pytest.approx(known[-1]["costate"], rel=1e-3)


def test_a_trajectory_is_one_network_trained_alone_by_a_plain_loop(networks, first):
    corpus, seed = corpus_of(TINY), first + 1
    network, rng = Transformer(4, None, 8, 2, 2, 5, seed=seed), noise_of("documents", seed)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), networks[1].parameters(), strict=True))
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(TINY.updates):
        optimiser.zero_grad()
        next_token_loss(network, corpus.draw(8, rng)).backward()
        optimiser.step()
    for p, truth in zip(networks[-1].parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(p, truth, rtol=1e-6, atol=1e-8)


def exact(world, network):
    with torch.no_grad():
        tree = grow(world, network)
        return float(tree.J), float(mean_entropy(tree))


def alone(world, network, recipe, seed, budgets=TINY.budgets, rows=TINY.rows):
    """One copy by itself: budget -> exact return and entropy; the network in the end."""
    _, learner, group, optimiser, rate = recipe
    prompts = 1 if learner.exact else rows // group
    settings = TrainingSettings(budgets[-1], prompts, group, rate=rate, optimiser=optimiser)
    oracle, after = TokenOracle(world) if learner.exact else None, {}
    trainer = Trainer(TokenTask(world), learner, [network], [seed], settings, oracle)
    for done in range(1, budgets[-1] + 1):
        trainer.step()
        after[done] = exact(world, trainer.policies[0])
    return {budget: after[budget] for budget in budgets}, trainer.policies[0]


@pytest.mark.parametrize(("name", "group"), sorted(RECIPES))
@pytest.mark.parametrize("index", [0, 5])
def test_gains_are_those_of_one_copy_trained_alone(rows, networks, first, name, group, index):
    rate = TINY.sgd_rate if name == EXACT[1] else TINY.rate
    recipe, network, seed = LEARNERS[name]._replace(group=group, rate=rate), networks[index], first + index
    before = exact(WORLD, network)[0]
    after, own = alone(WORLD, network, recipe, seed)
    known = of_kind(rows, "checkpoint")[index]
    cell = [r for r in of_kind(rows, "gain") if (r["updates"], r["trajectory"]) == (known["updates"], index % 2)]
    ours = {r["budget"]: r for r in cell if (r["recipe"], r["group"]) == (name, group)}
    for budget, (J, H) in after.items():
        assert ours[budget]["gain"] == pytest.approx(J - before, rel=1e-5, abs=1e-10)
        assert ours[budget]["J_after"] == pytest.approx(J, rel=1e-8)
        assert ours[budget]["H_after"] == pytest.approx(H, rel=1e-8)
        assert known["J"] + ours[budget]["gain"] == pytest.approx(J, rel=1e-8)
    assert ours[3]["kl"] == pytest.approx(divergence(WORLD, network, own), rel=1e-5, abs=1e-12)
    assert abs(ours[3]["gain"]) > 1e-6
    other = alone(WORLD, network, recipe, seed + 1)[0]
    assert (other[3][0] == pytest.approx(after[3][0], rel=1e-8)) == (name in EXACT)  # exact ascent draws nothing


def words_of(world, network, prompt):
    """Different completions of a prompt, each once, and their log-probabilities, by the network on whole contexts."""
    whole, words = enumerate_rollouts(world, network, 1.0), {}
    own = slice(prompt * world.V**world.horizon, (prompt + 1) * world.V**world.horizon)
    for word, log_pi in zip(whole.tokens[own].tolist(), whole.log_pi[0, own].tolist(), strict=True):
        length = word.index(world.end) + 1 if world.end in word else len(word)
        words[tuple(word[:length])] = sum(log_pi[:length])
    return words


def divergence(world, before, after):
    """`KL(after || before)` by scipy over the different completions, mean over prompts by their weights."""
    total = 0.0
    for i, weight in enumerate(world.weights.tolist()):
        old, new = words_of(world, before, i), words_of(world, after, i)
        total += weight * stats.entropy([np.exp(new[word]) for word in new], [np.exp(old[word]) for word in new])
    return total


@pytest.mark.parametrize(
    "world",
    [WORLD, STOP, replace(sum_and_stop(3, 3), weights=[0.9, 0.1])],
    ids=["skills", "stop", "stop, uneven"],
)
def test_the_kl_moved_is_that_of_different_completions_and_0_where_nothing_moved(world):
    before, after = ([transformer(world, temperature=0.5, seed=s) for s in pair] for pair in ((1, 2), (3, 4)))
    first, last = evaluate(world, Copies(before)), evaluate(world, Copies(after))
    moved = kl_moved(world, first, last)
    truth = [divergence(world, *pair) for pair in zip(before, after, strict=True)]
    assert moved.tolist() == pytest.approx(truth, rel=1e-9)
    assert kl_moved(world, first, first).abs().max() < 1e-14
    backwards = kl_moved(world, last, first)
    assert (backwards / moved - 1).abs().min() > 1e-2
    alone = kl_moved(world, evaluate(world, Copies(before[:1])), evaluate(world, Copies(after[:1])))
    assert alone.tolist() == pytest.approx(truth[:1], rel=1e-9)
    for i, network in enumerate(before):
        tree = grow(world, network)
        assert float(first.J[i]) == pytest.approx(float(tree.J), rel=1e-12)
        assert float(first.entropy[i]) == pytest.approx(float(mean_entropy(tree)), rel=1e-12)


@pytest.mark.parametrize("name", LEARNERS)
def test_gains_where_answers_end_themselves(name):
    recipe = LEARNERS[name]
    networks = [transformer(STOP, seed=s) for s in (1, 2)]
    kept = copy.deepcopy(networks)
    by_budget = gains(STOP, networks, recipe, TINY, FIRST)
    assert list(by_budget) == [1, 3]
    for i, network in enumerate(networks):
        truth, own = alone(STOP, network, recipe, FIRST + i)
        before = exact(STOP, network)[0]
        for budget, (J, H) in truth.items():
            assert float(by_budget[budget]["gain"][i]) == pytest.approx(J - before, rel=1e-5, abs=1e-10)
            assert float(by_budget[budget]["H_after"][i]) == pytest.approx(H, rel=1e-8)
        assert float(by_budget[3]["kl"][i]) == pytest.approx(divergence(STOP, network, own), rel=1e-5)
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), kept[i].parameters(), strict=True))


def test_one_network_alone_is_left_as_it_is_too():
    network, kept = transformer(STOP, seed=1), transformer(STOP, seed=1)
    by_budget = gains(STOP, [network], LEARNERS["GRPO"], TINY, FIRST)
    J = alone(STOP, kept, LEARNERS["GRPO"], FIRST)[0][3][0]
    assert float(by_budget[3]["gain"][0]) == pytest.approx(J - exact(STOP, kept)[0], rel=1e-9)
    assert float(by_budget[3]["kl"][0]) > 1e-6
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), kept.parameters(), strict=True))


def test_recipes_are_the_group_sizes_of_grpo_and_the_three_others():
    chosen = [(name, group, optimiser, rate) for name, _, group, optimiser, rate in recipes(TINY)]
    assert chosen == [
        *(("GRPO", group, "adam", 0.01) for group in (2, 4)),
        ("RLOO", 2, "adam", 0.01),
        (EXACT[0], 1, "adam", 0.01),
        (EXACT[1], 1, "sgd", 0.5),
    ]
    assert [recipe.learner.name for recipe in recipes(TINY)][2] == "rloo"
    assert [recipe.name for recipe in recipes(replace(TINY, sgd=False))] == ["GRPO", "GRPO", "RLOO", EXACT[0]]


def test_the_corpus_is_the_settings_and_the_same_prompts_are_left_out_in_every_block():
    corpus, other = corpus_of(TINY), corpus_of(replace(TINY, block=4))
    assert (corpus.quality, corpus.noise, corpus.coverage) == (0.9, 0.1, 0.6)
    assert corpus.shown.tolist() == other.shown.tolist()
    assert int(corpus.shown.sum()) == 4  # two of four prompts of both skills
    for prompt, answer in zip(corpus.world.prompts.tolist(), corpus.answers.tolist(), strict=True):
        a, b = prompt[1:]
        assert answer == ([a, b] if prompt[0] == 2 else [(a + b) % 2, (a + 2 * b) % 2])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("budgets", ()),
        ("budgets", (0,)),
        ("budgets", (0, 1)),
        ("budgets", (2, 1)),
        ("budgets", (2, 2)),
        ("groups", ()),
        ("groups", (3,)),
        ("groups", (2, 5)),
        ("groups", (1,)),
        ("groups", (2, 1)),
        ("seeds", 0),
        ("updates", 0),
        ("checkpoints", 2),
    ],
)
def test_what_leaves_nothing_to_measure_is_refused(name, value):
    with refused(name):
        replace(TINY, **{name: value})


@pytest.mark.parametrize("preset", ["tiny", "quick", "full"])
def test_settings_are_different_and_can_be_run(preset):
    points = settings(preset)
    assert len(set(points)) == len(points)
    assert all(isinstance(setting, ImpactSetting) and setting.seeds >= 2 for setting in points)  # fewer have no spread
    blocks = {}
    for setting in points:
        blocks.setdefault(replace(setting, block=0, groups=(2,), sgd=False), set()).add(setting.block)
    assert min(map(len, blocks.values())) >= (1 if preset == "tiny" else 2)  # every corpus comes in several blocks
    worlds = {(setting.names, setting.coverage): setting for setting in points}
    for setting in worlds.values():
        corpus = corpus_of(setting)
        assert corpus.length == 3 + setting.horizon
        assert int(corpus.shown.sum()) > 0
    for setting in points:
        keys = [(recipe.name, recipe.group) for recipe in recipes(setting)]
        assert len(set(keys)) == len(keys)
    assert {setting.quality for setting in points} >= {1.0, 0.5}
