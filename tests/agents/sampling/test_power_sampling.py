"""Texts of the power sampler against the exact law of Algorithm 1, in standard errors; wrong chains must be seen."""

import math

import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from agents.sampling import power_sampling
from agents.sampling.completions import step_rewards
from agents.sampling.power_sampling import END_RULES, power_sample, uniform_count
from agents.sampling.tokens import sample_tokens
from envs.token_tasks import garnet, sum_and_stop
from envs.world import InputError
from tests.theory.token_cases import Recomputing, Recurrent, several_prompts, transformer
from theory.tokens.power_sampling import algorithm_law, texts
from theory.tokens.prefix_tree import grow
from theory.tokens.tilted_laws import power_law

close = torch.testing.assert_close
ROWS, ALPHA = 10_000, 2.5
WORLDS = {
    "stop": sum_and_stop(2, 3),
    "two prompts stop": sum_and_stop(3, 2),
    "several prompts": several_prompts(2),
    "garnet": garnet(V=3, states=4, horizon=3, gamma=0.9, seed=1),
}
POLICIES = {
    "transformer": lambda world: transformer(world, seed=1),
    "table": lambda world: PrefixTable(world, seed=1),
    "another network": lambda world: Recomputing(Recurrent(world.V, seed=1)),
}


def drawn(world, policy, block, steps, end_rule="hastings", seed=0, rows=ROWS, **own):
    noise = torch.Generator().manual_seed(seed)
    return power_sample(
        policy, world.prompts, ALPHA, block, steps, noise, world.horizon, rows, world.end, end_rule, **own
    )


def counts(sample, among, prompts):
    """How often each text was drawn for each prompt; every row must be one of the texts."""
    tokens = torch.where(sample.mask, sample.tokens, -1)
    same = (tokens[:, None] == among.tokens).all(-1)
    assert bool((same.sum(1) == 1).all())
    return torch.stack([same[sample.prompt == i].sum(0) for i in range(prompts)]).double()


def misfit(seen, law, rows=ROWS):
    """Largest deviation in standard errors of texts that are expected 10 times at least, the others taken together."""
    worst = 0.0
    for n, p in zip(seen, law, strict=True):
        common = rows * p >= 10
        n, p = (torch.cat([x[common], x[~common].sum()[None]]) for x in (n, p))
        assert float(n[p == 0].sum()) == 0
        kept = rows * p >= 10
        errors = (rows * p * (1 - p)).sqrt()[kept]
        worst = max(worst, float(((n - rows * p)[kept].abs() / errors.clamp(min=1e-9)).max()))
        assert float(n[~kept].sum()) < 40  # what is expected less than 10 times
    return worst


def exact(world, policy, block, steps, rule):
    with torch.no_grad():
        tree = grow(world, policy)
    return texts(tree, ALPHA, unfinished=rule == "cut"), algorithm_law(tree, ALPHA, block, steps, rule)


