"""DiCE on sampled rows: its mean Hessian against the exact one, its spread, and forms that are wrong."""

import itertools

import pytest
import torch

from agents.policies.prefix_table import PrefixTable
from agents.recipes.dice import dice, magic_box
from envs.token_tasks import garnet, sum_and_stop
from envs.world import InputError
from tests.theory.token_cases import several_prompts
from theory.tokens.second_order import parameter_hessian
from theory.tokens.tree_gradients import tree_gradients

close = torch.testing.assert_close
WORLDS = {
    "garnet": garnet(V=2, horizon=3, seed=1, gamma=0.9),
    "stop": sum_and_stop(2, 3),
    "prompts": several_prompts(2),
}


def rows_of(world, logits):
    """All words by loops over tokens: log pi of each step attached, mean rewards, mask, value of each prefix, chance."""
    V, H, P, r = world.V, world.horizon, world.P, world.r
    offsets = [len(world.prompts) * (V**k - 1) // (V - 1) for k in range(H)]
    law = torch.log_softmax(logits, -1)
    found = []
    for prompt, word in itertools.product(range(len(world.prompts)), itertools.product(range(V), repeat=H)):
        belief, node, ended, row = torch.eye(world.S).double()[world.starts[prompt]], prompt, False, ([], [], [])
        for k, token in enumerate(word):
            row[0].append(law[offsets[k] + node, token])
            row[1].append(0.0 if ended else world.gamma**k * float(belief @ r[k][:, token]))
            row[2].append(not ended)
            ended, belief, node = ended or token == world.end, belief @ P[:, token], node * V + token
        found.append([torch.stack(row[0]), torch.tensor(row[1]).double(), torch.tensor(row[2])])
    log_probs, rewards, mask = (torch.stack(x) for x in zip(*found, strict=True))
    chance = log_probs.detach().sum(1).exp() * world.weights.repeat_interleave(V**H)
    return log_probs, rewards, mask, chance


def values_of(world, rewards, chance):
    """`gamma^k V_k` of every prefix as the mean reward-to-go of the words through it."""
    to_go = rewards.flip(1).cumsum(1).flip(1)
    columns = []
    for k in range(world.horizon):
        group = torch.arange(len(chance)) // world.V ** (world.horizon - k)
        of = lambda x: torch.zeros(int(group[-1]) + 1).double().index_add_(0, group, x)  # noqa: B023, E731
        columns.append((of(chance * to_go[:, k]) / of(chance))[group])
    return torch.stack(columns, 1)


def hessian_of(scalar, logits):
    (slope,) = torch.autograd.grad(scalar, logits, create_graph=True)
    return torch.stack([torch.autograd.grad(x, logits, retain_graph=True)[0].flatten() for x in slope.flatten()])


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("form", ["plain", "baseline", "baseline past"])
def test_all_forms_have_the_gradient_and_the_hessian_of_the_return(name, form):
    world = WORLDS[name]
    policy = PrefixTable(world, seed=0)
    log_probs, rewards, mask, chance = rows_of(world, policy.logits)
    values = None if form == "plain" else values_of(world, rewards, chance) + 0.3  # any function of the prefix will do
    terms = dice(log_probs, rewards, mask, values, past=form == "baseline past")
    close(terms.detach(), rewards.sum(1))
    mean = chance @ terms
    close(torch.autograd.grad(mean, policy.logits, retain_graph=True)[0].flatten(), tree_gradients(world, policy).flat)
    close(hessian_of(mean, policy.logits), parameter_hessian(world, policy))


def test_baselines_lower_the_spread_of_one_rows_hessian():
    world = WORLDS["garnet"]
    policy = PrefixTable(world, seed=0)
    log_probs, rewards, mask, chance = rows_of(world, policy.logits)
    values, spread = values_of(world, rewards, chance), []
    for own, past in ((None, False), (values, False), (values, True)):
        terms = dice(log_probs, rewards, mask, own, past)
        spread.append(sum(p * hessian_of(x, policy.logits).square().sum() for p, x in zip(chance, terms, strict=True)))
    assert spread[0] > 1.5 * spread[1] > 3 * spread[2]


def test_a_mean_of_drawn_rows_is_the_hessian_within_its_standard_error():
    world = WORLDS["stop"]
    policy = PrefixTable(world, seed=1)
    log_probs, rewards, mask, chance = rows_of(world, policy.logits)
    terms = dice(log_probs, rewards, mask, values_of(world, rewards, chance))
    each = torch.stack([hessian_of(x, policy.logits) for x in terms])
    rows = torch.multinomial(chance, 20_000, replacement=True, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(rows, minlength=len(chance)) / len(rows)
    mean = torch.einsum("r,rij->ij", share.double(), each)
    variance = torch.einsum("r,rij->ij", chance, each.square()) - torch.einsum("r,rij->ij", chance, each).square()
    gap, error = (mean - parameter_hessian(world, policy)).abs(), (variance.clamp(min=0) / len(rows)).sqrt()
    assert bool((gap <= 4.5 * error + 1e-12).all())
    assert float(error.max()) < 0.02 * float(mean.abs().max())  # so fine that the surrogate's, 0, would be seen


def test_masked_steps_and_their_numbers_do_not_count():
    log_probs = torch.tensor([[-0.5, -0.2, torch.nan]]).double().requires_grad_()
    rewards, mask = torch.tensor([[1.0, 2.0, 0.0]]).double(), torch.tensor([[True, True, False]])
    (slope,) = torch.autograd.grad(dice(log_probs, rewards, mask).sum(), log_probs)
    assert slope.tolist() == [[3.0, 2.0, 0.0]]
    environment = torch.tensor([[True, False, False]])  # the second token is the environment's: it has no score
    (slope,) = torch.autograd.grad(dice(log_probs, rewards, environment, rewards).sum(), log_probs)
    assert slope.tolist() == [[2.0, 0.0, 0.0]]
    assert magic_box(torch.tensor([-3.0, 0.0])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["rewards", "mask", "values"])
def test_another_shape_is_refused(name):
    fields = {"rewards": torch.ones(2, 3), "mask": torch.ones(2, 3).bool(), "values": torch.ones(2, 3)}
    with pytest.raises(InputError, match=rf"^{name} must have the shape of log_probs, \(2, 3\); got \(2, 2\)$"):
        dice(torch.zeros(2, 3), **fields | {name: fields[name][:, :2]})
