"""VGL(lambda) with a network as critic: its mean, its first step, its curl, several copies, going on, refusals."""

import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.policies.linear_field import LinearField
from agents.policies.network_field import NetworkField
from agents.recipes.learners import build_learner
from agents.recipes.value_gradient_learning import ValueGradientLearning
from agents.sampling.rollout import rollout
from agents.sampling.value_gradient_targets import path_targets, vgl_targets
from agents.training import value_gradient_step
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.field_critics import build_field, curl_of
from agents.training.noise import noise_of
from agents.training.settings import TrainingSettings
from agents.training.trainer import Trainer
from agents.training.value_gradient_step import field_rows
from envs.linear_quadratic import random_system
from envs.noise import draw_noise
from figures.measures.oracles import CommandOracle
from tests.agents.cases import draws, world
from tests.agents.policies.test_network_field import field
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.theory.cases import affine_policies, priced, stable_gain
from theory.continuous.costates import path_derivatives
from theory.continuous.lq_gradients import policy_gradient

close = torch.testing.assert_close
NETWORK = {"critic": "network", "width": 5}


def network(lq, seed=0, width=5):
    """A field that is wrong everywhere, with a curl."""
    return field(lq.n, lq.horizon + 1, width, seed)


def fresh(lq, seed=0):
    """As a run begins with."""
    return build_field(ValueGradientLearning(**NETWORK), CommandTask(lq), seed)


def trainer(lq, seeds=(0,), policies=None, fields=None, more=None, **options):
    setting = {"steps": 6, "prompts": 4, "group": 4, "rate": 0.02, "critic_rate": 0.02, "every": 2} | (more or {})
    policies = policies or [LinearPolicy(torch.zeros(lq.m, lq.n)) for _ in seeds]
    fields = fields or [fresh(lq, seed) for seed in seeds]
    learner = build_learner("vgl", **(NETWORK | options))
    return Trainer(
        CommandTask(lq), learner, policies, list(seeds), TrainingSettings(**setting), CommandOracle(lq), fields
    )


def updates(lq, policy, critic, lam, draws=60):
    """The actor's updates of many steps, none of which is taken."""
    actor, fields, noise = Copies.of([policy]), Copies.of([critic]), [torch.Generator().manual_seed(0)]
    learning, setting = ValueGradientLearning(lam, **NETWORK), TrainingSettings(prompts=60, group=2)
    rows = (field_rows(CommandTask(lq), learning, actor, fields, setting, noise) for _ in range(draws))
    return torch.stack([each.gradients[0].detach() for each in rows])


@pytest.mark.parametrize("kind", ["offset", "both change"])
def test_at_lambda_1_the_mean_is_grad_J_whatever_the_network(kind, monkeypatch):
    lq = priced(horizon=3, noise="laplace")
    K, k = affine_policies(lq)[kind]
    policy, exact = LinearPolicy(K, k), policy_gradient(lq, K, k)
    found = updates(lq, policy, network(lq), 1.0)
    assert_mean_within(found, exact)
    assert torch.equal(found, updates(lq, policy, network(lq, seed=1), 1.0))
    assert differs_by(updates(lq, policy, network(lq), 0.5), exact), "the control: below 1 a wrong critic biases"
    planted = lambda *given: path_targets(*given[:-1], 0.8 * given[-1])  # noqa: E731
    monkeypatch.setattr(value_gradient_step, "path_targets", planted)
    assert differs_by(updates(lq, policy, network(lq), 1.0), exact), "the control: targets of another lambda"


def test_one_step_moves_actor_and_network_as_by_hand():
    """Adam's first step is the rate times the sign of the slope, here of half the mean squared error, by plain autograd."""
    lq, K = world(), stable_gain(world())
    critic, more = network(lq), {"steps": 1, "critic_epochs": 1, "optimiser": "sgd", "rate": 1e-3}
    run = trainer(lq, policies=[LinearPolicy(K)], fields=[critic], lam=0.3, more=more)
    run.step()
    drawn, policy = draw_noise(lq, 16, lq.horizon, noise_of("rollouts", 0)), LinearPolicy(K)
    path = rollout(lq, policy, drawn, drawn.s_0[:4].repeat_interleave(4, 0))
    states, actions = path.states.detach(), path.actions.detach()
    G = critic.along(states)
    Dr, Df, terminal = path_derivatives(lq, lambda s, t: -K @ s, states, drawn.xi, drawn.w)
    targets = vgl_targets(Dr, Df, terminal, G.detach(), lq.gamma, 0.3)
    (0.5 * (targets - G).square().sum((1, 2)).mean()).backward()
    for name, p in critic.named_parameters():
        moved = run.critic.network.get_parameter(name).detach() - p.detach()
        close(moved, -0.02 * p.grad.sign(), rtol=1e-6, atol=1e-6)
    ahead, (B, R) = 0.3 * targets + 0.7 * G.detach(), (torch.as_tensor(getattr(lq, x)).double() for x in "BR")
    slopes = -2 * actions @ R + lq.gamma * ahead[:, 1:] @ B
    discount = lq.gamma ** torch.arange(lq.horizon).double()
    gradient = -torch.einsum("t,bti,btj->ij", discount, slopes, states[:, :-1]) / 16
    close(run.policies[0].K.detach() - K, 1e-3 * gradient)


def test_dual_heuristic_programming_with_a_network_ends_near_the_best_constant_gain():
    """Ascent on the exact gradient says where that is; at lambda 0 a network that learns nothing does not get there."""
    lq = random_system(2, 1, seed=3, horizon=4, gamma=0.9)
    more = {"steps": 150, "prompts": 8, "rate": 0.05, "every": 150}
    start, oracle = [LinearPolicy(torch.zeros(1, 2))], CommandOracle(lq)
    exact = Trainer(CommandTask(lq), build_learner("value_gradient"), start, [0], TrainingSettings(**more), oracle)
    first, *_, best = [float(record.J) for record in exact.run()]
    found, idle = (list(trainer(lq, lam=0.0, more=more | rate).run())[-1].J for rate in ({}, {"critic_rate": 1e-12}))
    assert float(found) > best - 0.05 * (best - first)
    assert float(idle) < best - 0.2 * (best - first)


