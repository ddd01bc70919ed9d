"""Mean updates of group recipes against brute force: the loss of every ordered group, differentiated through the policy."""

import itertools
import math
from copy import deepcopy

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from agents.recipes.batch import Batch
from agents.recipes.learners import Penalty, build_learner, grpo
from agents.sampling.completions import step_rewards
from agents.sampling.tokens import sample_tokens
from envs.token_mdp import TokenMDP
from envs.token_tasks import combination_lock, garnet, sum_and_stop
from figures.measures.token_systems import build_policy, build_world
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.theory.groups.enumeration import WORLDS, Enumeration, policy_of, two_prompts, words_of
from tests.theory.groups.recipes import RECIPES, build
from tests.theory.token_cases import transformer, with_readout
from tests.typecheck import unchecked
from theory.groups.expected_update import expected_update
from theory.groups.outcomes import distinct_outcomes
from theory.tokens.completions import completions
from theory.tokens.prefix_tree import grow

close = torch.testing.assert_close


@unchecked()
def mean_slopes(every, learner, policy, G, behaviour=None, **policies):
    """Minus the slopes of a group's loss in every completion's log-probabilities and entropies, in the mean over groups."""
    tables = [x.detach().requires_grad_() for x in every.evaluate(policy)]
    fields, total = every.fields(behaviour, **policies), torch.zeros((), dtype=torch.float64)
    for group, chance in every.groups(policy if behaviour is None else behaviour, G):
        batch = Batch(group=torch.zeros(G, dtype=torch.int64), **{name: x[group] for name, x in fields.items()})
        total = total - chance * learner.loss(*(x[group] for x in tables), batch)
    return torch.autograd.grad(total, tables, allow_unused=True, materialize_grads=True)


def shifted(every, policy, prefix, site):
    """A zero shift at the end of a prefix (at all of the prompt); log pi and entropies under it; the rows that begin so."""
    (prompt, begun), T = prefix, every.world.prompts.shape[1]
    rows = [i for i, (q, word, _) in enumerate(every.words) if q == prompt and word[: len(begun)] == begun]
    at = slice(0, T) if not begun else slice(T + len(begun) - 1, T + len(begun))
    delta = torch.zeros(at.stop - at.start, policy.width, dtype=torch.float64, requires_grad=True)
    probe = torch.zeros(len(rows), T + every.world.horizon - 1, policy.width, dtype=torch.float64)
    probe = torch.cat([probe[:, : at.start], delta.expand(len(rows), -1, -1), probe[:, at.stop :]], 1)
    return delta, every.evaluate(policy, {site: probe}, rows), rows


def prefixes(world):
    """(prompt, tokens so far) of every prefix after which a token is still to come."""
    words = [(q, word, n) for q, word, n in words_of(world)]
    return sorted({(q, word[:k]) for q, word, n in words for k in range(n)})


def assert_is_the_mean_of_all_groups(update, learner, world, policy, G, site="layer1", **policies):
    """Parameters, and the costates at every prefix: those over the prefix's probability times its discount."""
    every, parameters = Enumeration(world), list(policy.parameters())
    slopes = mean_slopes(every, learner, policy, G, **policies)
    gain = sum((x * y).sum() for x, y in zip(slopes, every.evaluate(policy), strict=True))
    brute = torch.autograd.grad(gain, parameters, allow_unused=True, materialize_grads=True)
    close(update.mean.flat, parameters_to_vector(brute), rtol=1e-9, atol=1e-13)
    assert float(parameters_to_vector(brute).norm()) > 1e-3
    for prompt, begun in prefixes(world) if site in update.mean.costates else []:
        delta, tables, rows = shifted(every, policy, (prompt, begun), site)
        gain = sum((x[rows] * y).sum() for x, y in zip(slopes, tables, strict=True))
        reach = float(world.weights[prompt] * every.chances(policy)[rows].sum())
        costate = torch.autograd.grad(gain, delta)[0] / (reach * world.gamma ** len(begun))
        node = int(every.nodes(len(begun))[rows[0]])
        close(update.mean.costates[site][len(begun)][node], costate, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("place", "G"), [("two prompts", 2), ("when to stop", 3)])
