"""VGL(lambda) as a learner: its mean at a fixed critic, the critic's step, where it ends, the curl, going on, refusals."""

import pytest
import torch

from agents.policies.linear import LinearPolicy
from agents.policies.linear_field import LinearField
from agents.policies.transformer import Transformer
from agents.recipes.learners import Penalty, build_learner
from agents.sampling.rollout import rollout
from agents.sampling.value_gradient_targets import vgl_targets
from agents.training.command_task import CommandTask
from agents.training.copies import Copies
from agents.training.noise import noise_of
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from agents.training.value_gradient_step import field_rows
from envs.linear_quadratic import random_system
from envs.lq_variants import ChaoticMap
from envs.noise import draw_noise
from envs.token_tasks import sum_and_stop
from figures.measures.oracles import CommandOracle
from tests.agents.cases import draws, world
from tests.envs.refusals import refused
from tests.oracles import assert_mean_within, differs_by
from tests.theory.cases import affine_policies, priced, stable_gain
from theory.continuous.costates import path_derivatives
from theory.continuous.lambda_gradient import lambda_gradient
from theory.continuous.lq_gradients import policy_gradient
from theory.continuous.lyapunov import QuadraticValue

close = torch.testing.assert_close
SMALL = TrainingSettings(steps=1)


def wrong_critic(lq):
    """A quadratic critic that is wrong at every time, and the field of its slopes."""
    T, n = lq.horizon + 1, lq.n
    P, p = draws(T, n, n, seed=1), draws(T, n, seed=2)
    value, field = QuadraticValue(P + P.mT, p, torch.zeros(T).double()), LinearField(n, T)
    with torch.no_grad():
        field.X.copy_(-2 * value.P)
        field.c.copy_(-2 * value.p)
    return value, field


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["offset", "both change"])
def test_the_mean_of_the_step_at_a_fixed_critic_is_the_exact_one(lam, kind):
    lq = priced(horizon=3, noise="laplace")
    (K, k), (value, field) = affine_policies(lq)[kind], wrong_critic(lq)
    actor, critic, noise = Copies.of([LinearPolicy(K, k)]), Copies.of([field]), [torch.Generator().manual_seed(0)]
    learning, setting = build_learner("vgl", lam=lam).pathwise, TrainingSettings(prompts=60, group=2)
    each = [
        field_rows(CommandTask(lq), learning, actor, critic, setting, noise).gradients[0].detach() for _ in range(60)
    ]
    found = torch.stack(each)
    assert_mean_within(found, lambda_gradient(lq, K, value, lam, k))
    assert differs_by(found, lambda_gradient(lq, K, value, 0.7, k)), "the control: another lambda"
    if lam == 1:
        assert_mean_within(found, policy_gradient(lq, K, k))


def trainer(lq, seeds=(0,), policies=None, fields=None, oracle=True, more=None, **options):
    setting = {"steps": 150, "prompts": 8, "group": 4, "rate": 0.05, "critic_rate": 0.1, "every": 50} | (more or {})
    policies = policies or [LinearPolicy(torch.zeros(lq.m, lq.n)) for _ in seeds]
    fields = fields or [LinearField(lq.n, lq.horizon + 1) for _ in seeds]
    learner, known = build_learner("vgl", **options), CommandOracle(lq) if oracle else None
    return Trainer(CommandTask(lq), learner, policies, list(seeds), TrainingSettings(**setting), known, fields)


