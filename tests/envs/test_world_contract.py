"""Every registered world with additive noise keeps the contract of `World`: one function for both libraries, any batch."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import load_env_creator

import envs  # noqa: F401  (registers the ids)
from envs.world import World
from tests.oracles import assert_mean_within

BUILDERS = {
    name: load_env_creator(spec.kwargs["make_world"])
    for name, spec in gymnasium.registry.items()
    if name.startswith("costate/") and spec.entry_point == "envs.gym_env:WorldEnv"
}
every_world = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
either_batch = pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 0), (2, 3)])


def inputs(world, batch, seed=0):
    """Arguments of each function of a world, named as in the contract."""
    rng = np.random.default_rng(seed)
    s, u, xi, w = (rng.standard_normal((*batch, k)) for k in (world.n, world.m, world.m, world.n))
    return {"initial": (w,), "act": (s, u, xi), "reward": (s, u), "transition": (s, u, w), "terminal_reward": (s,)}


def torch_of(arrays):
    return [torch.from_numpy(x).requires_grad_() for x in arrays]


def test_published_ids_stay_registered():
    linear = (
        "Scalar",
        "DoubleIntegrator",
        "Random",
        "UniformNoise",
        "StepReward",
        "QuantisedAction",
        "StateScaledNoise",
    )
    assert set(BUILDERS) >= {"costate/ChaoticMap-v0", *(f"costate/LQ{name}-v0" for name in linear)}


@every_world
def test_it_is_a_world_in_either_library(build):
    assert isinstance(build(), World)
    assert isinstance(build().to(), World)
    assert isinstance(build().numpy(), World)
    assert not isinstance(object(), World)


@every_world
@either_batch
def test_numpy_and_torch_give_the_same_numbers(build, batch):
    world = build()
    for name, arrays in inputs(world, batch).items():
        ours = getattr(world.numpy(), name)(*arrays)
        theirs = getattr(world.to(), name)(*torch_of(arrays))
        assert isinstance(ours, np.ndarray)
        assert isinstance(theirs, torch.Tensor)
        sizes = {"act": (world.m,), "initial": (world.n,), "transition": (world.n,)}
        assert ours.shape == theirs.shape == (*batch, *sizes.get(name, ()))
        np.testing.assert_allclose(ours, theirs.detach(), rtol=1e-12, atol=1e-14)


@every_world
def test_every_member_of_a_batch_lives_for_itself(build):
    world = build().numpy()
    for name, arrays in inputs(world, (2, 3)).items():
        together = getattr(world, name)(*arrays)
        for index in np.ndindex(2, 3):
            alone = getattr(world, name)(*(x[index] for x in arrays))
            np.testing.assert_allclose(together[index], alone, rtol=1e-12, atol=1e-14)


@every_world
def test_derivatives_of_every_function_are_central_differences(build):
    world = build().to()
    for name, arrays in inputs(world, (3,), seed=1).items():
        assert torch.autograd.gradcheck(getattr(world, name), tuple(torch_of(arrays)))


@every_world
def test_process_noise_is_added_to_the_next_state(build):
    world = build().numpy()
    s, u, w = inputs(world, (5,))["transition"]
    np.testing.assert_allclose(world.transition(s, u, w) - world.transition(s, u, 0 * w), w, atol=1e-14)


@every_world
def test_action_noise_is_centred_on_the_command_or_its_nearest_level(build, rng):
    world = build().to()
    quantum = getattr(world, "quantum", 0.0)
    xi = torch.randn((20_000, world.m), generator=rng, dtype=torch.float64)
    s, u = torch.ones(20_000, world.n, dtype=torch.float64), torch.full((20_000, world.m), 2 * quantum).double()
    assert_mean_within(world.act(s, u, xi), u[0])


@every_world
def test_single_precision_stays_single(build):
    world = build().to(dtype=torch.float32)
    for name, arrays in inputs(world, (2,)).items():
        assert getattr(world, name)(*(torch.from_numpy(x).float() for x in arrays)).dtype == torch.float32