def test_a_recipes_mean_update_is_that_of_all_ordered_groups(place, G, name):
    world, learner = WORLDS[place], build(name)
    policy = policy_of(world)
    update = expected_update(world, policy, learner, G, ("layer1",), prompts=1)
    assert_is_the_mean_of_all_groups(update, learner, world, policy, G)


@pytest.mark.parametrize(("name", "site"), [("grpo", "embedding"), ("dapo", "layer2")])
def test_answers_of_many_lengths_and_more_tokens_have_the_brute_force_mean_too(name, site):
    world, learner = WORLDS["numbers and stop"], build(name)
    policy = policy_of(world, seed=1)
    update = expected_update(world, policy, learner, 2, (site,))
    assert_is_the_mean_of_all_groups(update, learner, world, policy, 2, site)


PENALISED = {
    "k1 in the reward": ("rloo", {"kl_reward": Penalty("k1", 0.5)}),
    "k3 in the reward, to go": ("reinforce", {"to_go": True, "kl_reward": Penalty("k3", 0.5)}),
    "k1 in the loss": ("dr_grpo", {"kl_loss": Penalty("k1", 0.5)}),
    "k2 in the loss": ("grpo", {"kl_loss": Penalty("k2", 0.5)}),
    "k3 in the loss and a bonus": ("grpo", {"kl_loss": Penalty("k3", 0.5), "entropy": 0.3}),
}


@pytest.mark.parametrize("name", PENALISED)
@pytest.mark.parametrize("place", ["two prompts", "when to stop"])
def test_penalties_against_a_reference_have_the_brute_force_mean(place, name):
    (kind, options), world = PENALISED[name], WORLDS[place]
    policy, reference, learner = policy_of(world), policy_of(world, seed=5), build_learner(kind, **options)
    update = expected_update(world, policy, learner, 2, ("layer1",), reference=reference)
    assert_is_the_mean_of_all_groups(update, learner, world, policy, 2, behaviour=policy, reference=reference)
    free = expected_update(world, policy, build_learner(kind), 2)
    acts = float((free.mean.flat - update.mean.flat).norm()) > 1e-3
    assert acts == (name != "k1 in the loss"), "the control: k1 in the loss alone has mean 0"


@pytest.mark.parametrize("place", ["two prompts", "when to stop"])
def test_an_entropy_bonus_alone_has_the_brute_force_mean(place):
    world, learner = WORLDS[place], build_learner("grpo", entropy=0.7)
    policy = policy_of(world)
    update = expected_update(world, policy, learner, 2, ("layer1",))
    assert_is_the_mean_of_all_groups(update, learner, world, policy, 2)


OLDER = {
    "rloo": {},
    "grpo": {"clip": 0.2},
    "dapo": {},
    "gspo": {"low": 0.05, "high": 0.08},
    "cispo": {},
    "ppo": {"lam": 0.5, "clip": 0.2},
}


@pytest.mark.parametrize("name", OLDER)
@pytest.mark.parametrize("place", ["two prompts", "when to stop"])
def test_rows_of_another_policy_have_the_brute_force_mean_with_the_clip_acting(place, name):
    world, learner = WORLDS[place], build_learner(name, entropy=0.2, **OLDER[name])
    policy, behaviour = policy_of(world), policy_of(world, seed=9)
    values = some_values(world) if name == "ppo" else None
    update = expected_update(world, policy, learner, 2, ("layer1",), behaviour=behaviour, values=values)
    assert_is_the_mean_of_all_groups(update, learner, world, policy, 2, behaviour=behaviour, critic=values)
    if "clip" in OLDER[name]:
        loose = build_learner(name, entropy=0.2, **OLDER[name] | {"clip": 1e9})
        free = expected_update(world, policy, loose, 2, behaviour=behaviour, values=values)
        assert float((free.mean.flat - update.mean.flat).norm()) > 1e-3, "the control: the clip acts"


