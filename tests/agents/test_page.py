"""agents/README.md: its kappas are those of the exact mean updates, its tables name what the code has."""

import inspect
import math
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
RECIPES = {
    "REINFORCE, RLOO": [("reinforce", {}), ("rloo", {}), ("reinforce", {"baseline": True, "to_go": True})],
    "Dr. GRPO, GRPO without std": [("dr_grpo", {}), ("grpo", {"std": "none", "length": "row sum"})],
    "GRPO, population std": [("grpo", {"length": "row sum"})],
    "GRPO, sample std": [("grpo", {"std": "sample", "length": "row sum"})],
    "GRPO with 1/": [("grpo", {}), ("gspo", {}), ("dapo", {}), ("cispo", {})],
    "MaxRL": [("maxrl", {})],
    "PKPO": [("pkpo", {"k": K})],
    "Pass@k training": [("pass_k_training", {"k": K})],
}


def c_G(P):
    """`E[sqrt(k(1-k))] / (P(1-P))`, k the share of successes, by the binomial sum."""
    shares = [(math.comb(G, n) * P**n * (1 - P) ** (G - n), n / G) for n in range(G + 1)]
    return sum(chance * math.sqrt(k * (1 - k)) for chance, k in shares) / (P * (1 - P))


def value_of(cell, P):
    """The number that a cell of the column kappa gives at a success probability, read from its text."""
    text = (
        re.split(r" = |;| times ", cell)[0]
        .replace("^{k-1}", "**(k-1)")
        .replace("^{G-1}", "**(G-1)")
        .replace("c_G(P)", "c")
    )
    text = re.sub(r"(?<=[\w)]) (?=[(c])", "*", text)
    return eval(text, {"sqrt": math.sqrt, "c": c_G(P), "G": G, "P": P, "k": K, "L": WORLD.horizon})


def table(head):
    """Cells of the rows of the table whose head begins with this."""
    rows = re.search(rf"^\| {re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)[1]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows.splitlines()]


@pytest.fixture(scope="module")
def policy():
    return Transformer(WORLD.V, None, 8, 1, 1, length=4, seed=3, dtype=torch.float64)


def test_the_rows_of_the_table_of_kappas_are_those_that_are_tested():
    recipes = [recipe for recipe, *_ in table("recipe")]
    assert len(recipes) == len(RECIPES)
    for recipe, known in zip(recipes, RECIPES, strict=True):
        assert recipe.startswith(known)


@pytest.mark.parametrize("row", RECIPES)
def test_a_recipes_kappa_is_the_scale_of_its_exact_mean(row, policy):
    cells = {recipe: kappa for recipe, kappa, _ in table("recipe")}
    (cell,) = [kappa for recipe, kappa in cells.items() if recipe.startswith(row)]
    for name, options in RECIPES[row]:
        update = expected_update(WORLD, policy, build_learner(name, **options), G)
        cosine, scale, _ = alignment(update.mean, update.truth)
        P = float(update.J)
        assert cosine == pytest.approx(1, abs=1e-10), name
        if " times " not in cell:  # of Pass@k training the cell gives a factor only
            assert scale == pytest.approx(value_of(cell, P), rel=1e-9), name
            others = {value_of(other, P) for other in cells.values() if other != cell and " times " not in other}
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
