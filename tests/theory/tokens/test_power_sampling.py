"""Power sampling's matrices against a chain that is written out text by text from likelihoods alone."""

import itertools
from math import exp, inf, log

import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from envs.token_tasks import combination_lock, garnet, sum_and_stop
from envs.world import InputError
from tests.theory.speech_cases import talking
from tests.theory.token_cases import several_prompts, transformer
from theory.tokens.power_sampling import (
    END_RULES,
    algorithm_law,
    block_stages,
    chain,
    gap_bound,
    spectral_gap,
    temperature_law,
    texts,
)
from theory.tokens.prefix_tree import grow
from theory.tokens.softmax_bounds import log_softmax
from theory.tokens.tilted_laws import power_law

close = torch.testing.assert_close
WORLDS = {
    "several prompts": several_prompts(2),
    "stop": sum_and_stop(2, 3),
    "two prompts stop": sum_and_stop(3, 2),
    "lock": combination_lock(2, 3),
    "garnet": garnet(V=3, states=4, horizon=2, gamma=0.9, seed=1),
}
RULES = [(name, rule) for name in WORLDS for rule in END_RULES]


def exactly(numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def tree_of(world, policy):
    with torch.no_grad():
        return grow(world, policy)


def position_only(world, seed):
    rng = torch.Generator().manual_seed(seed)
    rows = [torch.randn(1, world.V, generator=rng).double() for _ in range(world.horizon)]
    prompts = len(world.prompts)
    return PrefixTable(world, [row.expand(prompts * world.V**k, -1) for k, row in enumerate(rows)])


class ByHand:
    """One prompt's texts as tuples, with p and q of every suffix from the policy's probabilities: no sums Z."""

    def __init__(self, tree, prompt, alpha, T):
        self.world, self.alpha, self.T = tree.world, alpha, T
        self.pi, V = {}, tree.world.V
        for k, level in enumerate(tree.levels):
            rows = torch.softmax(level.logits.double(), -1).reshape(-1, V**k, V)[prompt].tolist()
            self.pi |= dict(zip(itertools.product(range(V), repeat=k), rows, strict=True))

    def texts(self, unfinished):
        end, V = self.world.end, self.world.V
        found = []
        for k in range(1, self.T + 1):
            for x in itertools.product(range(V), repeat=k):
                if end in x[:-1]:
                    continue
                if x[-1] == end or k == self.T or (unfinished and end is not None):
                    found.append(x)
        return found

    def p(self, x, m=0):
        out = 1.0
        for t in range(m, len(x)):
            out *= self.pi[x[:t]][x[t]]
        return out

    def q(self, x, m=0):
        out = 1.0
        for t in range(m, len(x)):
            row = [p**self.alpha for p in self.pi[x[:t]]]
            out *= row[x[t]] / sum(row)
        return out

    def accept(self, x, y, m, rule):
        old = x[: len(y)] if rule == "cut" else x
        ratio = self.p(y) ** self.alpha * self.q(old, m) / (self.p(old) ** self.alpha * self.q(y, m))
        return min(1.0, ratio * (len(x) / len(y) if rule == "hastings" else 1.0))

    def can_follow(self, x, y, rule):
        if rule != "cut":
            return True
        return len(y) <= len(x) and (y[-1] == self.world.end or len(y) == len(x))

    def step(self, x, rule):
        """Chances of the next text."""
        out = {}
        for m, y in itertools.product(range(len(x)), self.texts(rule == "cut")):
            if y[:m] == x[:m] and len(y) > m and self.can_follow(x, y, rule):
                chance = self.q(y, m) / len(x)
                kept = self.accept(x, y, m, rule)
                out[y] = out.get(y, 0.0) + chance * kept
                out[x] = out.get(x, 0.0) + chance * (1 - kept)
        return out


def as_tuples(among):
    return [tuple(int(c) for c in row if c >= 0) for row in among.tokens]


@pytest.mark.parametrize("alpha", [0.5, 3.0])
@pytest.mark.parametrize("name", WORLDS)
def test_laws_of_texts_are_powers_and_temperatures_of_each_text(name, alpha):
    world = WORLDS[name]
    tree = tree_of(world, transformer(world, seed=2))
    for T in range(1, world.horizon + 1):
        among = texts(tree, alpha, T)
        for prompt in range(len(world.prompts)):
            hand = ByHand(tree, prompt, alpha, T)
            assert sorted(as_tuples(among)) == sorted(hand.texts(unfinished=False))
            weight = exactly([hand.p(x) ** alpha for x in as_tuples(among)])
            cold = exactly([hand.q(x) for x in as_tuples(among)])
            close(among.power[prompt], weight / weight.sum(), rtol=1e-12, atol=1e-15)
            close(among.cold[prompt], cold, rtol=1e-12, atol=1e-15)
            tilted = cold * torch.exp(among.log_Z[prompt].sum(-1))
            close(tilted / tilted.sum(), weight / weight.sum(), rtol=1e-12, atol=1e-15)
            assert world.horizon > 1
            if T > 1:  # in one step the two laws are one
                assert not torch.allclose(among.power[prompt], cold, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "rule"), RULES)
