"""Targets beside the expected return: value, gradient and costates against loops over all k-tuples, and many digits."""

import itertools
import math
from dataclasses import replace

import mpmath
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from agents.recipes.learners import build_learner
from envs.token_mdp import TokenMDP
from envs.token_tasks import arithmetic
from tests.envs.refusals import refused
from tests.theory.groups.enumeration import WORLDS, Enumeration, policy_of
from tests.theory.groups.test_batches import noisy_prompts
from tests.theory.groups.test_expected_update import prefixes, shifted
from tests.theory.token_cases import transformer
from tests.typecheck import unchecked
from theory.differences import directional_slope
from theory.groups.expected_update import expected_update
from theory.groups.targets import (
    expected_maximum,
    expected_return,
    kl_regularised,
    max_at_k,
    pass_at_k,
    success,
    target_gradients,
)
from theory.impact import best_of
from theory.tokens.completions import completions
from theory.tokens.prefix_tree import grow
from theory.tokens.tree_gradients import tree_gradients

close = torch.testing.assert_close
mpmath.mp.dps = 680
PLACES = {**WORLDS, "noisy": noisy_prompts(), "sums": arithmetic(2, 2)}


def chances(every, log_pi):
    """Probability of every completion given its prompt, attached to the graph."""
    return (log_pi * every.mask).sum(1).exp() * every.given


def by_tuples(every, p, k):
    """`sum over prompts, weight sum over all k-tuples of completions, product of p, largest return`, in loops."""
    total, R = 0.0, every.rewards.sum(1)
    for prompt, weight in enumerate(every.world.weights.tolist()):
        for rows in itertools.product((every.prompt == prompt).nonzero()[:, 0].tolist(), repeat=k):
            total = total + weight * p[list(rows)].prod() * max(float(R[i]) for i in rows)
    return total


def return_less_kl(every, log_pi, log_ref, beta):
    """`E[R - beta log(pi / ref)]` over all completions; the gradient goes through the whole sum."""
    paid = every.rewards.sum(1) - beta * ((log_pi - log_ref) * every.mask).sum(1)
    return (every.world.weights[every.prompt] * chances(every, log_pi) * paid).sum()


def brute(every, name, log_pi, reference):
    if name == "kl":
        return return_less_kl(every, log_pi, every.evaluate(reference)[0].detach(), 0.3)
    return by_tuples(every, chances(every, log_pi), int(name))


def made(name, reference):
    return kl_regularised(reference, 0.3) if name == "kl" else max_at_k(int(name))


TARGETS = {
    "two prompts": "123k",
    "when to stop": "123k",
    "noisy": "123k",
    "numbers and stop": "12k",
}  # 3: too many tuples
CASES = [(place, {"k": "kl"}.get(name, name)) for place, names in TARGETS.items() for name in names]


