"""What is read from the source files is what the imported modules hold."""

import ast
import subprocess
import sys

import pytest

from agents.recipes.learners import LEARNERS
from envs.registry import WORLDS
from figures.harness import catalogue
from figures.harness.catalogue import assumption_texts, claim_texts, learner_texts, world_texts
from figures.harness.claim import ASSUMPTIONS
from figures.harness.registry import CLAIMS, load_claims


def test_claims_read_are_the_claims_loaded():
    loaded = load_claims([])
    assert [(c.name, c.statement, tuple(c.assumptions), c.documented, c.study) for c in loaded] == [
        (c.name, c.statement, c.assumptions, c.documented, c.study) for c in claim_texts()
    ]
    assert {c.documented for c in loaded} == {"holds", "fails"}
    assert [c.part for c in claim_texts()] == [part for part, names in CLAIMS.items() for _ in names]
    assert assumption_texts() == ASSUMPTIONS


def test_worlds_read_are_the_worlds_registered():
    assert {name: (text.description, text.options) for name, text in world_texts().items()} == {
        name: (entry.description, entry.options) for name, entry in WORLDS.items()
    }


def test_learners_read_are_the_recipes():
    import inspect

    assert {name: (text.description, text.options) for name, text in learner_texts().items()} == {
        name: (inspect.getdoc(build).split("\n")[0], tuple(inspect.signature(build).parameters))
        for name, build in LEARNERS.items()
    }


@pytest.mark.parametrize(
    ("parts", "documented"),
    [
        ('(Part("a", "claim", "holds"), Part("b", "control", "fails", every="world"))', "holds"),
        ('(*(Part(name, "claim", "fails") for name in NAMES), Part("b", "control", "holds"))', "fails"),
        ('(Part("a", role="claim", documented="fails"),)', "fails"),
    ],
)
def test_a_control_that_must_fail_is_told_from_a_claim_that_does(parts, documented):
    assert catalogue._documented(ast.parse(parts, mode="eval").body) == documented


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from figures.harness.catalogue import claim_texts, world_texts, learner_texts\n"
        "claim_texts(); world_texts(); learner_texts()\n"
        "print({'torch', 'numpy', 'pandas', 'gymnasium', 'envs'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
