"""The claim of the transformer in the linear-quadratic world: truth by two roads, conditioning on the past, spoilt costates."""

import pandas as pd
import pytest
import torch

from agents.sampling.rollout import rollout
from envs.noise import draw_noise
from figures.claims.continuous import transformer_in_lq as module
from figures.harness.claim import judge
from figures.measures.rollouts import costates_of

close = torch.testing.assert_close
SMALL = module.TransformerInLqSetting(network=0, process_noise=False, starts=(1.0,), samples=1500, margin=0.05)


def place(process_noise=False, t=1, start=1.0, seed=0):
    world, steps = module.build_world(process_noise), module._STEPS[process_noise]
    past = draw_noise(world, 1, steps, torch.Generator().manual_seed(seed))
    return module.Place(world, steps, t, torch.tensor([start], dtype=torch.float64), past)


def measured(setting=SMALL, seed=1):
    return pd.DataFrame(module.measure(setting, torch.Generator().manual_seed(seed), "cpu"))


def test_all_samples_share_the_history_and_differ_after_it(rng):
    where, policy = place(t=1), module.build_policy(0)
    noise = draw_noise(where.world, 50, where.steps, rng)
    before = noise.xi.clone()
    run = rollout(where.world, policy, where.given(noise))
    close(run.states[:, :2].detach(), where.history(policy).expand(50, -1, -1))
    assert float(run.states[:, 2].detach().std()) > 0.1
    assert torch.equal(noise.xi, before), "the noise handed in is left alone"
    assert float(place(t=1, seed=1).history(policy)[1] - where.history(policy)[1]) != 0


@pytest.mark.parametrize(("process_noise", "t"), [(False, 0), (False, 1), (True, 0)])
def test_the_gradient_by_differences_is_the_mean_costate_on_the_grid_and_of_many_samples(process_noise, t, rng):
    where, policy = place(process_noise, t), module.build_policy(1)
    truth = module.value_gradient(where, policy, 8)
    close(module.mean_costate(where, policy, 8), truth, rtol=1e-6, atol=1e-7)
    noise = draw_noise(where.world, 4000, where.steps, rng)
    costates = costates_of(where.world, policy, where.given(noise))[0][:, t, 0]
    assert float((costates.mean() - truth).abs()) < 4 * float(costates.std()) / 4000**0.5


def test_the_past_counts():
    """Another past is another value gradient: the history is not forgotten."""
    policy = module.build_policy(0)
    here, there = (module.value_gradient(place(t=1, start=start), policy, 8) for start in (1.0, 0.8))
    one, short = place(t=1), module.build_world(False).replace(horizon=2)
    nothing = draw_noise(short, 1, 2, torch.Generator().manual_seed(0))
    forgotten = module.value_gradient(module.Place(short, 2, 0, one.history(policy)[1], nothing), policy, 8)
    assert float((here - there).abs()) > 1e-3
    assert float((here - forgotten).abs()) > 1e-3


@pytest.mark.parametrize("control", [module.EarlierDetached, module.InputDetached])
def test_controls_give_the_same_commands_and_other_costates(control, rng):
    where, policy = place(t=0), module.build_policy(0)
    shut = control(policy.network)
    noise = where.given(draw_noise(where.world, 20, where.steps, rng))
    whole, cut = costates_of(where.world, policy, noise), costates_of(where.world, shut, noise)
    close(whole[1].states, cut[1].states)
    assert float((whole[0] - cut[0])[:, 0].abs().min()) > 1e-4
    close(whole[0][:, -1], cut[0][:, -1])
    if control is module.EarlierDetached:
        close(whole[0][:, -2], cut[0][:, -2])  # nobody looks back at the last state but one


@pytest.mark.parametrize("process_noise", [False, True])
def test_a_small_run_comes_out_as_documented(process_noise):
    rows = measured(module.TransformerInLqSetting(0, process_noise, (1.0,), 1500, 0.05))
    verdict = judge(module.CLAIM, rows) if not process_noise else None
    assert verdict is None or verdict.as_documented, verdict.reason
    for part in ("sampled mean", "exact mean", "quadrature has converged"):
        assert (rows[rows["part"] == part]["relation"] == "==").all()
        assert len(rows[rows["part"] == part]) == (1 if process_noise else 2)
    blind = rows[rows["part"] == "policy input detached"]
    assert ((blind["exact bias"].abs() > 4 * 0.05) == (blind["relation"] == "==")).all()


def scaled_costates(world, policy, noise):
    costates, trajectory = costates_of(world, policy, noise)
    return 1.1 * costates, trajectory


def shifted_quadrature(*arguments):
    from theory.continuous.quadrature import quadrature_value_gradient

    return quadrature_value_gradient(*arguments) * 1.1


@pytest.mark.parametrize(
    ("name", "spoilt", "parts"),
    [
        ("costates_of", scaled_costates, ("exact mean", "sampled mean")),
        ("quadrature_value_gradient", shifted_quadrature, ("exact mean", "sampled mean")),
        ("_NODES", {False: (2, 3), True: (2, 3)}, ("quadrature has converged",)),
    ],
)
def test_a_planted_error_makes_the_claim_fail(name, spoilt, parts, monkeypatch):
    monkeypatch.setattr(module, name, spoilt)
    verdict = judge(module.CLAIM, measured(module.TransformerInLqSetting(0, False, (1.0,), 1500, 0.02)))
    assert verdict.outcome == "fails"
    assert all(verdict.parts[part].outcome == "fails" for part in parts)


def test_a_control_that_detaches_nothing_leaves_the_claim_undecided(monkeypatch):
    monkeypatch.setattr(module, "InputDetached", module.TransformerCommand)
    monkeypatch.setattr(module, "_SEEN", -1)  # judge it, though its exact bias is none
    verdict = judge(module.CLAIM, measured(module.TransformerInLqSetting(0, False, (1.0,), 1500, 0.05)))
    assert verdict.parts["policy input detached"].outcome == "holds"
    assert verdict.outcome == "undecided"
    assert not verdict.as_documented