@pytest.mark.parametrize("Omega", ["identity", "commands"])
def test_one_step_moves_actor_and_critic_as_by_hand(Omega):
    """Adam's first step is the rate times the sign of the update; targets and slopes are of the critic before it."""
    lq, (_, field) = world(), wrong_critic(world())
    more = {"steps": 1, "critic_epochs": 1, "optimiser": "sgd", "rate": 1e-3}
    K = stable_gain(lq)
    run = trainer(lq, policies=[LinearPolicy(K)], fields=[field], lam=0.3, Omega=Omega, more=more)
    record = run.step()
    drawn, policy = draw_noise(lq, 32, lq.horizon, noise_of("rollouts", 0)), LinearPolicy(K)
    path = rollout(lq, policy, drawn, drawn.s_0[:8].repeat_interleave(4, 0))
    states, actions, G = path.states.detach(), path.actions.detach(), field.along(path.states).detach()
    Dr, Df, terminal = path_derivatives(lq, lambda s, t: -K @ s, states, drawn.xi, drawn.w)
    targets = vgl_targets(Dr, Df, terminal, G, lq.gamma, 0.3)
    weight = lq.B @ lq.B.T if Omega == "commands" else torch.eye(lq.n)
    error = (targets - G) @ torch.as_tensor(weight).double()
    sign = torch.einsum("bti,btj->tij", error, states).sign()
    close(run.critic.network.X.detach() - field.X.detach(), 0.1 * sign, rtol=1e-6, atol=1e-6)
    close(run.critic.network.c.detach() - field.c.detach(), 0.1 * error.mean(0).sign(), rtol=1e-6, atol=1e-6)
    ahead, (B, R) = 0.3 * targets + 0.7 * G, (torch.as_tensor(getattr(lq, x)).double() for x in "BR")
    slopes = -2 * actions @ R + lq.gamma * ahead[:, 1:] @ B
    discount = lq.gamma ** torch.arange(lq.horizon).double()
    gradient = -torch.einsum("t,bti,btj->ij", discount, slopes, states[:, :-1]) / 32
    close(run.policies[0].K.detach() - K, 1e-3 * gradient)
    assert float(record.sampled) == pytest.approx(float(path.returns.detach().mean()))


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_it_ends_at_the_best_constant_gain(lam):
    """Ascent on the exact gradient says where that is; with a critic that learns nothing, lambda 0 does not get there."""
    lq = random_system(2, 1, seed=3, horizon=4, gamma=0.9)
    more = {"steps": 300, "rate": 0.05, "every": 300}
    learner, start = build_learner("value_gradient"), [LinearPolicy(torch.zeros(1, 2))]
    exact = Trainer(CommandTask(lq), learner, start, [0], TrainingSettings(**more), CommandOracle(lq))
    best = float(list(exact.run())[-1].J)
    records = list(trainer(lq, lam=lam, more=more).run())
    first = float(records[0].J)
    assert float(records[-1].J) > best - 0.03 * (best - first)
    if lam == 0:
        idle = list(trainer(lq, lam=0.0, more=more | {"critic_rate": 1e-12}).run())
        assert float(idle[-1].J) < best - 0.2 * (best - first)


def test_the_curl_is_that_of_the_field_before_the_step_and_dies_out():
    """Where the noise of the world visits every direction."""
    lq = random_system(2, 1, seed=3, horizon=4, gamma=0.9).replace(S_w=[[1.0, 0.0], [0.0, 1.0]])
    field = LinearField(2, 5)
    with torch.no_grad():
        field.X += torch.tensor([[1.0, 2.0], [-2.0, 1.0]]).double()
    run = trainer(lq, fields=[field], more={"prompts": 16})
    first = run.step()
    assert float(first.curl) == pytest.approx(32**0.5 / 10**0.5)
    X = run.critic.network.X.detach().clone()
    second, rest = run.step(), list(run.run())
    assert float(second.curl) == pytest.approx(float(((X - X.mT).square().sum() / X.square().sum()).sqrt()))
    assert float(rest[-1].curl) < 0.1 * float(first.curl)
    idle = list(trainer(lq, fields=[field], more={"critic_rate": 1e-12}).run())
    assert float(idle[-1].curl) == pytest.approx(float(first.curl)), "the control: a critic that is not fitted keeps it"
    assert float(trainer(lq).step().curl) == 0
    task, policies = CommandTask(lq), [LinearPolicy(torch.zeros(1, 2))]
    for name, steps in (("svg", 1), ("rloo", 1), ("value_gradient", 1)):
        other = Trainer(task, build_learner(name), policies, [0], TrainingSettings(steps=steps), CommandOracle(lq))
        assert all(record.curl.isnan().all() for record in other.run()), name


