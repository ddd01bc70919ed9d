"""agents/README.md: its kappas are those of the exact mean updates, its tables name what the code has."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from agents.policies.transformer import Transformer
from agents.recipes.learners import _COMMON, LEARNERS, build_learner
from envs.token_tasks import parity, sum_and_stop
from figures.commands.run_checkpoint import PER_SEED
from theory.groups.binary_rewards import alignment, grpo_kappa
from theory.groups.expected_update import expected_update
from theory.groups.targets import max_at_k

PAGE = (Path(__file__).resolve().parents[2] / "agents" / "README.md").read_text()
WORLD, G, K = parity(V=2, horizon=3), 4, 2  # binary rewards, one prompt, completions of one length
KAPPAS = {
    "REINFORCE, RLOO": (
        [("reinforce", {}), ("rloo", {}), ("reinforce", {"baseline": True, "to_go": True})],
        lambda P: 1.0,
    ),
    "Dr. GRPO, GRPO without std": (
        [("dr_grpo", {}), ("grpo", {"std": "none", "length": "row sum"})],
        lambda P: (G - 1) / G,
    ),
    "GRPO, population std": ([("grpo", {"length": "row sum"})], lambda P: float(grpo_kappa(P, G))),
    "GRPO, sample std": (
        [("grpo", {"std": "sample", "length": "row sum"})],
        lambda P: ((G - 1) / G) ** 0.5 * float(grpo_kappa(P, G)),
    ),
    "GRPO with 1/": (
        [("grpo", {}), ("gspo", {}), ("dapo", {}), ("cispo", {})],
        lambda P: float(grpo_kappa(P, G)) / WORLD.horizon,
    ),
    "PKPO": ([("pkpo", {"k": K})], lambda P: K * (1 - float(P)) ** (K - 1)),
    "Pass@k training": ([("pass_k_training", {"k": K})], None),
}


def table(head):
    """Cells of the rows of the table whose head begins with this."""
    rows = re.search(rf"^\| {re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)[1]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows.splitlines()]


@pytest.fixture(scope="module")
def policy():
    return Transformer(WORLD.V, None, 8, 1, 1, length=4, seed=3, dtype=torch.float64)


def test_the_rows_of_the_table_of_kappas_are_those_that_are_tested():
    recipes = [recipe for recipe, *_ in table("recipe")]
    assert len(recipes) == len(KAPPAS)
    for recipe, known in zip(recipes, KAPPAS, strict=True):
        assert recipe.startswith(known)


@pytest.mark.parametrize("row", KAPPAS)
def test_a_recipes_kappa_is_the_scale_of_its_exact_mean(row, policy):
    recipes, kappa = KAPPAS[row]
    for name, options in recipes:
        update = expected_update(WORLD, policy, build_learner(name, **options), G)
        cosine, scale, _ = alignment(update.mean, update.truth)
        assert cosine == pytest.approx(1, abs=1e-10), name
        if kappa is not None:
            assert scale == pytest.approx(kappa(update.J), rel=1e-9), name
            others = [other(update.J) for name, (_, other) in KAPPAS.items() if name != row and other is not None]
            assert min(abs(scale - other) for other in others) > 1e-6, "the control: another row's kappa is rejected"


def test_what_the_table_says_of_two_and_three_rows():
    for P in (0.1, 0.4, 0.9):
        at = torch.tensor(P, dtype=torch.float64)
        assert float(grpo_kappa(at, 2)) == pytest.approx(1, rel=1e-12)
        assert float(grpo_kappa(at, 3)) == pytest.approx(2**0.5, rel=1e-12)
    assert "1 at G = 2, sqrt 2 at G = 3" in PAGE


def test_lengths_that_vary_are_not_parallel_and_pkpo_climbs_its_own(policy):
    world = sum_and_stop(modulus=3, horizon=3)
    own = Transformer(world.V, None, 8, 1, 1, length=4, seed=0, dtype=torch.float64)
    update = expected_update(world, own, build_learner("grpo"), G)
    assert alignment(update.mean, update.truth).cosine < 1 - 1e-6
    best = expected_update(world, own, build_learner("pkpo", k=K), G, target=max_at_k(K))
    assert alignment(best.mean, best.truth).cosine == pytest.approx(1, abs=1e-10)


def test_the_pages_learners_and_options_are_those_of_the_code():
    told = {name.strip("`"): set(re.findall(r"`(\w+)`", options)) for name, options in table("name for")}
    assert told == {name: set(inspect.signature(build).parameters) for name, build in LEARNERS.items()}
    assert all(f"`{option}`" in PAGE for option in _COMMON)


def test_every_column_of_the_log_is_explained():
    assert [name.strip("`") for name, _ in table("column")] == ["step", "rows", "seed", *PER_SEED]


def test_the_folders_are_those_there_are():
    root = Path(__file__).resolve().parents[2] / "agents"
    assert {name.strip("`/") for name, _ in table("folder")} == {
        path.parent.name for path in root.glob("*/__init__.py")
    }