def some_values(world, seed=2):
    """A critic that is wrong everywhere."""
    rng, rows = torch.Generator().manual_seed(seed), len(world.prompts)
    return [torch.randn(rows * world.V**k, generator=rng, dtype=torch.float64) for k in range(world.horizon)]


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("place", ["two prompts", "when to stop"])
def test_ppo_on_a_critics_values_has_the_brute_force_mean_and_the_true_one_where_it_should(place, lam):
    world, learner = WORLDS[place], build_learner("ppo", lam=lam)
    policy, wrong = policy_of(world), some_values(world)
    update = expected_update(world, policy, learner, 2, ("layer1",), values=wrong)
    assert_is_the_mean_of_all_groups(update, learner, world, policy, 2, critic=wrong)
    exact = expected_update(world, policy, learner, 2, values=grow(world, policy).V)
    truth = parameters_to_vector(update.truth.parameters)
    close(exact.mean.flat, truth, rtol=1e-9, atol=1e-12)
    assert torch.allclose(update.mean.flat, truth, rtol=1e-6, atol=1e-9) == (lam == 1), "the control"


def kappa_by_loop(P, G, scale):
    """`Cov(A_1, R_1) / Var(R_1)` over the successes of a group's first row and of its others."""
    total = 0.0
    for first, k in itertools.product((0, 1), range(G)):
        m = (first + k) / G
        chance = (P if first else 1 - P) * math.comb(G - 1, k) * P**k * (1 - P) ** (G - 1 - k)
        total += chance * scale(first, m, G) * (first - P)
    return total / (P * (1 - P))


SCALES = {
    "rloo": ("rloo", {}, lambda R, m, G: (R - m) * G / (G - 1)),
    "dr_grpo": ("dr_grpo", {}, lambda R, m, G: R - m),
    "reinforce": ("reinforce", {}, lambda R, m, G: R),
    "grpo": ("grpo", {"length": "row sum"}, lambda R, m, G: (R - m) / math.sqrt(m * (1 - m)) if 0 < m < 1 else 0.0),
    "sample std, eps": (
        "grpo",
        {"std": "sample", "length": "row sum", "eps": 0.2},
        lambda R, m, G: (R - m) / (math.sqrt(m * (1 - m) * G / (G - 1)) + 0.2),
    ),
}


