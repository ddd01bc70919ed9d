"""The exact mean of a loss by another road: every ordered group, drawn and differentiated one by one."""

import itertools

import pytest
import torch
from torch import Tensor

from agents.policies.prefix_table import PrefixTable
from agents.recipes.learners import build_learner
from envs.token_mdp import TokenMDP
from envs.token_tasks import parity, sum_and_stop
from figures.audit.contract import NamedLoss, Subject
from figures.audit.exact import groups_over, mean_field, mean_update, places
from figures.audit.recipes import learner_loss
from figures.audit.rows import Rows
from tests.figures.audit.parts import build, leave_one_out, of_logits, read
from theory.tokens.completions import words
from theory.tokens.prefix_tree import grow


def brute_force(subject: Subject, world: TokenMDP, policy: PrefixTable, group: int) -> Tensor:
    """`sum over ordered groups of P(group) sum_i w_i grad log pi(row i)`, every group alone, by autograd of log pi."""
    with torch.no_grad():
        own = words(grow(world, policy))
    total = torch.zeros_like(policy.logits)
    for i, prompt in enumerate(world.prompts):
        contexts = torch.cat([prompt.expand(len(own.tokens[i]), -1), own.tokens[i]], 1)
        for chosen in itertools.product(range(len(contexts)), repeat=group):
            index = torch.tensor(chosen)
            z = policy(policy.embed(contexts[index][:, :-1]))
            log_pi = torch.log_softmax(z[:, -world.horizon :], -1)
            log_probs = log_pi.gather(-1, own.tokens[i][index][..., None])[..., 0]
            entropy = -(log_pi.exp() * log_pi).sum(-1)
            mask = own.mask[i][index]
            ended = torch.ones(group, dtype=torch.bool)
            if world.end is not None:
                ended = (own.tokens[i][index] == world.end).any(-1)
            constant = log_probs.detach()
            logits = torch.cat([z.detach(), torch.zeros_like(z[:, :1])], 1)
            label = torch.zeros(group, dtype=torch.long)
            numbers = (constant, constant, constant, entropy.detach(), own.rewards[i][index], mask, label, ended)
            slopes = subject.slopes(Rows(*numbers, logits.detach(), contexts[index]))
            surrogate = (torch.where(mask, slopes.weights, 0.0) * log_probs).sum()
            if slopes.logits is not None:
                surrogate = (slopes.logits[:, :-1] * z).sum()
            elif slopes.entropy is not None:
                surrogate = surrogate + (torch.where(mask, slopes.entropy, 0.0) * entropy).sum()
            share = world.weights[i] * own.p[i][index].prod()
            total += share * torch.autograd.grad(surrogate, [policy.logits])[0]
    return total.flatten()


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize("name", ["of logits", "grpo", "dapo", "entropy"])
def test_the_mean_is_that_over_all_ordered_groups(name: str, group: int) -> None:
    options = {"entropy": 0.3} if name == "entropy" else {}
    subject: Subject = learner_loss(build_learner("grpo" if name in ("entropy", "of logits") else name, **options))
    if name == "of logits":
        subject = NamedLoss(of_logits(read), leave_one_out)
    world = sum_and_stop(1, 2) if group == 3 else sum_and_stop(2, 2)
    policy = PrefixTable(world, seed=2)
    found, expected = mean_field(subject, world, policy, group=group), brute_force(subject, world, policy, group)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    wrong = brute_force(learner_loss(build_learner("grpo", std="none")), world, policy, group)  # the control
    assert float((found - wrong).abs().max()) > 1e-3


def test_a_sum_over_groups_has_the_mean_of_one_group() -> None:
    total = NamedLoss(build(norm=lambda terms, mask: -(terms * mask).sum()), leave_one_out)
    mean = NamedLoss(build(), leave_one_out)
    assert (groups_over(total), groups_over(mean)) == ("sum", "mean")
    world = parity(2, 2)
    policy = PrefixTable(world, seed=1)
    found = mean_field(total, world, policy, group=3)
    torch.testing.assert_close(found, 3 * mean_field(mean, world, policy, group=3))  # rows are summed, not averaged


def test_prompts_are_told_apart() -> None:
    two = places()[2]
    found = mean_update(learner_loss(build_learner("grpo", length="row sum")), two)
    assert max(found.prompt_bias) < 1e-10, "each prompt by itself"
    assert found.bias > 1e-3, "together they are no multiple of the gradient"
    assert abs(found.prompts[0] - found.prompts[1]) > 0.01
