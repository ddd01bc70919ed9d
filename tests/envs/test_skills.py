"""The world of skills: every answer by a rule written by hand, every return by brute force over all words."""

import itertools
import re

import gymnasium
import pytest
import torch

import envs  # noqa: F401  (registers the ids)
from envs.skills import SKILLS, skills
from envs.world import InputError
from tests.envs.refusals import refused

ALL = ("say", "copy", "reverse", "add", "multiply", "square")


def right_word(name, a, b, modulus, horizon):
    """The answer by counting, one token after the other; no formula of the suite."""
    product = sum(a for _ in range(b))
    said, total = [], a
    for k in range(horizon):
        total += b
        odd = sum(range(1, 2 * (a + k), 2))  # the first n odd numbers make n squared
        token = {
            "say": k,
            "copy": b if k in (1, 3, 5) else a,
            "reverse": a if k in (1, 3, 5) else b,
            "add": total,
            "multiply": product + k,
            "square": odd + b,
        }[name]
        while token >= modulus:
            token -= modulus
        said.append(token)
    return said


def prompts_by_hand(names, modulus):
    return list(itertools.product(range(len(names)), range(modulus), range(modulus)))


def all_words(world):
    return torch.tensor(list(itertools.product(range(world.V), repeat=world.horizon)))


def all_returns(world):
    """Return of every word after every prompt, (prompts, words), walking the tables."""
    words, after = all_words(world), world.P.argmax(-1)
    z, total = world.starts[:, None].expand(-1, len(words)), 0.0
    for k in range(world.horizon):
        total = total + world.gamma**k * world.r[k, z, words[:, k]]
        z = after[z, words[:, k]]
    return total


CASES = {
    "all": ({"modulus": 3, "horizon": 3, "names": ALL}, ALL),
    "all, short": ({"modulus": 4, "horizon": 1, "names": ",".join(ALL)}, ALL),
    "the default": ({}, ("say", "copy", "add")),
    "spaces": ({"modulus": 3, "names": " square , reverse"}, ("square", "reverse")),
    "one": ({"modulus": 2, "horizon": 5, "names": "multiply"}, ("multiply",)),
    "one number": ({"modulus": 1, "names": ["reverse"]}, ("reverse",)),
    "large": ({"modulus": 7, "horizon": 2, "names": ["square", "multiply"]}, ("square", "multiply")),
}
EACH = pytest.mark.parametrize(("given", "names"), CASES.values(), ids=CASES)


@EACH
@pytest.mark.parametrize(("sparse", "gamma"), [(True, 1.0), (True, 0.8), (False, 1.0), (False, 0.7)])
def test_every_word_is_paid_by_the_rule_and_only_the_right_one_best(given, names, sparse, gamma):
    world = skills(**given, sparse=sparse, gamma=gamma)
    modulus, H = given.get("modulus", 4), given.get("horizon", 2)
    asked = prompts_by_hand(names, modulus)
    answers = torch.tensor([right_word(names[i], a, b, modulus, H) for i, a, b in asked])
    hits = (all_words(world)[None] == answers[:, None]).double()
    discount = gamma ** torch.arange(H, dtype=torch.float64)
    truth = gamma ** (H - 1) * hits.prod(-1) if sparse else hits @ discount / H
    returns = all_returns(world)
    torch.testing.assert_close(returns, truth, rtol=1e-12, atol=1e-14)
    best = gamma ** (H - 1) if sparse else float(discount.sum()) / H
    assert world.optimal_return == pytest.approx(best, rel=1e-12)
    assert ((returns > best - 1e-9).sum(-1) == 1).all()
    assert world.deterministic


@EACH
def test_sizes_and_prompts_are_those_of_the_names_given(given, names):
    world = skills(**given)
    modulus = given.get("modulus", 4)
    assert (world.V, world.horizon) == (modulus + len(names), given.get("horizon", 2))
    wanted = [[modulus + i, a, b] for i, a, b in prompts_by_hand(names, modulus)]
    assert world.prompts.tolist() == wanted
    assert world.weights.tolist() == pytest.approx([1 / len(wanted)] * len(wanted))


def test_the_rules_by_hand_are_of_all_skills_and_tell_them_apart():
    """The control: at these sizes no skill could pass for another."""
    assert set(SKILLS) == set(ALL)
    tables = [[right_word(name, a, b, 3, 3) for a in range(3) for b in range(3)] for name in ALL]
    assert all(one != other for one, other in itertools.combinations(tables, 2))


def test_a_string_and_a_sequence_of_names_make_one_world():
    one, other = skills(3, 2, "add,say"), skills(3, 2, ["add", "say"])
    for name in ("P", "r", "prompts", "starts"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    turned = skills(3, 2, ("say", "add"))
    assert torch.equal(turned.prompts, one.prompts)
    assert not torch.equal(turned.P, one.P)


@pytest.mark.usefixtures("uses_global_rng")
def test_the_registered_world_pays_the_right_answer():
    env = gymnasium.make("costate/TokenSkills-v0", modulus=5, horizon=3, names="square,add").unwrapped
    assert torch.equal(env.world.P, skills(5, 3, "square,add").P)
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        skill, a, b = observation[:3].tolist()
        word = right_word(("square", "add")[skill - 5], a, b, 5, 3)
        assert sum(env.step(token)[1] for token in word) == 1
    assert gymnasium.make("costate/TokenSkills-v0").unwrapped.world.V == 7


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("modulus", {"modulus": 0}),
        ("modulus", {"modulus": -3}),
        ("horizon", {"horizon": 0}),
        ("horizon", {"horizon": -1}),
        ("skill", {"names": "say,ad"}),
        ("skill", {"names": ""}),
        ("skill", {"names": "say,"}),
        ("names", {"names": []}),
        ("names", {"names": "add,say,add"}),
        ("names", {"names": ("say", "say")}),
        ("gamma", {"gamma": 0.0}),
    ],
)
def test_worlds_that_make_no_sense_are_refused(argument, given):
    with refused(argument):
        skills(**given)


def test_a_skill_that_does_not_exist_is_told_the_nearest():
    for names, told in (
        ("say,revers", "'revers' is unknown; did you mean reverse?"),
        ("xyz", "did you mean say or copy or"),
    ):
        with pytest.raises(InputError, match=re.escape(told)):
            skills(names=names)
