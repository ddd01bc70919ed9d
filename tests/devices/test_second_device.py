"""On another device every claim, training, pretraining and the impact study give the rows of the CPU.

The device is the emulated one of `tests.devices.emulated`. Where there is CUDA, the same tests run on it: `pytest -m cuda`.
"""

import copy
import math
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from agents.policies.linear import LinearPolicy
from agents.policies.transformer import Transformer
from agents.recipes.learners import Penalty, build_learner
from agents.sampling.rollout import rollout
from agents.training.command_task import CommandTask
from agents.training.pretraining import pretrain
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.corpus import Corpus
from envs.linear_quadratic import scalar
from envs.noise import Noise, draw_noise
from envs.skills import skills
from envs.token_tasks import sum_and_stop
from figures.harness.registry import CLAIMS, measure_of, measuring_module
from figures.impact.settings import settings
from figures.measures.oracles import CommandOracle, TokenOracle
from tests.devices import emulated
from theory.tokens.dynamic_programming import best_words

# the tiny point of a claim that is run, where it is not the first, and what makes it shorter: an emulated device is slow
POINTS = {
    "actor_update_is_value_gradient": (2, {}),
    "attention_transport": (1, {"world": "lock (2,3)"}),
    "batch_split": (0, {"ascended": 1, "lengths": (0.1,)}),
    "entropy_knobs": (0, {"offsets": (0.0, 10 / 6), "worlds": ("one choice", "arithmetic")}),
    "costate_mean": (2, {}),
    "costate_recursion": (2, {}),
    "critic_or_not": (0, {"world": "one choice"}),
    "error_bound": (3, {}),
    "error_map": (0, {"families": ("temperature",), "values": ((1.0, 0.5),)}),
    "error_split": (3, {}),
    "estimator_variance": (5, {}),
    "grpo_arcsine": (1, {"world": "stop (3,3)", "groups": (2,)}),  # its first point, the closed forms, needs no device
    "kl_estimators": (1, {}),
    "large_vocabulary": (0, {"sizes": (8, 10), "policies": ("Zipf",)}),
    "normalisation_breaks": (1, {}),
    "off_policy_steps": (2, {}),
    "relaxed_costates": (1, {}),
    "transformer_in_lq": (1, {}),
    "u_statistic": (1, {}),
    "value_gradient_flow": (1, {}),  # its first point, Gaussian laws of a few numbers, needs no device
}
# singular values and eigenvalues alone are computed in another way for a tensor that is not plainly torch's own: to rounding
TOLERANCE = {"large_vocabulary": 1e-12, "impact_runs": 1e-12}
TINY_STUDY = replace(settings("tiny")[0], seeds=1, horizon=2, updates=4, batch=4, budgets=(1,), rows=4)
STOP, LQ = sum_and_stop(2, 3, gamma=0.9), scalar(horizon=3, gamma=0.9)


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    """The name of a device other than the CPU; the attention kernel is the same on all of them."""
    with sdpa_kernel(SDPBackend.MATH):
        if request.param == "emulated":
            if emulated.missing():
                pytest.skip(emulated.missing())
            with emulated.second_device() as name:
                yield name
        elif torch.cuda.is_available():
            yield "cuda"
        else:
            pytest.skip("there is no CUDA here")


@pytest.fixture
def second():
    """The emulated device."""
    if emulated.missing():
        pytest.skip(emulated.missing())
    with emulated.second_device() as name:
        yield name


def work_done(device):
    """A number that grows with everything that happens on the device."""
    return emulated.operations() if device == "emulated" else torch.cuda.memory_stats()["allocation.all.allocated"]


def on_both(run, device):
    """What `run` gives on the CPU and on the device, which must have been used."""
    expected, before = run("cpu"), work_done(device)
    result = run(device)
    assert work_done(device) > before, "nothing happened on the device"
    return result, expected


