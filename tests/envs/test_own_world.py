"""A user's own world by a file: everywhere the same world as built by hand, and one line where there is none."""

import json
import textwrap

import gymnasium
import numpy as np
import pytest
import torch

import envs  # noqa: F401  (registers the ids)
from envs.gym_env import WorldEnv, WorldVectorEnv
from envs.linear_quadratic import LinearQuadratic, random_system
from envs.lq_variants import step_reward
from envs.own_world import fingerprint, load_marked, load_own_world, marked, system_of, system_text
from envs.registry import make_world
from envs.token_env import TokenEnv
from envs.token_tasks import garnet, parity
from tests.envs.refusals import refused
from tests.typecheck import unchecked

CODE = """
    import numpy as np
    import torch
    from envs.linear_quadratic import random_system
    from envs.token_tasks import garnet

    def tokens(V=3, seed=1):
        return garnet(V=V, states=3, horizon=2, seed=seed)

    def system(horizon=4):
        return random_system(2, 1, seed=5, horizon=horizon)

    def another_each_time():
        return garnet(seed=int(torch.randint(10**6, ())) if torch.initial_seed() else 0)

    def nothing():
        return None

    def stops():
        raise SystemExit(0)
"""
SYSTEM = {
    "A": [[0.9, 0.5], [0.0, 0.8]],
    "B": [[0.0], [1.0]],
    "Q": [[1.0, 0], [0, 1]],
    "R": [[0.5]],
    "S_x": [[0.2]],
    "horizon": 3,
    "q": [0.1, 0],
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a user's files, which is the current one."""
    (tmp_path / "own.py").write_text(textwrap.dedent(CODE))
    (tmp_path / "own.json").write_text(json.dumps(SYSTEM))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_function_builds_the_world_with_its_options(own):
    assert fingerprint(make_world("own.py:tokens", V=2)) == fingerprint(garnet(V=2, states=3, horizon=2, seed=1))
    assert fingerprint(make_world("own.py:system")) == fingerprint(random_system(2, 1, seed=5, horizon=4))
    assert fingerprint(make_world(f"{own}/own.py:system", horizon=2)) == fingerprint(
        random_system(2, 1, seed=5, horizon=2)
    )


def test_a_json_file_is_a_linear_quadratic_system(own):
    assert fingerprint(make_world("own.json")) == fingerprint(LinearQuadratic(**SYSTEM).to())
    (own / "with_gain.json").write_text(json.dumps({**SYSTEM, "K": [[0.1, 0.2]]}))
    assert fingerprint(make_world("with_gain.json")) == fingerprint(LinearQuadratic(**SYSTEM).to())


def test_a_system_comes_back_from_its_own_text():
    world = random_system(3, 2, seed=1, horizon=5, gamma=0.9, noise="laplace")
    again = system_of(json.loads(system_text(world)))
    assert fingerprint(again) == fingerprint(world.to())
    with refused("world"):
        system_text(step_reward())


@pytest.mark.parametrize("change", [{"seed": 2}, {"gamma": 0.5}, {"horizon": 3}, {"branching": 1}])
def test_a_fingerprint_tells_worlds_apart(change):
    given = {"V": 3, "states": 3, "horizon": 2, "seed": 1}
    assert fingerprint(garnet(**given)) == fingerprint(garnet(**given))
    assert fingerprint(garnet(**given)) != fingerprint(garnet(**{**given, **change}))


def test_a_marked_name_holds_until_the_file_changes(own):
    name = marked("own.py:tokens")
    assert name.startswith("own.py:tokens#")
    assert fingerprint(load_marked(name)) == name[-8:]
    (own / "own.py").write_text((own / "own.py").read_text().replace("seed=1", "seed=2"))
    with refused("world"):
        load_marked(name)


@pytest.mark.parametrize(
    "spec",
    ["own.py:nothing", "own.py:stops", "own.py:absent", "absent.py:build", "absent.json", "no.module:f", "own.py:"],
)
def test_what_is_no_world_is_refused_in_one_line(own, spec):
    with refused("world"):
        make_world(spec)


def test_options_that_do_not_fit_are_refused(own):
    for spec, options in [("own.py:tokens", {"size": 3}), ("own.json", {"horizon": 3})]:
        with refused("world"):
            load_own_world(spec, **options)


@pytest.mark.parametrize("given", ["own.py:tokens", "TokenParity", parity()])
def test_gymnasium_makes_token_worlds(own, given):
    env = gymnasium.make("costate/World-v0", world=given, clock=True)
    built = make_world(given) if isinstance(given, str) else given
    assert isinstance(env.unwrapped, TokenEnv)
    assert fingerprint(env.unwrapped.world) == fingerprint(built)
    assert env.observation_space.shape == (built.prompts.shape[1] + built.horizon + 1,)


def test_gymnasium_makes_systems_single_and_many_with_one_law(own):
    one = gymnasium.make("costate/World-v0", world="own.json").unwrapped
    many = gymnasium.make_vec("costate/World-v0", 2, world="own.json").unwrapped
    direct, vector = WorldEnv(make_world("own.json")), WorldVectorEnv(make_world("own.json"), 2)
    starts = [env.reset(seed=3)[0] for env in (one, direct)]
    np.testing.assert_array_equal(*starts)
    np.testing.assert_array_equal(many.reset(seed=3)[0], vector.reset(seed=3)[0])
    assert one.step(np.array([0.3]))[1] == direct.step(np.array([0.3]))[1]
    assert gymnasium.make("costate/World-v0", world="own.py:system", horizon=2).unwrapped.world.horizon == 2


@unchecked()
def test_a_world_that_does_not_fit_the_shell_or_is_built_already_is_refused(own):
    with refused("world"):
        WorldEnv(parity())
    with refused("world"):
        TokenEnv(make_world("own.json"))
    with refused("world"):
        WorldEnv(make_world("own.json"), horizon=3)
    with refused("world"):
        gymnasium.make("costate/World-v0", world=3)


def test_tables_on_another_precision_are_the_same_bytes_only_if_they_are_equal():
    world = garnet(V=2, states=2, horizon=2)
    assert fingerprint(world.to(dtype=torch.float32)) != fingerprint(world)
