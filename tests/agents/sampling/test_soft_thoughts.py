"""Rows with soft thoughts against plain loops, in worlds of every kind; the noise's density and the code's form by hand."""

import itertools
import math

import pytest
import torch

from agents.policies.transformer import Transformer
from agents.recipes.soft_thoughts import ADDED, CLAMP, FLOOR, SoftThoughts
from agents.sampling.soft_thoughts import soft_completions, soft_log_probs, thought_law, thought_log_density
from agents.sampling.token_rewards import token_returns
from envs.token_tasks import garnet, sum_and_stop
from envs.tool_tasks import ask_oracle
from tests.agents.cases import draws
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by

close = torch.testing.assert_close
BOTH = pytest.mark.parametrize("official", [False, True])


def network(world, seed=0, N=2, spread=1.5):
    policy = Transformer(world.V, width=8, layers=2, heads=2, length=world.longest + N, seed=seed)
    with torch.no_grad():
        policy.head.weight *= spread
    return policy


def uniforms(rows, numbers, seed=0):
    return torch.rand(rows, numbers, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def law_by_hand(logits, official):
    """p of one position, a list: with `official` of five tokens, 0 beyond the mass, 1e-6 added; None for the others."""
    p = torch.softmax(logits, -1).tolist()
    if not official:
        return p
    order = sorted(range(len(p)), key=lambda a: -p[a])[:5]
    total, kept, mass = sum(p[a] for a in order), [], 0.0
    for a in order:
        if mass < 0.95:
            kept.append(a)
            mass += p[a] / total
    whole = sum(p[a] for a in kept)
    return [(p[a] / whole if a in kept else 0.0) + ADDED if a in order else None for a in range(len(p))]


def row_by_hand(world, policy, prompt, numbers, soft):
    """u of the thoughts and the tokens of one row, each step from the whole context before it."""
    N, V, H = soft.thoughts, world.V, world.horizon
    x, thoughts, tokens = policy.embed(world.prompts[prompt])[None], [], []
    for k in range(N):
        p, u = law_by_hand(policy(x)[0, -1], soft.official), []
        for a in range(V):
            g = -math.log(-math.log(float(numbers[k * V + a])))
            g = min(max(g, CLAMP[0]), CLAMP[1]) if soft.official else g
            u.append(-math.inf if p[a] is None else math.log(p[a]) + g)
        thoughts.append(u)
        y = torch.softmax(torch.tensor(u, dtype=torch.float64) / soft.tau, -1)
        x = torch.cat([x, policy.embed(y)[None, None]], 1)
    for k in range(H):
        sums = itertools.accumulate(torch.softmax(policy(x)[0, -1], -1).tolist())
        c = next(c for c, total in enumerate(sums) if total > float(numbers[N * V + k]))
        tokens.append(c)
        x = torch.cat([x, policy.embed(torch.tensor([[c]]))], 1)
    return thoughts, tokens


@BOTH
@pytest.mark.parametrize("V", [2, 7])
def test_rows_are_those_of_a_plain_loop_for_any_vocabulary_and_number_of_thoughts(V, official):
    world = garnet(V=V, horizon=3, branching=1, seed=1)
    for N in (1, 3):
        soft, policy = SoftThoughts(N, 0.4, official), network(world, N=N)
        noise = uniforms(6, N * V + 3)
        with torch.no_grad():
            rows = soft_completions(world, policy, torch.tensor([0]), 6, soft, noise)
            for i in range(6):
                thoughts, tokens = row_by_hand(world, policy, 0, noise[i], soft)
                close(rows.u[i], torch.tensor(thoughts, dtype=torch.float64), rtol=1e-9, atol=1e-9)
                assert rows.contexts[i, 1:].tolist() == tokens
        assert rows.rewards[:, :N].abs().sum() == 0
        close(rows.rewards.sum(1), token_returns(world, rows.prompt, rows.contexts[:, 1:]))
        assert rows.mask.shape == (6, N + 3)
        rows.batch()


def test_a_generator_and_its_numbers_give_the_same_rows_in_every_world():
    """Where tokens lead by chance, where completions end early, and where the environment speaks."""
    for world in (garnet(V=3, horizon=3, seed=1), sum_and_stop(3, 3), ask_oracle(noise=0.2)):
        soft, policy, which = SoftThoughts(2, 0.5), network(world), torch.tensor([0, 0])
        H, rng = world.horizon, torch.Generator().manual_seed(5)
        by_generator = soft_completions(world, policy, which, 4, soft, rng)
        again = torch.Generator().manual_seed(5)
        numbers = [torch.rand(8, 2 * world.V + H, generator=again, dtype=torch.float64)]
        numbers += [] if world.deterministic else [torch.rand(8, H, generator=again, dtype=torch.float64)]
        rows = soft_completions(world, policy, which, 4, soft, torch.cat(numbers, 1))
        assert torch.equal(rows.contexts, by_generator.contexts)
        assert torch.equal(rows.u, by_generator.u)
        assert rows.mask[:, :2].all()
        assert (rows.mask <= rows.span).all()
        assert rows.group.tolist() == [0] * 4 + [1] * 4
        if world.end is not None:
            assert torch.equal(rows.span[:, 2:], world.mask(rows.contexts[:, -H:]))


def test_the_likeliest_token_of_a_thought_is_drawn_by_the_policys_law():
    world = garnet(V=3, horizon=1, seed=3)
    policy = network(world)
    rows = soft_completions(world, policy, torch.tensor([0]), 20_000, SoftThoughts(1, 0.5), uniforms(20_000, 5))
    hard = torch.nn.functional.one_hot(rows.u[:, 0].argmax(1), 3).double()
    p = torch.softmax(policy(policy.embed(world.prompts))[0, -1], -1).detach()
    assert_mean_within(hard, p)
    assert differs_by(hard, torch.softmax(2 * p.log(), -1)), "the control: another law"


def test_the_density_is_that_of_gumbel_noise_and_its_score_has_mean_0():
    logits = draws(5, 3).requires_grad_()
    u = draws(5, 3, seed=1)
    density = thought_log_density(logits, u, SoftThoughts())
    gumbel = torch.distributions.Gumbel(torch.log_softmax(logits, -1), torch.ones(5, 3).double())
    close(density, gumbel.log_prob(u).sum(-1))
    many = (
        torch.log_softmax(logits.detach(), -1)[:1]
        - torch.empty(100_000, 3).double().exponential_(generator=torch.Generator().manual_seed(0)).log()
    )
    own = logits[:1].detach().expand(100_000, -1).clone().requires_grad_()
    (score,) = torch.autograd.grad(thought_log_density(own, many, SoftThoughts()).sum(), own)
    assert_mean_within(score, torch.zeros(3).double())


def test_the_codes_density_by_hand_and_its_slope_on_the_edges():
    soft, rows = SoftThoughts(official=True), 40
    logits, g = 2 * draws(rows, 7), draws(rows, 7, seed=1).mul(4).clamp(*CLAMP)
    u = thought_law(logits, soft) + g
    now = (logits + 0.1 * draws(rows, 7, seed=2)).requires_grad_()
    found = thought_log_density(now, u, soft).detach()
    p = torch.softmax(now.detach(), -1)
    for i in range(rows):
        made_of = [a for a in range(7) if u[i, a] > -math.inf]
        assert len(made_of) == 5
        total, terms = sum(float(p[i, a]) for a in made_of), []
        for a in made_of:
            log_p = math.log(float(p[i, a]) / total + ADDED)
            x = min(max(float(u[i, a]) - log_p, CLAMP[0]), CLAMP[1])
            terms += [-x - math.exp(-x)] if log_p > FLOOR else []
        assert float(found[i]) == pytest.approx(sum(terms) / len(terms), rel=1e-9)
    same = torch.zeros(1, 2).double().requires_grad_()
    edge = thought_law(same.detach(), soft) + torch.tensor([CLAMP], dtype=torch.float64)
    (slope,) = torch.autograd.grad(thought_log_density(same, edge, soft).sum(), same)
    each = [(1 - math.exp(-x)) / 2 for x in CLAMP]  # of log p_0 and log p_1
    close(slope, torch.tensor([[each[0] - sum(each) / 2, each[1] - sum(each) / 2]]).double(), rtol=1e-5, atol=1e-6)


@BOTH
def test_one_pass_gives_what_was_drawn_and_its_slopes(official):
    world, soft = sum_and_stop(3, 3), SoftThoughts(2, 0.5, official)
    policy = network(world)
    rows = soft_completions(world, policy, torch.tensor([0, 1]), 3, soft, torch.Generator().manual_seed(0))
    log_probs, entropy = soft_log_probs(policy, rows.contexts, rows.u, 3, soft)
    assert torch.equal(log_probs.detach(), rows.log_probs)
    assert bool((entropy[:, :2] == 0).all() & (entropy[:, 2:] > 0).all())
    slopes = torch.autograd.grad(log_probs.sum(), [policy.embedding.weight, policy.position], allow_unused=True)
    assert all((slope is None or not bool(slope.any())) == official for slope in slopes[:1]), (
        "inputs are constants there"
    )


def test_refusals():
    world, soft = garnet(V=3, horizon=2, branching=1, seed=1), SoftThoughts(2)
    policy, which = network(world), torch.tensor([0])
    for numbers in (uniforms(2, 7), uniforms(3, 8), uniforms(2, 8) + 0.9):
        with refused("noise"):
            soft_completions(world, policy, which, 2, soft, numbers)
    with refused("length=3"):
        soft_completions(world, network(world, N=0), which, 2, soft, uniforms(2, 8))
    for options in ({"thoughts": 0}, {"tau": 0.0}, {"tau": math.nan}):
        with refused(next(iter(options))):
            SoftThoughts(**options)