def assert_same_rows(rows, expected, device, tolerance=0.0):
    """The same columns, words and numbers; numbers of CUDA to the rounding that a claim can make of rounding."""
    near = {"rel_tol": tolerance} if device == "emulated" else {"rel_tol": 1e-6, "abs_tol": 1e-8}
    assert [row.keys() for row in rows] == [row.keys() for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        for name, value in wanted.items():
            both_nan = isinstance(value, float) and math.isnan(value) and math.isnan(row[name])
            close = isinstance(value, float) and math.isclose(row[name], value, **near)
            assert close or both_nan or row[name] == value, (name, row[name], value)


def assert_same(result, expected, device):
    """Tensors that do not lie on one device."""
    near = {"rtol": 0.0, "atol": 0.0} if device == "emulated" else {"rtol": 1e-6, "atol": 1e-8}
    torch.testing.assert_close([x.cpu() for x in result], [x.cpu() for x in expected], equal_nan=True, **near)


# -- claims, training, pretraining, impact


def point(name, index=None):
    """The tiny point of a claim that is run, or another one."""
    own, changes = POINTS.get(name, (0, {}))
    return replace(measuring_module(name).CLAIM.settings("tiny")[own if index is None else index], **changes)


def rows_of(name, setting, device):
    """Rows of one point."""
    return measure_of(name)(setting, torch.Generator().manual_seed(7), device)


@pytest.fixture
def shortened(monkeypatch):
    """The claims whose tiny point is long, with less in it of what repeats."""
    batch_split = measuring_module("batch_split")
    learners, token_mean = batch_split.learners(), batch_split.expected_token_mean
    once = lru_cache(lambda world, policy, learner, group: token_mean(world, policy, learner, group, 2))
    monkeypatch.setattr(
        batch_split, "learners", lambda: {name: learners[name] for name in ("row sum", batch_split._MEAN)}
    )
    equal_parts = batch_split.equal_parts
    for module in (batch_split, batch_split.cutting):
        monkeypatch.setattr(module, "equal_parts", lambda batch, count: equal_parts(batch, 2))
    monkeypatch.setattr(batch_split, "expected_token_mean", lambda *arguments: once(*arguments[:4]))


@pytest.mark.parametrize("name", [name for part, names in CLAIMS.items() if part != "impact" for name in names])
@pytest.mark.usefixtures("shortened")
def test_a_point_of_every_claim_is_the_cpus(name, device):
    rows, expected = on_both(lambda where: rows_of(name, point(name), where), device)
    assert_same_rows(rows, expected, device, TOLERANCE.get(name, 0.0))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("actor_update_is_value_gradient", 3),
        ("assumption_removed", 2),
        ("assumption_removed", 4),
        ("gae_meets_vgl", 4),
        ("gae_meets_vgl", 7),
        ("surrogate_hessian", 2),
        ("surrogate_hessian", 3),
    ],
)
def test_points_of_another_kind_are_the_cpus(name, index, device):
    rows, expected = on_both(lambda where: rows_of(name, point(name, index), where), device)
    assert_same_rows(rows, expected, device)


def test_the_impact_study_is_the_cpus(device):
    rows, expected = on_both(lambda where: rows_of("impact_runs", TINY_STUDY, where), device)
    assert {row["kind"] for row in rows} == {"checkpoint", "gain"}
    assert_same_rows(rows, expected, device, TOLERANCE["impact_runs"])


def network(seed, outputs=3, inputs=None, width=4):
    return Transformer(outputs, inputs, width, layers=1, heads=1, length=8, seed=seed)


def logits(policy):
    """What a policy over tokens says; its parameters may differ: Adam moves by rounding alone what changes nothing."""
    tokens = torch.tensor([[0, 1, 2, 1]], device=policy.embedding.weight.device)
    return policy(policy.embed(tokens)).detach()


def trained(kind, learner, seeds, device):
    """All numbers of two steps of training, and what the policies say after them."""
    task, oracle = (TokenTask(STOP), TokenOracle(STOP)) if kind == "tokens" else (CommandTask(LQ), CommandOracle(LQ))
    policies = [network(i) if kind == "tokens" else LinearPolicy([[0.1 * i]]) for i in seeds]
    critics = [network(50 + i, 1, 3 if kind == "tokens" else 1) for i in seeds]
    setting = TrainingSettings(steps=2, prompts=2, group=4, minibatches=2, rate=0.05, critic_epochs=1, max_norm=1.0)
    policies, critics = ([x.to(device) for x in networks] for networks in (policies, critics))
    trainer = Trainer(task, LEARNERS[learner], policies, seeds, setting, oracle, critics)
    numbers = [x for record in trainer.run() for x in vars(record).values() if isinstance(x, torch.Tensor)]
    return numbers + [logits(policy) if kind == "tokens" else policy.K.detach() for policy in trainer.policies]