@pytest.mark.parametrize(
    ("world", "rule"),
    [
        (name, rule)
        for name, world in WORLDS.items()
        for rule in END_RULES
        if world.end is not None or rule == "hastings"
    ],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_drawn_texts_follow_the_exact_law(world, policy, rule):
    world = WORLDS[world]
    policy = POLICIES[policy](world)
    for block, steps in ((1, 2), (world.horizon, 3)):
        among, law = exact(world, policy, block, steps, rule)
        sample = drawn(world, policy, block, steps, rule)
        assert misfit(counts(sample, among, len(world.prompts)), law) < 4.5


def test_many_steps_lead_to_the_power_itself():
    """`p^alpha / Z` by the backward recursion, which knows of no chain, and by no other power."""
    world = WORLDS["stop"]
    policy = PrefixTable(world, seed=1)
    sample = drawn(world, policy, 3, 40)
    with torch.no_grad():
        tree = grow(world, policy)
    for alpha, right in ((ALPHA, True), (1.2 * ALPHA, False)):
        law = PrefixTable(world, [x.detach() for x in power_law(tree, alpha).log_pi])
        with torch.no_grad():
            among = texts(grow(world, law), 1.0)
        assert (misfit(counts(sample, among, 1), among.power) < 4.5) == right


def test_a_chain_that_accepts_always_or_forgets_the_lengths_is_seen(monkeypatch):
    world = WORLDS["stop"]
    policy = PrefixTable(world, seed=1)
    among, law = exact(world, policy, 3, 3, "hastings")
    many = 60_000  # a table is cheap, and the factor of the lengths is a small one
    errors = lambda rule: misfit(counts(drawn(world, policy, 3, 3, rule, rows=many), among, 1), law, many)  # noqa: E731
    assert errors("hastings") < 4.5
    assert errors("no factor") > 8
    own = power_sampling._between
    monkeypatch.setattr(power_sampling, "_between", lambda log_Z, first, length: 0 * own(log_Z, first, length))
    assert errors("hastings") > 8


@pytest.mark.parametrize("rule", END_RULES)
def test_powers_below_1_follow_the_exact_law(rule):
    """Sums Z_a are above 1 there: what counts of a longer old text decides whether a shorter one is accepted."""
    many = 60_000  # a table is cheap, and a shortened text is rarely refused
    world, alpha = WORLDS["stop"], 0.4
    policy = PrefixTable(world, seed=1, spread=2.0)
    with torch.no_grad():
        tree = grow(world, policy)
    noise = torch.Generator().manual_seed(0)
    sample = power_sample(policy, world.prompts, alpha, 3, 3, noise, 3, many, world.end, rule)
    among = texts(tree, alpha, unfinished=rule == "cut")
    seen = counts(sample, among, 1)
    assert misfit(seen, algorithm_law(tree, alpha, 3, 3, rule), many) < 4.5
    if rule == "cut":
        assert misfit(seen, algorithm_law(tree, alpha, 3, 3, rule, torch.ones_like), many) > 8


def test_a_position_that_is_not_uniform_is_seen(monkeypatch):
    world = WORLDS["garnet"]
    policy = PrefixTable(world, seed=1)
    among, law = exact(world, policy, 3, 5, "hastings")
    own = power_sampling._step

    def last(redraw, x, until, uniforms, *rest):
        uniforms = torch.cat([0 * uniforms[:, :1] + 0.999, uniforms[:, 1:]], 1)  # the last token alone is redrawn
        return own(redraw, x, until, uniforms, *rest)

    assert misfit(counts(drawn(world, policy, 3, 5), among, 1), law) < 4.5
    monkeypatch.setattr(power_sampling, "_step", last)
    assert misfit(counts(drawn(world, policy, 3, 5), among, 1), law) > 8


def test_power_1_without_steps_is_the_plain_sampler_on_the_same_noise():
    world = WORLDS["garnet"]
    policy = transformer(world, seed=2)
    noise = torch.rand(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain = sample_tokens(policy, world.prompts, 3, noise, 50)
    sample = power_sample(policy, world.prompts, 1.0, 3, 0, noise, 3, 50)
    assert torch.equal(sample.tokens, plain.tokens)
    close(sample.log_probs, plain.log_probs)
    assert not torch.equal(power_sample(policy, world.prompts, 4.0, 3, 0, noise, 3, 50).tokens, plain.tokens)


@pytest.mark.parametrize("rule", END_RULES)
@pytest.mark.parametrize("policy", POLICIES)
def test_prompts_do_not_mix_and_noise_is_an_argument(policy, rule):
    world = WORLDS["two prompts stop"]
    policy, rows = POLICIES[policy](world), 30
    size = uniform_count(world.horizon, 1, 4)
    noise = torch.rand(2 * rows, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    of = (ALPHA, 1, 4)
    both = power_sample(policy, world.prompts, *of, noise, world.horizon, rows, world.end, rule)
    for i in (0, 1):
        own = slice(i * rows, (i + 1) * rows)
        one = power_sample(policy, world.prompts[i : i + 1], *of, noise[own], world.horizon, rows, world.end, rule)
        assert torch.equal(one.tokens, both.tokens[own])
        close(one.log_probs, both.log_probs[own])
        assert torch.equal(one.ended, both.ended[own])
    again = power_sample(policy, world.prompts, *of, noise.flip(0), world.horizon, rows, world.end, rule)
    assert not torch.equal(again.tokens, both.tokens)


@pytest.mark.parametrize("rule", END_RULES)
def test_the_record_is_that_of_the_policy_and_can_be_paid(rule):
    world = WORLDS["stop"]
    policy = transformer(world, seed=1)
    sample = drawn(world, policy, 2, 3, rule, rows=200)
    with torch.no_grad():
        contexts = torch.cat([world.prompts[sample.prompt], sample.tokens], 1)
        log_pi = torch.log_softmax(policy(policy.embed(contexts[:, :-1])), -1)[:, -3:]
    want = log_pi.gather(-1, sample.tokens[..., None])[..., 0]
    close(sample.log_probs, torch.where(sample.mask, want, 0.0))
    said = ((sample.tokens == world.end) & sample.mask).any(1)
    assert torch.equal(sample.ended, said)
    assert bool((sample.tokens[~sample.mask] == world.end).all())
    if rule != "cut":
        assert torch.equal(sample.mask, world.mask(sample.tokens))
        paid = step_rewards(world, sample.prompt, sample.tokens)
        assert set(paid.sum(1).tolist()) == {0.0, 1.0}
    else:
        assert not torch.equal(sample.mask, world.mask(sample.tokens))  # some stop without an end token
    assert 0 < float(sample.accepted.mean()) <= 1
    assert not sample.tokens.is_inference()


def test_the_share_of_accepted_steps_is_its_mean_over_the_stationary_law():
    world = WORLDS["garnet"]
    policy = PrefixTable(world, seed=1)
    sample = drawn(world, policy, 3, 100, rows=1000)
    with torch.no_grad():
        among = texts(grow(world, policy), ALPHA)
    law, q, Z, T = among.power[0], among.log_q[0], among.log_Z[0], 3
    mean = 0.0
    for m in range(T):
        same = (among.tokens[:, None, :m] == among.tokens[:, :m]).all(-1)
        ratio = (Z[None, :, m + 1 :].sum(-1) - Z[:, None, m + 1 :].sum(-1)).clamp(max=0).exp()
        mean += float((law[:, None] * same * q[:, m:].sum(-1).exp() * ratio).sum()) / T
    error = float(sample.accepted.std()) / math.sqrt(1000)
    assert abs(float(sample.accepted.mean()) - mean) < 5 * error + 0.002  # begins at the temperature's law
    assert mean < 0.99


def test_the_horizon_is_what_the_policy_allows_where_none_is_given():
    world = WORLDS["stop"]
    noise = torch.Generator().manual_seed(0)
    assert power_sample(PrefixTable(world), world.prompts, 2.0, 1, 1, noise).tokens.shape == (1, 3)
    with pytest.raises(InputError, match=r"^horizon must be given: this policy has no `length`"):
        power_sample(Recomputing(Recurrent(world.V)), world.prompts, 2.0, 1, 1, noise)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "^alpha must be a finite number > 0"),
        ({"alpha": math.nan}, "^alpha must be a finite number > 0"),
        ({"block": 0}, "^block must be a whole number >= 1"),
        ({"steps": -1}, "^steps must be a whole number >= 0"),
        ({"horizon": 0}, "^horizon must be a whole number >= 1"),
        ({"horizon": 40}, "^horizon=40 after 1 tokens needs a context of 40; the policy's length is 8"),
        ({"copies": 0}, "^copies must be a whole number >= 1"),
        ({"end": 3}, "^end must be a token of the vocabulary, 0 ... 2, or None; got 3"),
        ({"end_rule": "mine"}, "^end_rule must be one of hastings, no factor, cut; got 'mine'"),
        ({"prompts": [[7]]}, "^prompts hold token 7"),
        ({"prompts": [0]}, "^prompts must be a table"),
        ({"noise": torch.zeros(1, 4)}, r"^noise must be uniforms of shape \(1, 18\)"),
        ({"noise": torch.ones(1, 18)}, r"^noise must lie in \[0, 1\)"),
    ],
)
def test_what_is_refused_in_one_line(change, message):
    world = WORLDS["stop"]
    given = {"alpha": 2.0, "block": 1, "steps": 1, "noise": torch.Generator(), "horizon": 3, "end": world.end}
    with pytest.raises(InputError, match=message) as refused:
        power_sample(transformer(world), **{"prompts": world.prompts, **given, **change})
    assert "\n" not in str(refused.value)


def test_unsound_logits_are_refused():
    world = WORLDS["stop"]
    policy = transformer(world)
    with torch.no_grad():
        policy.head.bias[0] = math.nan
    with pytest.raises(InputError, match=r"^policy gives logits that are NaN or infinite"):
        power_sample(policy, world.prompts, 2.0, 1, 1, torch.Generator(), 3, 1, world.end)
