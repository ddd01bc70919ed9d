"""Costates given the past: the truth by two roads, conditioning, and policies with a path detached."""

import pytest
import torch

from agents.policies.linear import ClosedPath
from agents.sampling.rollout import rollout
from envs.noise import draw_noise
from figures.measures.conditioned_costates import Place, mean_costate, sampled_costates, value_gradient
from figures.measures.memory_policies import transformer_policy, transformer_world
from figures.measures.rollouts import costates_of

close = torch.testing.assert_close


def place(process_noise=False, t=1, start=1.0, seed=0):
    world = transformer_world(process_noise)
    past = draw_noise(world, 1, world.horizon, torch.Generator().manual_seed(seed))
    return Place(world, t, torch.tensor([start], dtype=torch.float64), past)


def test_all_samples_share_the_history_and_differ_after_it(rng):
    where, policy = place(t=1), transformer_policy(0)
    noise = draw_noise(where.world, 50, where.steps, rng)
    before = noise.xi.clone()
    run = rollout(where.world, policy, where.condition(noise))
    close(run.states[:, :2].detach(), where.history(policy).expand(50, -1, -1))
    assert float(run.states[:, 2].detach().std()) > 0.1
    assert torch.equal(noise.xi, before), "the noise handed in is left alone"
    assert float(place(t=1, seed=1).history(policy)[1] - where.history(policy)[1]) != 0


@pytest.mark.parametrize(("process_noise", "t"), [(False, 0), (False, 1), (True, 0)])
def test_the_gradient_by_differences_is_the_mean_costate_on_the_grid_and_of_many_samples(process_noise, t, rng):
    where, policy = place(process_noise, t), transformer_policy(1)
    truth = value_gradient(where, policy, 8)
    close(mean_costate(where, policy, 8), truth, rtol=1e-6, atol=1e-7)
    both = sampled_costates(where, [policy, ClosedPath(policy, "all")], 4000, rng, "cpu")
    assert abs(float(both.mean[0]) - float(truth)) < 4 * float(both.standard_error[0])
    assert abs(float(both.mean[1]) - float(truth)) > 4 * float(both.standard_error[1])


def test_the_past_counts():
    """Another past is another value gradient: the history is not forgotten."""
    policy = transformer_policy(0)
    here, there = (value_gradient(place(t=1, start=start), policy, 8) for start in (1.0, 0.8))
    one, short = place(t=1), transformer_world(False).replace(horizon=2)
    nothing = draw_noise(short, 1, 2, torch.Generator().manual_seed(0))
    forgotten = value_gradient(Place(short, 0, one.history(policy)[1], nothing), policy, 8)
    assert float((here - there).abs()) > 1e-3
    assert float((here - forgotten).abs()) > 1e-3


@pytest.mark.parametrize("path", ["past", "all"])
def test_policies_with_a_path_closed_give_the_same_commands_and_other_costates(path, rng):
    where, policy = place(t=0), transformer_policy(0)
    noise = where.condition(draw_noise(where.world, 20, where.steps, rng))
    whole, cut = (costates_of(where.world, each, noise) for each in (policy, ClosedPath(policy, path)))
    close(whole[1].states, cut[1].states)
    assert float((whole[0] - cut[0])[:, 0].abs().min()) > 1e-4
    close(whole[0][:, -1], cut[0][:, -1])
    if path == "past":
        close(whole[0][:, -2], cut[0][:, -2])  # nobody looks back at the last state but one