LEARNERS = {
    "learned critic": build_learner("ppo", kl_loss=Penalty("k3", 0.5)),
    "exact critic": build_learner("ppo", critic="exact", lam=1.0),
    "GRPO": build_learner("grpo", kl_reward=Penalty("k1", 0.3)),
    "exact gradient": build_learner("value_gradient"),
}


@pytest.mark.parametrize(
    ("kind", "learner", "seeds"),
    [
        ("tokens", "learned critic", (0, 1)),
        ("tokens", "exact critic", (0, 1)),
        ("tokens", "GRPO", (0,)),
        ("tokens", "exact gradient", (0, 1)),
        ("commands", "learned critic", (0,)),
        ("commands", "exact critic", (0, 1)),
        ("commands", "exact gradient", (0,)),
    ],
)
def test_training_is_the_cpus(kind, learner, seeds, device):
    result, expected = on_both(lambda where: trained(kind, learner, seeds, where), device)
    assert_same(result, expected, device)


def test_pretraining_is_the_cpus(device):
    world = skills(2, 2, "copy,add")
    corpus = Corpus(world, best_words(world), quality=0.5)

    def run(where):
        networks = [network(seed, world.V).to(where) for seed in (0, 1)]
        noise = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
        path = list(pretrain(networks, corpus, (0, 1, 3), noise, batch=4))
        return [x for checkpoint in path for x in (checkpoint.loss, *map(logits, checkpoint.networks))]

    result, expected = on_both(run, device)
    assert_same(result, expected, device)


# -- the controls: what would be seen


def test_a_forgotten_move_is_seen(second, monkeypatch):
    monkeypatch.setattr(Noise, "to", lambda self, device: self)
    with pytest.raises(RuntimeError, match="two devices"):
        rows_of("costate_mean", point("costate_mean"), second)


def test_a_device_that_is_ignored_is_seen(second):
    with pytest.raises(AssertionError, match="nothing happened"):
        on_both(lambda where: rollout(LQ, LinearPolicy([[0.1]]), draw_noise(LQ, 2, 3, torch.Generator())), second)


def test_a_number_that_differs_is_seen(second):
    row = {"part": "a", "measured": 1.0, "cosine": math.nan}
    assert_same_rows([dict(row)], [row], second)
    for other in ({"measured": math.nextafter(1.0, 2.0)}, {"part": "b"}, {"cosine": 0.0}):
        with pytest.raises(AssertionError):
            assert_same_rows([row | other], [row], second)


# -- the emulated device


