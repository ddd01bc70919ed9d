"""Powers, products and soft optima against brute force over whole completions."""

from math import inf, log

import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from envs.token_tasks import combination_lock, garnet, sum_and_stop
from envs.world import InputError
from tests.theory.speech_cases import talking
from tests.theory.token_cases import several_prompts, transformer
from theory.groups.kl import sequence_kl
from theory.groups.targets import kl_regularised
from theory.tokens.completions import prefixes_alive, words
from theory.tokens.prefix_tree import grow
from theory.tokens.soft_control import rational_optimum, rational_tilt, soft_optimum
from theory.tokens.tilted_laws import locally, power_law, product_of_experts, tilted_law
from theory.tokens.tree_gradients import tree_gradients

close = torch.testing.assert_close
WORLDS = {
    "several prompts": several_prompts(3),
    "stop": sum_and_stop(2, 3),
    "speech": talking(),
    "lock": combination_lock(2, 3),
    "garnet": garnet(V=3, states=4, horizon=3, gamma=0.9, seed=1),
}


def table(world, log_pi):
    return PrefixTable(world, [x.clamp(min=-1e4) for x in log_pi])


def of_words(tree):
    """log-probability of every word: the policy's own tokens of the completion, and all others."""
    spoken = words(tree)
    own = torch.where(spoken.mask, spoken.log_probs, 0.0).sum(-1)
    return own.detach(), torch.where(spoken.mask, 0.0, spoken.log_law).sum(-1).detach()


def law_of(world, log_pi):
    """Probability of every word under a law that is given prefix by prefix."""
    return words(grow(world, table(world, log_pi))).p.detach()


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("name", ["several prompts", "stop", "lock", "garnet"])
def test_a_power_is_the_power_of_whole_completions(name, alpha):
    world = WORLDS[name]
    tree = grow(world, transformer(world, seed=2))
    law = power_law(tree, alpha)
    own, others = of_words(tree)
    weight = (alpha * own + others).exp()
    close(law_of(world, law.log_pi), weight / weight.sum(1, keepdim=True))
    close(law.log_Z[0].detach(), weight.sum(1).log())
    if alpha == 4 and name != "garnet":
        wrong = law_of(world, power_law(tree, 3.9).log_pi)
        assert not torch.allclose(wrong, weight / weight.sum(1, keepdim=True), rtol=1e-3)


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("beta", [0.1, 1.0])
@torch.no_grad()
def test_the_soft_optimum_satisfies_the_regret_identity(name, beta):
    """`J_b(pi*) - J_b(pi) = b KL(pi || pi*)` for every pi, and W at the prompts is the best J_b."""
    world = WORLDS[name]
    reference = transformer(world, seed=1)
    tree = grow(world, reference)
    best = soft_optimum(tree, beta)
    objective = kl_regularised(reference, beta)
    optimum = table(world, best.log_pi)
    top = float(objective(grow(world, optimum)))
    assert top == pytest.approx(float(world.weights @ best.W[0]), rel=1e-10)
    for seed in range(3):
        own = grow(world, PrefixTable(world, seed=seed))
        distance = float(sequence_kl(own, best.log_pi))
        assert top - float(objective(own)) == pytest.approx(beta * distance, rel=1e-9)
        assert top - float(objective(own)) != pytest.approx(
            beta * float(sequence_kl(own, [x.logits.detach() for x in tree.levels])), rel=1e-3
        )


@pytest.mark.parametrize("name", ["several prompts", "stop", "lock", "garnet"])
def test_the_soft_optimum_is_the_tilt_of_whole_completions(name):
    world, beta = WORLDS[name], 0.3
    tree = grow(world, transformer(world, seed=1))
    own, others = of_words(tree)
    weight = (own + others + words(tree).returns.detach() / beta).exp()
    close(law_of(world, soft_optimum(tree, beta).log_pi), weight / weight.sum(1, keepdim=True))


@pytest.mark.parametrize("name", WORLDS)
def test_the_k3_loss_is_at_rest_where_the_rational_tilt_says(name):
    """The slope of E R in every logit, by autograd, cancels `b P(prefix) (ref - pi)`, minus that of the k3 loss."""
    world, beta = WORLDS[name], 0.3
    tree = grow(world, transformer(world, seed=1))
    log_pi = rational_optimum(tree, beta)
    policy = table(world, log_pi)
    own, alive = grow(world, policy), prefixes_alive(tree)
    slopes = [torch.zeros_like(policy.logits)]
    parts = [
        beta * (a * level.reach)[:, None] * (torch.softmax(other.logits, -1) - torch.softmax(level.policy_logits, -1))
        for a, level, other in zip(alive, own.levels, tree.levels, strict=True)
    ]
    pull = torch.cat(parts).detach()
    truth = tree_gradients(world, policy).parameters[0]
    close(truth + pull, slopes[0], rtol=0, atol=1e-12)
    assert float(truth.abs().max()) > 1e-3
    other = table(world, soft_optimum(tree, beta).log_pi)
    assert float((tree_gradients(world, other).parameters[0] + pull).abs().max()) > 1e-4