def test_the_matrix_is_the_chain_text_by_text(name, rule):
    world, alpha = WORLDS[name], 2.5
    tree = tree_of(world, transformer(world, seed=1))
    for T in {1, world.horizon}:
        among, K = texts(tree, alpha, T, rule == "cut"), chain(tree, alpha, T, rule)
        assert len(K[0]) == len(as_tuples(among)) == len(set(as_tuples(among)))
        for prompt in range(len(world.prompts)):
            hand = ByHand(tree, prompt, alpha, T)
            for i, x in enumerate(as_tuples(among)):
                step = hand.step(x, rule)
                close(K[prompt, i], exactly([step.get(y, 0.0) for y in as_tuples(among)]))


@pytest.mark.parametrize("alpha", [0.5, 4.0])
@pytest.mark.parametrize("name", WORLDS)
def test_the_power_is_stationary_with_the_factor_and_with_no_other_rule(name, alpha):
    world = WORLDS[name]
    tree = tree_of(world, transformer(world, seed=3))
    law, K = texts(tree, alpha).power, chain(tree, alpha, world.horizon)
    flow = law[..., None] * K
    close(flow, flow.mT, rtol=0, atol=1e-15)
    close(flow.sum(1), law, rtol=0, atol=1e-14)
    close(K.sum(-1), torch.ones_like(law))
    barker = chain(tree, alpha, world.horizon, accept=torch.sigmoid)
    close((law[:, None] @ barker)[:, 0], law, rtol=0, atol=1e-14)
    always = chain(tree, alpha, world.horizon, accept=torch.ones_like)
    assert float(((law[:, None] @ always)[:, 0] - law).abs().max()) > 1e-5
    for rule in ("no factor", "cut"):
        own = texts(tree, alpha, unfinished=rule == "cut").power
        moved = float(((own[:, None] @ chain(tree, alpha, world.horizon, rule))[:, 0] - own).abs().max())
        assert moved > 1e-4 if world.end is not None else moved < 1e-14


@pytest.mark.parametrize("name", WORLDS)
def test_the_gap_is_that_of_the_matrix_itself_and_at_most_one_over_the_length(name):
    world, alpha = WORLDS[name], 2.0
    for seed in range(3):
        tree = tree_of(world, transformer(world, seed=seed))
        among, K = texts(tree, alpha), chain(tree, alpha, world.horizon)
        gap, bound = spectral_gap(K, among.power), gap_bound(among)
        for prompt, own in enumerate(K):
            eigenvalues = torch.linalg.eigvals(own)
            assert float(eigenvalues.imag.abs().max()) < 1e-7
            real = eigenvalues.real.sort().values
            assert float(real[0]) > -1e-9
            assert float(gap[prompt]) == pytest.approx(1 - float(real[-2]), abs=1e-9)
        assert bool((gap <= bound + 1e-12).all())
        if world.end is None:
            close(bound, torch.full_like(bound, 1 / world.horizon))


def test_the_bound_is_the_least_quotient_over_functions_of_the_first_token():
    world = sum_and_stop(3, 3)
    among = texts(tree_of(world, transformer(world, seed=5)), 1.5)
    law, rng = among.power[0], torch.Generator().manual_seed(0)
    quotients = []
    for _ in range(4000):
        f = torch.randn(world.V, generator=rng).double()[among.tokens[:, 0]]
        weights = law / among.length
        a = (weights * f).sum() / weights.sum()
        quotients.append(float((weights * (f - a) ** 2).sum() / ((law * f**2).sum() - (law @ f) ** 2)))
    least = float(gap_bound(among)[0])
    assert least <= min(quotients) <= 1.02 * least
    assert least > 1 / 3 + 1e-3 or least < 1 / 3 - 1e-3  # lengths vary: it is not 1 / T