HERE = torch.ones(2)
MIXED = {
    "sum": lambda x: x + HERE,
    "product": lambda x: torch.eye(2) @ x,
    "joined": lambda x: torch.cat([x, HERE]),
    "stacked numbers": lambda x: torch.stack([x[0], torch.tensor(1.0)]),
    "chosen": lambda x: torch.where(HERE > 0, x, 0.0),
    "index": lambda x: x[torch.tensor([0])],
    "indexed": lambda x: HERE[x.long()],
    "a number of the device": lambda x: HERE + x[0],
    "written here": lambda x: torch.tensor(1.0).add_(x[0]),
    "written there": lambda x: x.add_(HERE),
    "two batches": lambda x: vmap(torch.dot, (None, 0))(x, torch.eye(2)),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_two_devices_do_not_meet(name, second):
    with pytest.raises(RuntimeError, match="device"):
        MIXED[name](torch.ones(2, device=second))


def test_noise_is_drawn_on_the_generators_device(second):
    rng, p = torch.Generator(), torch.ones(2, device=second)
    for draw in (lambda: torch.rand(2, generator=rng, device=second), lambda: p.multinomial(1, generator=rng)):
        with pytest.raises(RuntimeError, match="another device"):
            draw()


def test_numpy_does_not_see_the_device(second):
    with pytest.raises((RuntimeError, TypeError)):
        torch.ones(2, device=second).numpy()
    assert torch.ones(2, device=second).cpu().numpy().tolist() == torch.ones(2, device=second).tolist() == [1.0, 1.0]


def made(device):
    """Tensors made there, and moved there and back."""
    like, whole = {"device": device, "dtype": torch.float64}, {"device": device}
    x = torch.arange(6, **like).reshape(2, 3)
    into = torch.zeros(2, 3, **like)
    into.copy_(torch.ones(3))
    yield from (x, into, x.to("cpu").to(device), x.float(), x.to(torch.int32), x > 2, torch.tensor([[1, 2]], **whole))
    yield from (
        torch.zeros(2, **whole),
        torch.full((2,), 3, **whole),
        torch.eye(2, **like),
        torch.linspace(0, 1, 5, **like),
    )
    yield from (
        torch.as_tensor(x.cpu().numpy(), **like),
        x.new_tensor([1, 2]),
        torch.zeros_like(x),
        x.new_full((2,), 0.5),
    )


def changed(device):
    """Indexing, views, and writing through them."""
    x = torch.arange(6, device=device, dtype=torch.float64).reshape(2, 3)
    yield from (
        x[0, 1:],
        x[:, [0, 2]],
        x[[True, False]],
        x[x > 2],
        x[torch.tensor([1, 0], device=device)],
        x[..., None],
    )
    y = x.clone()
    y[0] = y[1]
    y[:, [0, 1]] = 7.0
    y[y > 6] -= 1
    y[:, 2].mul_(2).add_(1)
    yield from (y, y.clone().unsqueeze_(0).squeeze(0).t_() + 1)
    rows = torch.zeros(2, 3, device=device, dtype=torch.float64)
    rows.scatter_(1, torch.tensor([[2], [0]], device=device), 1.0).index_add_(
        0, torch.tensor([1], device=device), x[:1]
    )
    yield from (rows, torch.nn.functional.one_hot(x.long(), 6), torch.unique(x.long() % 2), (x > 2).nonzero())
    with torch.inference_mode():
        constants = (x[:1].detach() + 1, torch.zeros_like(x)[0])
    yield from constants


def differentiated(device):
    """Backward, forward and batched derivatives, and two steps of an optimiser."""
    x = torch.linspace(-1, 1, 6, device=device, dtype=torch.float64).reshape(2, 3)
    block = network(0, width=3).blocks[0].to(device)
    tangent, mlp = torch.ones_like(x), nn.Sequential(block.norm1, block.mlp)
    f = lambda values, x: functional_call(mlp, values, (x,)).square().sum()  # noqa: E731
    values = {name: p.detach() for name, p in mlp.named_parameters()}
    copies = {name: torch.stack([p, 2 * p]) for name, p in values.items()}
    yield from grad(f)(values, x).values()
    yield from vmap(grad(f), (0, None))(copies, x).values()
    yield from jvp(lambda x: torch.softmax(mlp(x) / 2, -1), (x,), (tangent,))
    yield vmap(lambda v: jvp(lambda x: (mlp(x) + 1) / 2, (x,), (v,))[1])(torch.stack([tangent, x]))
    optimiser = torch.optim.Adam(mlp.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        f(dict(mlp.named_parameters()), x.requires_grad_()).backward()
        optimiser.step()
    yield from (x.grad, *(p.detach() for p in copy.deepcopy(mlp).parameters()))
    nn.utils.vector_to_parameters(0.5 * nn.utils.parameters_to_vector(mlp.parameters()), mlp.parameters())
    yield mlp(x.detach()).detach()


@pytest.mark.parametrize("run", [made, changed, differentiated])
def test_its_numbers_are_the_cpus(run, second):
    result, expected = list(run(second)), list(run("cpu"))
    assert all(x.device.type == second for x in result)
    assert [x.dtype for x in result] == [x.dtype for x in expected]
    assert_same(result, expected, second)