@unchecked()
@pytest.mark.parametrize(("place", "name"), CASES)
def test_value_gradient_and_costates_are_those_of_loops_over_all_tuples(place, name):
    world, site = PLACES[place], "layer1"
    every, policy, reference = Enumeration(world), policy_of(world), policy_of(world, seed=4)
    value, gradients = target_gradients(world, policy, made(name, reference), (site,))
    exact = brute(every, name, every.evaluate(policy)[0], reference)
    slopes = torch.autograd.grad(exact, list(policy.parameters()), allow_unused=True, materialize_grads=True)
    close(value, exact.detach())
    close(gradients.flat, parameters_to_vector(slopes), rtol=1e-9, atol=1e-13)
    log_pi = every.evaluate(policy)[0].detach()
    for prompt, begun in prefixes(world)[::2]:
        delta, (moved, _), rows = shifted(every, policy, (prompt, begun), site)
        index = torch.tensor(rows)
        at = brute(every, name, log_pi.index_put((index,), moved), reference)
        reach = float(world.weights[prompt] * chances(every, log_pi)[index].sum())
        costate = torch.autograd.grad(at, delta)[0] / (reach * world.gamma ** len(begun))
        node = int(every.nodes(len(begun))[rows[0]])
        close(gradients.costates[site][len(begun)][node], costate, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("place", ["noisy", "two prompts"])
def test_the_gradient_is_the_slope_of_the_value_by_differences(place):
    world = PLACES[place]
    policy, reference = policy_of(world, 2), policy_of(world, 3)
    for target in (max_at_k(3), kl_regularised(reference, 0.5), expected_return):
        _, gradients = target_gradients(world, policy, target)
        way = torch.randn(gradients.flat.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        way = way / way.norm()
        slope = directional_slope(policy, way, lambda moved, f=target: f(grow(world, moved)).detach())
        assert float(slope) == pytest.approx(float(gradients.flat @ way), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("place", PLACES)
def test_max_at_1_is_the_expected_return_and_is_climbed_by_the_default(place):
    world = PLACES[place]
    policy, learner = policy_of(world), build_learner("rloo")
    plain = expected_update(world, policy, learner, 2, ("layer1",))
    for target in (max_at_k(1), expected_return):
        update = expected_update(world, policy, learner, 2, ("layer1",), target=target)
        close(update.value, plain.J)
        close(update.truth.flat, plain.truth.flat, rtol=1e-9, atol=1e-13)
        for ours, theirs in zip(update.truth.costates["layer1"], plain.truth.costates["layer1"], strict=True):
            close(ours, theirs, rtol=1e-8, atol=1e-12, equal_nan=True)
        close(update.mean.flat, plain.mean.flat, rtol=0, atol=0)
    close(plain.truth.flat, tree_gradients(world, policy).flat)
    assert plain.value is plain.J
    other = expected_update(world, policy, learner, 2, target=max_at_k(2)).truth.flat
    assert float((other - plain.truth.flat).norm()) > 1e-2 * float(other.norm()), "the control: another target"


def test_pass_at_k_of_binary_returns_is_its_formula_over_prompts_and_success_is_pass_at_1():
    world = PLACES["sums"]
    policy = policy_of(world)
    P = completions(grow(world, policy)).success()
    assert float(P.std()) > 0.01
    for k in (1, 2, 7):
        value, gradients = target_gradients(world, policy, pass_at_k(k))
        assert float(value) == pytest.approx(float(world.weights @ (1 - (1 - P) ** k)), rel=1e-12)
        close(gradients.flat, target_gradients(world, policy, max_at_k(k))[1].flat)
        total = 0.0
        for prompt, chance in enumerate(P.tolist()):
            only = replace(world, weights=[float(q == prompt) for q in range(len(P))])
            total += k * (1 - chance) ** (k - 1) * tree_gradients(only, policy).flat / len(P)
        close(gradients.flat, total, rtol=1e-9, atol=1e-13)
    close(target_gradients(world, policy, success)[0], target_gradients(world, policy, pass_at_k(1))[0])


def many_digits(p, R, k):
    """`sum_i r_i (F_i^k - F_{i-1}^k)`, R ascending, and its slopes `-sum_{i >= j} k F_i^{k-1} (r_{i+1} - r_i)` in logits."""
    F = [mpmath.fsum(p[: i + 1]) for i in range(len(p))]
    value = mpmath.fsum(r * (F[i] ** k - (F[i - 1] ** k if i else 0)) for i, r in enumerate(R))
    slopes = [
        -mpmath.fsum(k * F[i] ** (k - 1) * (R[i + 1] - R[i]) for i in range(j, len(p) - 1)) for j in range(len(p))
    ]
    mean = mpmath.fsum(x * y for x, y in zip(p, slopes, strict=True))
    return value, [x * (y - mean) for x, y in zip(p, slopes, strict=True)]


@pytest.mark.parametrize("k", [1, 2, 5, 64])
@pytest.mark.parametrize("missing", [0.3, 1e-9, 1e-17, 1e-100, 1e-290])
@pytest.mark.parametrize("best", [0, 1, 2])
def test_maxima_of_peaked_laws_have_their_digits(best, missing, k):
    """Three returns, one of which has all but `missing` of the probability; value and slopes in the logits."""
    z = torch.tensor([math.log(missing), math.log(missing / 3), math.log(missing / 7)], dtype=torch.float64)
    z[best] = 0.0
    z.requires_grad_()
    R = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    value = expected_maximum(torch.softmax(z, 0), R, k)
    (slopes,) = torch.autograd.grad(value, z)
    weights = [mpmath.exp(mpmath.mpf(float(x))) for x in z.detach()]
    p = [x / mpmath.fsum(weights) for x in weights]
    exact, exact_slopes = many_digits(p, [mpmath.mpf(x) for x in R.tolist()], k)
    assert abs(mpmath.mpf(float(value.detach())) - exact) <= mpmath.mpf("1e-12") * exact
    assert abs(float(best_of(torch.softmax(z.detach(), 0), R, k)) / float(exact) - 1) < 1e-12
    size = max(abs(x) for x in exact_slopes)
    for ours, theirs in zip(slopes.tolist(), exact_slopes, strict=True):
        assert abs(mpmath.mpf(ours) - theirs) <= mpmath.mpf("1e-11") * size + mpmath.mpf("1e-305")


def test_a_naive_maximum_loses_its_digits():
    """The control of the test above: the sum of r (F^k - F^k) as it stands."""
    p = torch.tensor([1.0, 1e-17], dtype=torch.float64)
    F = p.cumsum(0) / p.sum()
    assert float(F[1] ** 5 - F[0] ** 5) == 0.0
    assert float(expected_maximum(p, torch.tensor([0.0, 1.0]).double(), 5)) == pytest.approx(5e-17, rel=1e-12)


class Table(nn.Module):
    """One table of logits for each step, whatever the context; logits may be -infinity."""

    sites, width, layers = ("embedding",), 1, 1

    def __init__(self, logits):
        super().__init__()
        self.z = nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def embed(self, u):
        return (u.sum(-1, keepdim=True) if u.is_floating_point() else torch.ones_like(u)[..., None]).to(self.z)

    def extend(self, x, cache=None, probes=None):
        step = 0 if cache is None else cache
        return self.z[step].expand(len(x), -1), step + 1

    def forward(self, embeddings, probes=None):
        first = embeddings.shape[1] - len(self.z)
        steps = torch.arange(embeddings.shape[1]).sub(first).clamp(min=0)
        return self.z[steps].expand(len(embeddings), -1, -1)


@pytest.mark.parametrize("missing", [1e-12, 1e-40])
def test_the_gradient_in_a_peaked_policys_logits_has_its_digits(missing):
    """Pass@3 with P = (1 - missing)^2: the gradient is 3 (1 - P)^2 grad P, far below the rounding of 1."""
    world = TokenMDP(torch.ones(1, 2, 1), [[[1.0, 0.0]], [[0.0, 0.0]]], [[0]], [0], 2)
    policy = Table([[0.0, math.log(missing)], [0.0, 0.0]])
    slopes = target_gradients(world, policy, pass_at_k(3))[1].flat
    q = mpmath.mpf(missing) / (1 + mpmath.mpf(missing))
    exact = float(3 * q**2 * q * (1 - q))
    assert slopes.tolist() == pytest.approx([exact, -exact, 0.0, 0.0], rel=1e-11, abs=0.0)
    never = Table([[math.log(missing), 0.0], [0.0, 0.0]])
    value, gradients = target_gradients(world, never, pass_at_k(3))
    assert float(value) == pytest.approx(3 * missing, rel=1e-9, abs=0.0)
    assert gradients.flat.tolist()[:2] == pytest.approx([3 * missing, -3 * missing], rel=1e-9, abs=0.0)


def test_returns_that_differ_by_rounding_alone_are_ties():
    """Tokens 1 and 2 lead to 0.1 + 0.2 and to 0.3, token 0, which is hardly ever said, to 1."""
    P, r = torch.zeros(3, 3, 3).double(), torch.zeros(2, 3, 3).double()
    P[:, 0, 0] = P[:, 1, 1] = P[:, 2, 2] = 1.0
    r[0, 0], r[1, 1] = torch.tensor([1.0, 0.1, 0.3], dtype=torch.float64), 0.2
    assert float(r[0, 0, 1] + r[1, 1, 0]) != float(r[0, 0, 2])
    policy, exact = Table([[-60.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([1.0, 0.3, 0.3], dtype=torch.float64)
    world, same = TokenMDP(P, r, [[0]], [0], 2), TokenMDP(P, torch.stack([exact.expand(3, 3), 0 * r[0]]), [[0]], [0], 2)
    ours, theirs = (target_gradients(each, policy, max_at_k(4))[1].flat for each in (world, same))
    close(ours, theirs, rtol=1e-11, atol=1e-12 * float(theirs[0]))
    assert 0 < float(theirs[0]) < 1e-20


def test_forbidden_tokens_have_no_part_in_a_target():
    """A policy that never says token 1 has the target of the world without it; a reference that forbids more is refused."""
    world, allowed = TokenMDP(torch.ones(1, 3, 1), [[[0.2, 5.0, 1.0]], [[0.0, 7.0, 0.3]]], [[0]], [0], 2), [0, 2]
    logits, less = [[0.3, -math.inf, -0.4], [0.1, -math.inf, 0.5]], [[0.3, -0.4], [0.1, 0.5]]
    smaller = TokenMDP(torch.ones(1, 2, 1), world.r[..., allowed], [[0]], [0], 2)
    other = [[0.0, -math.inf, 0.7], [0.2, -math.inf, 0.0]]
    pairs = [(max_at_k(3), max_at_k(3))]
    pairs.append((kl_regularised(Table(other), 0.7), kl_regularised(Table([[0.0, 0.7], [0.2, 0.0]]), 0.7)))
    for target, same in pairs:
        value, gradients = target_gradients(world, Table(logits), target)
        there, expected = target_gradients(smaller, Table(less), same)
        close(value, there)
        close(gradients.parameters[0][:, allowed], expected.parameters[0])
        assert gradients.parameters[0][:, 1].tolist() == [0.0, 0.0]
    with refused("target"):
        target_gradients(smaller, Table(less), kl_regularised(Table([[0.0, -math.inf], [0.0, 0.0]]), 0.1))


def test_a_policy_in_float32_has_the_same_targets():
    world = PLACES["noisy"]
    policy, reference = policy_of(world), policy_of(world, seed=4)
    for target in (max_at_k(3), kl_regularised(reference, 0.5)):
        value, gradients = target_gradients(world, policy, target)
        narrow = transformer(world, temperature=0.3).float()
        narrow.load_state_dict({name: x.float() for name, x in policy.state_dict().items()})
        near, slopes = target_gradients(world, narrow, target)
        assert float(near) == pytest.approx(float(value), rel=1e-5)
        close(slopes.flat.double(), gradients.flat, rtol=1e-3, atol=1e-5)


@unchecked()
def test_what_is_no_target_is_refused():
    world = PLACES["two prompts"]
    policy = policy_of(world)
    for k in (0, 1.5, True):
        for make in (max_at_k, pass_at_k):
            with refused("k"):
                make(k)
    with refused("rewards"):
        target_gradients(world, policy, pass_at_k(2))
    for wrong in (lambda tree: 1.0, lambda tree: tree.V[0], lambda tree: tree.J * math.nan):
        with refused("target"):
            expected_update(world, policy, build_learner("rloo"), 2, target=wrong)