@pytest.mark.parametrize("name", ["several prompts", "lock", "garnet"])
def test_policies_that_read_the_position_alone_have_both_laws_equal_and_the_largest_gap(name):
    world, alpha = WORLDS[name], 3.0
    tree = tree_of(world, position_only(world, 0))
    among = texts(tree, alpha)
    close(among.power, among.cold)
    close(
        spectral_gap(chain(tree, alpha, world.horizon), among.power),
        exactly([1 / world.horizon] * len(world.prompts)),
    )
    other = texts(tree_of(world, PrefixTable(world, seed=0)), alpha)
    assert float((other.power - other.cold).abs().max()) > 1e-3
    ends = sum_and_stop(2, 3)  # with an end token lengths differ, and so do the sums of entropies
    cut = texts(tree_of(ends, position_only(ends, 0)), alpha)
    assert float((cut.power - cut.cold).abs().max()) > 1e-3


@pytest.mark.parametrize("B", [1, 2, 5])
@pytest.mark.parametrize("name", WORLDS)
def test_algorithm_1_begins_at_the_temperature_and_ends_at_the_power(name, B):
    world, alpha = WORLDS[name], 2.0
    tree = tree_of(world, transformer(world, seed=1))
    among = texts(tree, alpha)
    close(algorithm_law(tree, alpha, B, 0), among.cold)
    close(algorithm_law(tree, alpha, B, 20_000), among.power, rtol=0, atol=1e-9)
    ways = [float((algorithm_law(tree, alpha, B, N) - among.power).abs().sum()) for N in (0, 1, 3, 10)]
    assert ways == sorted(ways, reverse=True)
    assert ways[-1] < 0.9 * ways[0]
    for rule in END_RULES:
        close(algorithm_law(tree, alpha, B, 3, rule).sum(-1), torch.ones(len(world.prompts)).double())


def test_algorithm_1_is_its_stages_one_after_the_other_by_hand():
    """Blocks of 1 and then 2 tokens, one step each, text by text, with the texts that the published code returns early."""
    world, alpha = sum_and_stop(2, 2), 2.0
    tree = tree_of(world, transformer(world, seed=4))
    for rule in END_RULES:
        law, returned = {}, {}
        first, second = ByHand(tree, 0, alpha, 1), ByHand(tree, 0, alpha, 2)
        for x in first.texts(False):
            for y, chance in first.step(x, rule).items():
                law[y] = law.get(y, 0.0) + first.q(x) * chance
        longer = {}
        for x, chance in law.items():
            if x[-1] == world.end:
                into = returned if rule == "cut" else longer
                into[x] = into.get(x, 0.0) + chance
                continue
            for c in range(world.V):
                longer[(*x, c)] = longer.get((*x, c), 0.0) + chance * second.q((*x, c), 1)
        after = dict(returned)
        for x, chance in longer.items():
            for y, step in second.step(x, rule).items():
                after[y] = after.get(y, 0.0) + chance * step
        among = texts(tree, alpha, unfinished=rule == "cut")
        want = exactly([after.get(x, 0.0) for x in as_tuples(among)])
        close(algorithm_law(tree, alpha, 1, 1, rule)[0], want)


def test_the_published_rule_ends_at_one_token_drawn_at_the_temperature():
    world, alpha = sum_and_stop(2, 3), 2.0
    tree = tree_of(world, transformer(world, seed=2))
    among = texts(tree, alpha, unfinished=True)
    law = algorithm_law(tree, alpha, 3, 20_000, "cut")[0]
    of_one = torch.zeros_like(law)
    of_one[among.length == 1] = among.log_q[0, among.length == 1, 0].exp()
    close(law, of_one, rtol=0, atol=1e-10)
    K = chain(tree, alpha, 3, "cut")[0]
    assert float(K[among.length[:, None] < among.length].max()) == 0.0
    assert float(chain(tree, alpha, 3)[0][texts(tree, alpha).length[:, None] < texts(tree, alpha).length].max()) > 0


