import json
import math

import pytest
import torch

from envs.world import InputError
from figures.measures.linear_systems import (
    MEMORYLESS,
    build_system,
    memoryless_system,
    read_system,
)
from theory.continuous.riccati import riccati

OWN = {"A": [[0.9]], "B": [[1.0]], "Q": [[1.0]], "R": [[0.5]], "K": [[0.3]], "gamma": 0.9, "S_x": [[0.1]]}


def written(tmp_path, **changes):
    path = tmp_path / "own.json"
    path.write_text(json.dumps({**OWN, **changes}))
    return path


def test_an_own_system_is_read_as_it_stands(tmp_path):
    world, K, _ = build_system(read_system(written(tmp_path)))
    assert (float(world.A), float(K), world.gamma, world.horizon) == (0.9, 0.3, 0.9, None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"A": [[0.9, 1.0]]}, "A must"),
        ({"Q": [[-1.0]]}, "Q must be positive semidefinite"),
        ({"R": [[math.nan]]}, "it holds NaN"),
        ({"gamma": 1.2}, "gamma"),
        ({"horizon": 0}, "horizon"),
        ({"K": [[-0.5]]}, "spectral radius"),
        ({"K": [[0.3, 0.1]]}, "K must have shape"),
        ({"noise": "cauchy"}, "noise"),
        ({"colour": 1}, "field 'colour' is unknown"),
        ({"N": [[0.8]]}, "N must leave"),
        ({"N": [0.1]}, "N must have shape"),
        ({"q": [[0.1]]}, "q must describe one system"),
        ({"q": [0.1, 0.2]}, "q must have shape"),
        ({"q_a": "much"}, "q_a must be"),
        ({"k": [0.1, 0.2]}, "k must have shape"),
        ({"K": None, "k": [0.1]}, "k is the offset"),
        ({"gamma": 1.0, "S_x": [[0.0]], "k": [0.5]}, "k must be zero"),
        ({"gamma": 0.99999, "K": [[-0.09999]]}, "steps"),
    ],
)
def test_a_faulty_own_system_is_refused_in_one_line_that_names_the_fault(tmp_path, changes, named):
    with pytest.raises(InputError, match=named) as caught:
        read_system(written(tmp_path, **changes))
    assert "\n" not in str(caught.value)


PRICED = {**OWN, "N": [[0.3]], "q": [0.4], "q_a": [-0.2], "q_f": [0.7], "horizon": 6}


def test_every_cost_and_an_offset_are_read(tmp_path):
    world, K, k = build_system(read_system(written(tmp_path, **PRICED, k=[0.6])))
    assert [float(getattr(world, name)) for name in ("N", "q", "q_a", "q_f")] == [0.3, 0.4, -0.2, 0.7]
    assert (float(K), float(k)) == (0.3, 0.6)
    assert (
        build_system(read_system(written(tmp_path, **PRICED)))[2] is None
    )  # one's own K has no offset unless it is given
    text = read_system(written(tmp_path, **{**PRICED, "K": None}))
    for gain in (0.7, 1.0):
        world, K, k = build_system(text, gain)
        best = riccati(world)
        torch.testing.assert_close(K, gain * best.K)
        torch.testing.assert_close(k, gain * best.k)
    assert build_system(json.dumps(OWN), 1.0)[2] is None


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_system(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_system(tmp_path / "x.json")


@pytest.mark.parametrize("name", [*MEMORYLESS, json.dumps(OWN), json.dumps({**PRICED, "k": [0.6]})])
def test_both_forms_of_a_memoryless_policy_give_the_same_commands(name, rng):
    system = memoryless_system(name)
    states = torch.randn(5, 3, system.world.n, generator=rng, dtype=torch.float64)
    for t in (0, system.world.horizon - 1):
        command = system.policy(states, t).detach()
        torch.testing.assert_close(system.command(states[:, -1], t).expand_as(command), command)
        torch.testing.assert_close(system.command(states[0, -1], t), command[0])


def test_a_named_system_stands_at_its_share_of_the_optimal_gain():
    _, K, _ = build_system("double_integrator", 0.7)
    _, optimal, _ = build_system("double_integrator", 1.0)
    torch.testing.assert_close(K, 0.7 * optimal)