@pytest.mark.parametrize("G", [2, 5])
@pytest.mark.parametrize("name", SCALES)
def test_for_binary_rewards_costates_are_the_true_ones_times_kappa_at_all_sites_and_prefixes(name, G):
    kind, options, scale = SCALES[name]
    for world in (sum_and_stop(3, 2), combination_lock(2, 3, seed=2)):
        policy = policy_of(world, seed=3)
        update = expected_update(world, policy, build_learner(kind, **options), G, policy.sites)
        P = grow(world, policy).V[0]
        kappa = torch.tensor([kappa_by_loop(float(p), G, scale) for p in P], dtype=torch.float64)
        for site, k in itertools.product(policy.sites, range(world.horizon)):
            truth = update.truth.costates[site][k]
            each = kappa.repeat_interleave(len(truth) // len(P))[:, None, None]
            close(update.mean.costates[site][k], each * truth, rtol=1e-9, atol=1e-12)


@unchecked()
def test_sampled_groups_agree_with_the_mean_in_standard_errors(rng):
    world, learner, G, groups, steps = sum_and_stop(3, 3, gamma=0.9), build_learner("grpo"), 3, 8, 150
    policy = policy_of(world, seed=2)
    exact, updates = expected_update(world, policy, learner, G), []
    every = Enumeration(world)
    for _ in range(steps):
        drawn = sample_tokens(policy, world.prompts, 3, rng, copies=G * groups)
        every.prompt, every.tokens, mask = drawn.prompt, drawn.tokens, world.mask(drawn.tokens)
        rewards = step_rewards(world, drawn.prompt, drawn.tokens)
        group = torch.arange(len(mask)) // G
        policy.zero_grad()
        learner.loss(*every.evaluate(policy), Batch(rewards, mask, group)).backward()
        updates.append(-torch.cat([p.grad.flatten() for p in (policy.head.bias, policy.blocks[1].mlp[2].bias)]))
    mean = dict(zip([n for n, _ in policy.named_parameters()], exact.mean.parameters, strict=True))
    target = torch.cat([mean["head.bias"], mean["blocks.1.mlp.2.bias"]])
    assert_mean_within(torch.stack(updates), target)
    assert differs_by(torch.stack(updates), 0 * target), "the control: the mean is not 0"


def test_the_truth_is_the_exact_gradient_and_the_weights_are_those_of_the_edges():
    world = WORLDS["two prompts"]
    policy, every = policy_of(world), Enumeration(world)
    log_probs = every.evaluate(policy)[0]
    spoken = (log_probs * every.mask).sum(1).exp() * every.given
    J = (world.weights[every.prompt] * spoken * every.rewards.sum(1)).sum()
    update = expected_update(world, policy, build_learner("reinforce"), 1)
    slope = torch.autograd.grad(J, policy.parameters(), allow_unused=True, materialize_grads=True)
    close(parameters_to_vector(update.truth.parameters), parameters_to_vector(slope), rtol=1e-9, atol=1e-13)
    close(update.J, J.detach())
    p, R = every.chances(policy), every.rewards.sum(1)
    for k in (0, 1):  # the weight of an edge is the mean return through it
        edge = every.nodes(k) * world.V + every.tokens[:, k]
        chance = torch.zeros(len(update.weights[k].flatten()), dtype=torch.float64).index_add_(0, edge, p)
        close(update.weights[k].flatten(), torch.zeros_like(chance).index_add_(0, edge, p * R) / chance)


def test_completions_are_those_of_brute_force_and_alike_ones_are_one_outcome():
    for world in WORLDS.values():
        policy, every = policy_of(world), Enumeration(world)
        rows = completions(grow(world, policy))
        close(rows.p.sum(1), torch.ones(len(world.prompts), dtype=torch.float64))
        log_probs, chances = every.evaluate(policy)[0], every.chances(policy)
        for i, (prompt, word, n) in enumerate(every.words):
            same = (rows.tokens[prompt, :, :n] == torch.tensor(word[:n])).all(1) & (rows.p[prompt] > 0)
            same &= (rows.rewards[prompt] - every.rewards[i]).abs().amax(1) < 1e-12
            close(rows.p[prompt, same].sum(), chances[i])
            row = int(same.nonzero()[0])
            close(rows.rewards[prompt, row], every.rewards[i])
            close(rows.returns[prompt, row], every.rewards[i].sum())
            assert torch.equal(rows.mask[prompt, row], every.mask[i])
            close(rows.log_probs[prompt, row, :n], log_probs[i, :n].detach())
    of, outcomes = distinct_outcomes({"rewards": rows.rewards[0], "mask": rows.mask[0]})
    assert len(outcomes["rewards"]) == 2, "a lock opens or it does not"
    close(outcomes["rewards"][of], rows.rewards[0])


def test_the_success_of_a_prompt_is_its_value_where_rewards_are_binary_and_refused_elsewhere():
    for world in (WORLDS["lock"], sum_and_stop(3, 3)):
        tree = grow(world, policy_of(world))
        close(completions(tree).success(), tree.V[0])
    with refused("rewards"):
        completions(grow(two_prompts(), policy_of(two_prompts()))).success()


@pytest.mark.parametrize("group", [0, -1, 2.0])
def test_a_group_of_no_rows_is_refused(group):
    world = WORLDS["lock"]
    with refused("group"), unchecked():
        expected_update(world, policy_of(world), build("rloo"), group)


def test_too_many_multisets_are_refused_before_they_are_made(monkeypatch):
    world = garnet(V=2, horizon=4, seed=1)

    def never(*arguments, **options):
        raise AssertionError("allocated")

    monkeypatch.setattr(torch, "combinations", never)
    with refused("group=60"):
        expected_update(world, policy_of(world), build("grpo"), 60)


def test_a_hidden_readout_is_refused():
    world = with_readout(WORLDS["two prompts"])
    with refused("world"):
        expected_update(world, policy_of(world), build("rloo"), 2)


@pytest.mark.parametrize("scale", [1e-13, 1e-6, 1e9])
def test_a_recipe_that_knows_no_scale_has_the_same_mean_at_every_scale_of_the_rewards(scale):
    world = garnet(V=2, horizon=2, seed=1)
    network, mine = transformer(world, seed=1), grpo()
    scaled = TokenMDP(world.P, world.r * scale, world.prompts, world.starts, world.horizon)
    one, other = (expected_update(w, network, mine, 2).mean.parameters for w in (world, scaled))
    assert max(float(x.abs().max()) for x in one) > 0.01
    for x, y in zip(one, other, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"entropy": 0.2}, {"kl_loss": Penalty("k3", 0.5)}, {"kl_reward": Penalty("k1", 0.3)}]
)
@pytest.mark.parametrize("name", ["reinforce", "grpo", "dapo"])
def test_a_policy_in_single_precision_has_the_update_of_the_same_numbers_in_double(name, options):
    world, recipe = sum_and_stop(2, 3, gamma=0.9), build_learner(name, **options)
    single, other = (transformer(world, seed=seed).to(torch.float32) for seed in (3, 4))
    updates = []
    for policy, reference in ((single, other), (deepcopy(single).double(), deepcopy(other).double())):
        compared = {"reference": reference} if recipe.needs_reference else {}
        updates.append(expected_update(world, policy, recipe, 3, sites=("embedding",), **compared))
    rounded, exact = (update.mean.flat.double() for update in updates)
    close(rounded, exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize(("name", "group"), [("reinforce", 2), ("rloo", 4), ("dr_grpo", 2)])
def test_a_mean_whose_weights_are_nearly_alike_keeps_its_digits_at_every_prefix(name, group):
    """Where almost all completions succeed the weights of a node's tokens differ by 1e-8 of their size, and less."""
    world = build_world("arithmetic (3,2)")
    policy = build_policy(world, 0, temperature=0.2)
    update = expected_update(world, policy, build_learner(name), group, ("layer1",))
    kappa = (group - 1) / group if name == "dr_grpo" else 1.0
    for mean, truth in zip(update.mean.costates["layer1"], update.truth.costates["layer1"], strict=True):
        gap, size = (mean - kappa * truth).flatten(1).norm(dim=1), truth.flatten(1).norm(dim=1)
        assert bool((gap <= 1e-11 * size)[size > 0].all())


class OneLaw(torch.nn.Module):
    """A policy over tokens whose logits are the same at every prefix."""

    sites = ()

    def __init__(self, logits):
        super().__init__()
        self.z = torch.nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def embed(self, u):
        return (u.sum(-1, keepdim=True) if u.is_floating_point() else torch.ones_like(u)[..., None]).to(self.z)

    def extend(self, x, cache=None, probes=None):
        return self.z.expand(len(x), -1), cache


def by_ratio(rewards, mask, group, log_probs, old):
    """The importance-weighted reward, whose mean is the gradient of J whoever draws the rows."""
    return (log_probs - old).exp() * rewards.sum(-1, keepdim=True) * mask / len(rewards), None


@pytest.mark.parametrize("rewards", [[0.0, 1.0], [1.0, 0.0], [0.3, -2.0]])
@pytest.mark.parametrize("missing", [1e-9, 1e-13, 1e-40])
def test_an_off_policy_mean_of_a_peaked_policy_has_its_digits(missing, rewards):
    """One token of two: the gradient in the logits is +-p (1 - p) (R_0 - R_1), far below the rounding of 1."""
    world = TokenMDP(torch.ones(1, 2, 1), [[rewards]], [[0]], [0], 1)
    policy = OneLaw([0.0, math.log(missing)])
    for drawn in (OneLaw([0.0, 0.0]), OneLaw([0.0, math.log(missing) / 2]), OneLaw([0.0, 0.5 * math.log(1e-9)])):
        for group in (1, 2):
            update = expected_update(world, policy, by_ratio, group, behaviour=drawn)
            exact = missing / (1 + missing) ** 2 * (rewards[0] - rewards[1])
            assert update.mean.flat.tolist() == pytest.approx([exact, -exact], rel=1e-11, abs=0.0)