def test_chances_after_n_steps_are_within_the_bound_of_the_gap():
    world, alpha = WORLDS["stop"], 2.0
    tree = tree_of(world, transformer(world, seed=1))
    (stage,) = block_stages(tree, alpha, 3, 0)
    law = stage.texts.power
    gap = spectral_gap(stage.K, law)
    chi = ((stage.law - law) ** 2 / law).sum(-1).sqrt()
    for N in (0, 2, 20, 200):
        away = (stage.after(N) - law).abs().sum(-1) / 2
        assert bool((away <= chi * (1 - gap) ** N / 2 + 1e-12).all())


@pytest.mark.parametrize("name", WORLDS)
def test_the_temperature_law_holds_the_sums_of_the_next_token(name):
    world, alpha = WORLDS[name], 3.0
    tree = tree_of(world, transformer(world, seed=2))
    law, other = temperature_law(tree, alpha), power_law(tree, alpha)
    close(law.log_pi[0], log_softmax(alpha * tree.levels[0].logits))
    entropy = -(tree.levels[0].pi ** alpha).sum(-1).log() / (alpha - 1)  # Renyi's, of order alpha
    close(law.log_Z[0], -(alpha - 1) * entropy)
    assert float((law.log_Z[0] - other.log_Z[0]).abs().max()) > 1e-3


def test_single_precision_and_forbidden_tokens():
    world = WORLDS["stop"]
    table = PrefixTable(world, seed=0)
    exact = chain(tree_of(world, table), 2.0, 3)
    single = chain(tree_of(world, PrefixTable(world, seed=0).float()), 2.0, 3)
    assert single.dtype == torch.float64
    close(single, exact, rtol=0, atol=1e-5)
    logits = table.logits.detach().clone()
    logits[0, 0] = -inf  # the first token is never 0
    tree = tree_of(world, PrefixTable(world, logits))
    among, K = texts(tree, 2.0), chain(tree, 2.0, 3)
    never = among.tokens[:, 0] == 0
    assert bool(K.isfinite().all())
    assert float(K[0][~never][:, never].max()) == float(among.power[0, never].max()) == 0.0
    close((among.power[:, None] @ K)[:, 0], among.power, rtol=0, atol=1e-14)
    assert 0 < float(spectral_gap(K, among.power)[0]) <= float(gap_bound(among)[0]) + 1e-12


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda tree: texts(tree, 0.0), "^alpha must be a finite number > 0"),
        (lambda tree: temperature_law(tree, inf), "^alpha must be a finite number > 0"),
        (lambda tree: texts(tree, 2.0, 4), "^block_end must lie in 1 ... 3"),
        (lambda tree: texts(tree, 2.0, 0), "^block_end must be a whole number >= 1"),
        (lambda tree: chain(tree, 2.0, 3, "mine"), "^end_rule must be one of hastings, no factor, cut; got 'mine'"),
        (lambda tree: algorithm_law(tree, 2.0, 0, 1), "^block must be a whole number >= 1"),
        (lambda tree: algorithm_law(tree, 2.0, 1, -1), "^N must be a whole number >= 0"),
        (
            lambda tree: spectral_gap(chain(tree, 2.0, 3, "no factor"), texts(tree, 2.0).power),
            "^law must be one with which K is reversible",
        ),
        (lambda tree: texts(tree_of(talking(), transformer(talking())), 2.0), "^world must be one in which the policy"),
    ],
)
def test_what_is_refused_in_one_line(asked, message):
    world = WORLDS["stop"]
    tree = tree_of(world, transformer(world, seed=1))
    with pytest.raises(InputError, match=message) as refused:
        asked(tree)
    assert "\n" not in str(refused.value)


def test_a_matrix_that_is_too_large_is_refused_before_it_is_made():
    world = sum_and_stop(3, 8)
    with pytest.raises(InputError, match=r"^block_end makes \d+ texts .*: take a smaller block"):
        chain(tree_of(world, PrefixTable(world)), 2.0, 8)


def test_two_texts_by_hand():
    """One free token after a certain one: `p = (1/4, 3/4)`, alpha 2: `Z_a = 10/16`, powers 1/10 and 9/10."""
    world = garnet(V=2, states=2, horizon=1, seed=0)
    tree = tree_of(world, PrefixTable(world, [[[log(1), log(3)]]]))
    among = texts(tree, 2.0)
    close(among.power, exactly([[0.1, 0.9]]))
    assert exp(float(among.log_Z[0, 0, 0])) == pytest.approx(10 / 16)
    close(chain(tree, 2.0, 1), exactly([[[0.1, 0.9], [0.1, 0.9]]]))