def test_several_copies_are_each_as_if_alone_and_a_stopped_run_goes_on():
    lq, more = world(), {"steps": 4, "rate": 0.01}
    gains = [0.1 * draws(2, 3, seed=s) for s in (0, 1)]
    both = trainer(lq, (3, 4), policies=[LinearPolicy(K) for K in gains], more=more)
    together = list(both.run())
    for i, (seed, K, policy) in enumerate(zip((3, 4), gains, both.policies, strict=True)):
        alone, after = (trainer(lq, (seed,), policies=[LinearPolicy(K)], more=more) for _ in range(2))
        alone.step()
        alone.step()
        state = alone.state()
        rest = list(alone.run())
        after.restore(state)
        again = list(after.run())
        assert torch.equal(after.policies[0].K, alone.policies[0].K)
        assert torch.equal(after.critic.network.X, alone.critic.network.X)
        assert [float(r.curl) for r in rest] == [float(r.curl) for r in again]
        close(alone.policies[0].K.detach(), policy.K.detach(), rtol=1e-10, atol=1e-12)
        close(together[-1].curl[i], rest[-1].curl[0], rtol=1e-8, atol=1e-10)
        forgetful = trainer(lq, (seed,), policies=[LinearPolicy(K)], more=more)
        fresh = forgetful.state()
        forgetful.restore(state | {name: fresh[name] for name in ("critic", "critic_optimiser")})
        list(forgetful.run())
        assert not torch.equal(forgetful.policies[0].K, alone.policies[0].K), "the control: the critic's state counts"


def test_no_exact_answers_are_needed_but_a_matrix_for_the_weight_of_commands():
    chaotic = ChaoticMap(horizon=3)
    policies = [LinearPolicy(torch.full((chaotic.m, chaotic.n), 0.1))]
    records = list(trainer(chaotic, oracle=False, policies=policies, more={"steps": 2}).run())
    assert records[0].sampled.isfinite().all()
    assert records[0].J.isnan().all()
    with refused("Omega"):
        trainer(chaotic, oracle=False, policies=policies, Omega="commands")


@pytest.mark.parametrize(
    ("options", "more", "argument"),
    [
        ({"lam": -0.1}, {}, "lam"),
        ({"lam": 1.5}, {}, "lam"),
        ({"lam": float("nan")}, {}, "lam"),
        ({"Omega": "none"}, {}, "Omega"),
        ({"kl_loss": Penalty("k3", 0.1)}, {}, "KL terms"),
        ({"kl_reward": Penalty("k1", 0.1)}, {}, "KL terms"),
        ({"entropy": 0.1}, {}, "KL terms"),
        ({"drop_truncated": True}, {}, "options"),
        ({}, {"epochs": 2}, "epochs"),
        ({}, {"minibatches": 2}, "epochs"),
    ],
)
def test_refusals(options, more, argument):
    with refused(argument):
        trainer(world(), more=more, **options)


def test_critics_of_another_size_policies_with_memory_and_token_worlds_are_refused():
    lq = world()
    for fields in ([LinearField(lq.n, lq.horizon)], [LinearField(lq.n + 1, lq.horizon + 1)], []):
        with refused("critics"):
            Trainer(CommandTask(lq), build_learner("vgl"), [LinearPolicy(stable_gain(lq))], [0], SMALL, None, fields)
    memory = Transformer(lq.m, lq.n, 4, 1, 1, length=lq.horizon, seed=0, dtype=torch.float64)
    with refused("policies"):
        trainer(lq, policies=[memory], oracle=False)
    with refused("learner"):
        policies, fields = [LinearPolicy([[0.0]])], [LinearField(1, 4)]
        Trainer(TokenTask(sum_and_stop(3, 3)), build_learner("vgl"), policies, [0], SMALL, None, fields)