def test_one_choice_of_the_rational_tilt_by_hand_and_at_its_ends():
    log_ref = torch.tensor([[log(0.5), log(0.3), log(0.2), -inf]]).double()
    Q = torch.tensor([[0.0, 1.0, 0.4, 9.0]]).double()
    p = rational_tilt(log_ref, Q, 0.3).exp()
    close(p.sum(), torch.tensor(1.0).double())
    nu = 0.3 * log_ref.exp() / p + Q
    close(nu[:, :3], nu[:, :1].expand(1, 3))
    assert float(p[0, 3]) == 0.0
    close(rational_tilt(log_ref, Q * 0, 0.3), log_ref)
    peaked = rational_tilt(log_ref, Q, 1e-9).exp()
    assert float(peaked[0, 1]) == pytest.approx(1.0, abs=1e-8)
    assert float(peaked[0, 2]) == pytest.approx(1e-9 * 0.2 / 0.6, rel=1e-6)


def test_products_of_experts_minimise_what_they_say():
    world, weights = WORLDS["several prompts"], (0.5, 0.3, 0.2)
    teachers = [transformer(world, seed=s) for s in range(3)]
    whole = product_of_experts(world, teachers, weights)
    logs = [[x.logits.detach() for x in grow(world, t).levels] for t in teachers]

    def objective(policy):
        tree = grow(world, policy)
        return sum(w * sequence_kl(tree, log) for w, log in zip(weights, logs, strict=True))

    best = table(world, whole.log_pi)
    value = objective(best)
    close(value.detach(), -(world.weights @ whole.log_Z[0]).detach())
    assert float(torch.autograd.grad(value, best.logits)[0].abs().max()) < 1e-13
    local = table(world, product_of_experts(world, teachers, weights, locally).log_pi)
    assert float(objective(local).detach()) > float(value.detach()) + 1e-3
    own = [sum(w * torch.log_softmax(log[k], -1) for w, log in zip(weights, logs, strict=True)) for k in range(3)]
    close(local.logits, torch.cat([torch.log_softmax(x, -1) for x in own]), check_stride=False)
    one = product_of_experts(world, teachers[:1], [1.0])
    close(one.log_pi[2], torch.log_softmax(logs[0][2], -1))
    close(one.log_Z[0], torch.zeros(2).double(), atol=1e-12, rtol=0)


def test_a_teacher_of_weight_0_forbids_nothing_and_one_with_weight_does():
    world = combination_lock(2, 2)
    forbidding = torch.zeros(3, 2).double()
    forbidding[0, 1] = -inf
    teachers = [PrefixTable(world, seed=0), PrefixTable(world, forbidding)]
    close(
        product_of_experts(world, teachers, (1.0, 0.0)).log_pi[0],
        product_of_experts(world, teachers[:1], [1]).log_pi[0],
    )
    assert product_of_experts(world, teachers, (0.5, 0.5)).log_pi[0].exp()[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda w, t: power_law(t, 0.0), "^alpha must be a finite number > 0"),
        (lambda w, t: soft_optimum(t, -1.0), "^beta must be a finite number > 0"),
        (lambda w, t: rational_optimum(t, inf), "^beta must be a finite number > 0"),
        (
            lambda w, t: product_of_experts(w, [transformer(w)], [0.5, 0.5]),
            "^weights must be one for each of 1 teachers",
        ),
        (
            lambda w, t: product_of_experts(w, [transformer(w)] * 2, [0.5, 0.6]),
            "^weights of the teachers must .* sum 1.1$",
        ),
        (
            lambda w, t: product_of_experts(w, [transformer(w)] * 2, [-0.5, 1.5]),
            "^weights of the teachers must be >= 0",
        ),
        (lambda w, t: product_of_experts(w, [], []), "^weights must be one for each of 0 teachers"),
        (
            lambda w, t: product_of_experts(w, [transformer(sum_and_stop(2, 3))], [1]),
            "^policy must give logits of shape",
        ),
        (lambda w, t: tilted_law(t, [x.logits * torch.nan for x in t.levels]), "^log_weights hold NaN"),
    ],
)
def test_refusals(call, text):
    world = combination_lock(2, 2)
    with pytest.raises(InputError, match=text):
        call(world, grow(world, transformer(world)))