def curl_by_differences(critic, states, step=1e-5):
    """Norm of `J - J'` over that of J, all states and times together, by central differences of the field."""
    n, J = states.shape[-1], []
    for j in range(n):
        shift = step * torch.eye(n).double()[j]
        J.append((critic.along(states + shift) - critic.along(states - shift)).detach() / (2 * step))
    slopes = torch.stack(J, -1)
    return float((slopes - slopes.mT).square().mean().sqrt() / slopes.square().mean().sqrt())


def test_the_curl_is_that_of_the_network_before_the_step_at_the_states_drawn():
    lq, critic = world(), network(world())
    run, drawn = (
        trainer(lq, fields=[critic], more={"steps": 2}),
        draw_noise(lq, 16, lq.horizon, noise_of("rollouts", 0)),
    )
    states = rollout(lq, run.policies[0], drawn, drawn.s_0[:4].repeat_interleave(4, 0)).states.detach()
    first = run.step()
    assert float(first.curl) == pytest.approx(curl_by_differences(critic, states), rel=1e-7)
    assert abs(float(first.curl) - curl_by_differences(run.critic.network, states)) > 1e-4, (
        "the control: after the step"
    )
    assert abs(float(first.curl) - curl_by_differences(critic, 0.3 * states)) > 1e-4, "the control: at other states"


def test_the_last_record_has_the_curl_that_another_step_would_have():
    lq = world()
    whole, longer = (trainer(lq, fields=[network(lq)], more={"steps": steps}) for steps in (3, 4))
    last = list(whole.run())[-1]
    following = [longer.step() for _ in range(4)][-1]
    assert float(last.curl) == float(following.curl)
    assert float(trainer(lq, more={"steps": 1}).step().curl) == 0, "a network starts at zero"


def test_the_gradient_of_a_value_has_no_curl_and_a_rotation_the_largest():
    """For small states tanh is the identity, so that the derivatives are `1e-3 W_3`, symmetric or antisymmetric."""
    made, states = NetworkField(3, 4, 3, 0), 1e-4 * draws(5, 4, 3, seed=1)
    with torch.no_grad():
        made.W_1.copy_(torch.cat([1e-3 * torch.eye(3).double(), torch.zeros(3, 1).double()], 1))
        made.W_2.copy_(torch.eye(3))
        made.W_3.copy_(torch.tensor([[0.0, -1.0, 0.5], [1.0, 0.0, 2.0], [-0.5, -2.0, 0.0]]))
    skew, symmetric = Copies.of([made]), Copies.of([made])
    with torch.no_grad():
        symmetric.network.W_3.copy_(made.W_3.abs())
    assert float(curl_of(skew, 1, lambda i: states)) == pytest.approx(2, rel=1e-6)
    assert float(curl_of(symmetric, 1, lambda i: states)) < 1e-6
    value = LinearField(3, 4)
    with torch.no_grad():
        value.X.copy_(made.W_3)
    assert float(curl_of(Copies.of([value]), 1, lambda i: states)) == pytest.approx(2), (
        "linear fields: the same measure"
    )


def test_several_copies_are_each_as_if_alone_and_a_stopped_run_goes_on():
    lq, more = world(), {"steps": 4}
    gains = [0.1 * draws(2, 3, seed=s) for s in (0, 1)]
    both = trainer(lq, (3, 4), policies=[LinearPolicy(K) for K in gains], more=more)
    starts = both.critic.parameters[0].detach()
    assert not torch.allclose(starts[0], starts[1]), "each has a start of its own"
    together = list(both.run())
    assert both.critic.batched
    for i, (seed, K) in enumerate(zip((3, 4), gains, strict=True)):
        alone, after = (trainer(lq, (seed,), policies=[LinearPolicy(K)], more=more) for _ in range(2))
        alone.step()
        alone.step()
        state = alone.state()
        rest = list(alone.run())
        after.restore(state)
        again = list(after.run())
        assert all(torch.equal(a, b) for a, b in zip(after.critic.parameters, alone.critic.parameters, strict=True))
        assert [float(r.curl) for r in rest] == [float(r.curl) for r in again]
        for own, shared in zip(alone.critic.parameters, both.critic.parameters, strict=True):
            close(own.detach(), shared[i].detach(), rtol=1e-8, atol=1e-10)
        close(together[-1].curl[i], rest[-1].curl[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"critic": "quadratic"}, "critic"),
        ({"width": 0}, "width"),
        ({"width": -3}, "width"),
        ({"width": float("nan")}, "option width"),
        ({"width": True}, "option width"),
        ({"critic": "linear", "width": 8}, "width"),
    ],
)
def test_refusals(options, argument):
    with refused(argument):
        build_learner("vgl", **(NETWORK | options))


def test_critics_of_another_kind_or_size_and_too_many_rows_are_refused():
    lq = world()
    n, times = lq.n, lq.horizon + 1
    for wrong in (
        LinearField(n, times),
        *(NetworkField(*sizes, 0) for sizes in ((n, 4, 5), (2, times, 5), (n, times, 6))),
    ):
        with refused("critics"):
            trainer(lq, fields=[wrong])
    with refused("critics"):
        trainer(lq, fields=[fresh(lq)], critic="linear", width=32)
    with refused("width=5"):
        trainer(lq, more={"prompts": 2 * 10**5, "group": 100})
