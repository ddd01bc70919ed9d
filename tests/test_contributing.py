"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the repository: files counted, commands run.

Run as a script (by the fixture, inside the copy) this file measures what the tests compare, and prints it as JSON.
"""

import ast
import contextlib
import io
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.source_checks import lint_imports

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("envs", "theory", "agents", "figures", "benchmarks", "tests")
PLAN = {
    "world": 2,
    "variant that breaks an assumption": 2,
    "recipe": 1,
    "claim": 2,
    "command": 2,
    "adapter for a library": 1,
}
NEW = ("TokenCounting", "LQGradedReward", "signs", "noise_is_centred", "describe")
GAIN, GROUPS = 0.8, (2, 3, 5)
LISTED = "LQGradedReward       without A1: rewards rounded to whole numbers"
SCALAR = "horizon, gamma, action_noise, noise"  # the options of a variant without fields of its own


class Block(NamedTuple):
    """A fenced block, and where it goes."""

    how: str
    path: str
    table: list
    text: str


class Recipe(NamedTuple):
    """One section of the text."""

    files: int
    blocks: list
    commands: list


def read_recipes(text):
    """Name -> recipe, of every section whose title ends in a number of files."""
    recipes = {}
    for name, files, section in re.findall(r"^## An? ([\w ]+): (\d) files?\n(.*?)(?=^## |\Z)", text, re.M | re.S):
        marked = r"<!-- (add|append|row): (\S+)([\w ]*) -->\n```python\n(.*?)```"
        blocks = [Block(how, path, table.split(), body) for how, path, table, body in re.findall(marked, section, re.S)]
        run = " ".join(line for line in section.splitlines() if line.startswith("Run "))
        assert len(blocks) == section.count("```python"), f"{name}: a block without a marker would not be tested"
        recipes[name] = Recipe(int(files), blocks, re.findall(r"`(.+?)`", run))
    return recipes


RECIPES = read_recipes((ROOT / "CONTRIBUTING.md").read_text())
_WITH_ROWS = [recipe for recipe in RECIPES.values() if {"row", "append"} & {block.how for block in recipe.blocks}]


def insert(folder, block):
    """Put a block into the folder as its marker says."""
    path = folder / block.path
    if block.how == "add":
        assert not path.exists(), block.path
        path.write_text(block.text)
    elif block.how == "append":
        path.write_text(f"{path.read_text()}\n\n{block.text}")
    else:
        path.write_text(with_row(path.read_text(), block))


def with_row(source, block):
    """The source with the block's import among the sorted imports, and the rest as the last entry of its table."""
    lines, new = source.splitlines(), block.text.splitlines()
    imports = [line for line in new if line.startswith("from ")]
    rows = [line for line in new if line.strip() and line not in imports]
    lines[(end := closing_line(source, *block.table)) : end] = rows
    for line in imports:
        before = [i for i, other in enumerate(lines) if other.startswith("from ") and other < line]
        lines.insert(before[-1] + 1, line)
    return "\n".join(lines) + "\n"


def closing_line(source, name, *keys):
    """Index of the line that closes the table `name`, or the table under its key."""
    named = [n for n in ast.parse(source).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name]
    table = named[0].value
    for key in keys:
        table = next(value for k, value in zip(table.keys, table.values, strict=True) if k.value == key)
    return table.end_lineno - 1


def contents(folder):
    """File -> bytes, without what Python and the commands leave."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {p.as_posix(): f.read_bytes() for p, f in files.items() if not {"__pycache__", "runs"} & set(p.parts)}


def follow(folder, hows):
    """Do the steps of every recipe that are of these kinds; which files each recipe made or changed."""
    touched = {}
    for name, recipe in RECIPES.items():
        before = contents(folder)
        for block in recipe.blocks:
            if block.how in hows:
                insert(folder, block)
        touched[name] = {path for path, text in contents(folder).items() if before.get(path) != text}
    return touched


def measured_in(folder, what):
    """What this file measures as a script, in the folder and with the folder's packages."""
    command = [sys.executable, "-P", "-W", "ignore", __file__, what]  # -P: tests/ holds folders of the packages' names
    place = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """(folder, touched files by recipe, what the commands say before the rows are in, what is measured after)."""
    folder = tmp_path_factory.mktemp("house")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "gallery"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    made = follow(folder, {"add"})
    refused = measured_in(folder, "refused")
    changed = follow(folder, {"append", "row"})
    return folder, {name: made[name] | changed[name] for name in made}, refused, measured_in(folder, "added")


def test_a_recipe_touches_as_many_files_as_the_text_and_the_plan_say(copy):
    touched = {name: len(files) for name, files in copy[1].items()}
    assert touched == {name: recipe.files for name, recipe in RECIPES.items()} == PLAN


def test_a_file_more_would_be_counted(tmp_path):
    shutil.copytree(ROOT / "envs", tmp_path / "envs", ignore=shutil.ignore_patterns("__pycache__"))
    before = contents(tmp_path)
    (tmp_path / "envs" / "noise.py").write_text("")
    (tmp_path / "README.md").write_text("a third place")
    assert {path for path, text in contents(tmp_path).items() if before.get(path) != text} == {
        "README.md",
        "envs/noise.py",
    }


def test_what_ran_was_the_copy(copy):
    folder, _, refused, added = copy
    assert {Path(path).parent.parent for path in refused["files"] + added["files"]} == {folder}


def test_every_command_of_the_text_works(copy):
    folder, _, _, added = copy
    said = {name: [added["commands"][command] for command in recipe.commands] for name, recipe in RECIPES.items()}
    assert all(said.values())
    assert {code for results in said.values() for code, _, _ in results} == {0}
    trained = {tuple(path.parent.name.split("-")[:2]) for path in folder.glob("runs/train/*/checkpoint.pt")}
    pairs = {("value_gradient", "TokenCounting"), ("reinforce", "LQGradedReward"), ("signs", "TokenParity")}
    assert trained == pairs
    listed = said["claim"][1][1]
    assert re.search(r"\n  noise_is_centred +holds +(holds|fails|undecided)( NO)? +- A2\n    Action noise has", listed)
    assert f"{'':<23}modulus, horizon, sparse, gamma\n  {LISTED}\n{'':<23}{SCALAR}\n\nlearners\n" in listed
    assert re.search(r"\n  signs +Signs alone: .*\n( .*\n)* +clip\n$", listed)
    audited, losses = (text for _, text, _ in said["adapter for a library"])
    assert "kappa times the gradient at every prompt; kappa 1" in audited
    assert losses.startswith("torch: losses\n  cross_entropy\n")
    assert said["command"][0][1] == "TokenParity: the last token must be the parity of those before; horizon 4\n"


def test_without_its_row_a_name_is_refused_in_one_line(copy):
    refused = copy[2]["commands"]
    for name, recipe in zip(NEW, _WITH_ROWS, strict=True):
        code, _, said = refused[recipe.commands[0]]
        assert code == 2
        assert said.count("\n") == 1, said
        assert name in said
    assert "TokenCounting" in copy[2]["gymnasium"]


def test_the_world_pays_its_optimal_return_and_a_uniform_policy_gets_its_share(copy):
    world = copy[3]["world"]
    assert world["optimal"] == world["right answer"] == 0.25
    assert world["wrong answer"] == 0.0
    assert world["uniform, by tables"] == pytest.approx(0.25 / 4**3, rel=1e-12)
    assert world["uniform, all episodes"] == pytest.approx(0.25 / 4**3, rel=1e-12)


def test_the_variant_keeps_what_it_says_and_nothing_else(copy):
    variant = copy[3]["variant"]
    moments, gap = np.array(variant["moments"]), np.array(variant["moments, simulated"]) - variant["moments"]
    assert (np.abs(gap) < 5 * np.array(variant["their errors"])).all()
    assert (np.abs(gap + 0.1 * moments) > 5 * np.array(variant["their errors"])).all(), (
        "the control: 10 % would be seen"
    )
    for form, said in variant["refused"].items():
        assert said.startswith(f"GradedReward has no such closed form: {form} (kept: state moments)"), said
    assert len(variant["refused"]) == 3
    assert variant["linear value, errors off"] > 20, "the control: the closed form that it refuses is wrong here"


def test_a_variant_that_says_nothing_keeps_nothing_and_a_wrong_word_is_refused(copy):
    variant = copy[3]["variant"]
    assert variant["says nothing"].startswith("Silent has no such closed form: state moments (kept: none)")
    assert variant["says moment"].startswith("closed form 'state moment' is unknown; did you mean state moments")


def test_the_recipes_mean_is_the_one_of_its_docstring(copy):
    for group, (P, scale, cosine, kappa_of_grpo) in zip(GROUPS, copy[3]["recipe"], strict=True):
        kappa = 2 - P ** (group - 1) - (1 - P) ** (group - 1)
        assert scale == pytest.approx(kappa, rel=1e-10)
        assert cosine == pytest.approx(1, abs=1e-10)
        assert group == 2 or abs(kappa / kappa_of_grpo - 1) > 0.01, "the control: another recipe's kappa"


def test_the_claim_holds_its_control_fails_and_it_is_drawn(copy):
    runs = copy[0] / "runs"
    (verdict,) = json.loads((runs / "verdicts.json").read_text())
    assert (verdict["claim"], verdict["outcome"]) == ("noise_is_centred", "holds")
    assert {name: part["outcome"] for name, part in verdict["parts"].items()} == {"mean": "holds", "shifted": "fails"}
    assert (runs / "figures" / "noise_is_centred.png").read_bytes().startswith(b"\x89PNG")
    assert "Action noise has mean zero" in (runs / "report.html").read_text()


def test_the_examples_are_in_the_houses_style(copy):
    pytest.importorskip("ruff", reason="ruff comes with the extra `dev`")
    folder, touched, _, _ = copy
    files = sorted(set().union(*touched.values()))
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *files], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_the_examples_follow_the_arrows(copy):
    assert "0 broken" in lint_imports(copy[0]).stdout


def run_command(line):
    """[exit code, output, errors] of a command, in this process."""
    words = line.split("figures ", 1)[1] if line.startswith("python -m figures ") else line.removeprefix("costate ")
    sys.argv = ["figures", *shlex.split(words)]
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module("figures", run_name="__main__")
        except SystemExit as stopped:
            code = stopped.code
    return [code, out.getvalue(), err.getvalue()]


def refusal(call, *arguments):
    """What the call is refused with, "" where it is not."""
    from gymnasium.error import Error

    from envs.world import InputError

    try:
        call(*arguments)
    except (InputError, Error) as error:
        return str(error)
    return ""


def measure_refused():
    """The first command of every recipe, without the rows."""
    import gymnasium

    import envs  # noqa: F401  (registers the ids)

    commands = {recipe.commands[0]: run_command(recipe.commands[0]) for recipe in _WITH_ROWS}
    return {"commands": commands, "gymnasium": refusal(gymnasium.make, "costate/TokenCounting-v0")}


def measure_added():
    """All commands, and the numbers of the world, the variant and the recipe."""
    commands = {command: run_command(command) for recipe in RECIPES.values() for command in recipe.commands}
    return {"commands": commands, "world": of_world(), "variant": of_variant(), "recipe": of_recipe()}


def of_world():
    """Returns in the counting world of 4 numbers, 3 steps and gamma = 1/2."""
    import gymnasium
    import torch

    from envs.registry import make_world
    from theory.tokens.dynamic_programming import tables

    options = {"modulus": 4, "horizon": 3, "gamma": 0.5}
    env, world = gymnasium.make("costate/TokenCounting-v0", **options), make_world("TokenCounting", **options).to()

    def earned(answer, seed):
        first = int(env.reset(seed=seed)[0][0])
        return sum(0.5**k * env.step((first + token) % 4)[1] for k, token in enumerate(answer))

    every = [earned(answer, seed) for answer in itertools.product(range(4), repeat=3) for seed in range(3)]
    uniform = torch.full(world.r.shape[1:], 0.25, dtype=torch.float64)
    return {
        "optimal": world.optimal_return,
        "right answer": earned((1, 2, 3), 0),
        "wrong answer": earned((1, 2, 2), 0),
        "uniform, by tables": float(tables(world, uniform).J),
        "uniform, all episodes": float(np.mean(every)),
    }


def of_variant():
    """The graded world: its state moments by the closed form and by simulation, and what it refuses."""
    import torch

    from envs.linear_quadratic import scalar
    from envs.registry import make_world
    from theory.continuous.lq_gradients import costate_covariance
    from theory.continuous.lyapunov import linear_value, second_moments
    from theory.continuous.riccati import riccati

    world, K = make_world("LQGradedReward", horizon=3), torch.tensor([[GAIN]], dtype=torch.float64)
    GradedReward = type(world)

    class Silent(GradedReward):
        pass

    squares, returns = simulated(world, 100_000)
    fields = {name: getattr(world, name) for name in ("A", "B", "Q", "R", "Q_f", "S_w", "S_x", "m_0", "S_0", "horizon")}
    plain = linear_value(scalar(horizon=3), K)
    start = world.S_0 + np.outer(world.m_0, world.m_0)
    claimed = -float((plain.P[0].numpy() * start).sum() + plain.c[0])
    refused = {"value": linear_value, "costate covariance": costate_covariance, "optimal gain": lambda w, K: riccati(w)}
    return {
        "moments": second_moments(world, K)[:, 0, 0].tolist(),
        "moments, simulated": squares.mean(1).tolist(),
        "their errors": (squares.std(1) / squares.shape[1] ** 0.5).tolist(),
        "refused": {form: refusal(call, world, K) for form, call in refused.items()},
        "linear value, errors off": abs(returns.mean() - claimed) / (returns.std() / len(returns) ** 0.5),
        "says nothing": refusal(second_moments, Silent(**fields), K),
        "says moment": refusal(type, "Typo", (GradedReward,), {"keeps": frozenset({"state moment"})}),
    }


def simulated(world, paths):
    """Squares of the states (time, paths), and returns, of u = -GAIN s, in plain numpy."""
    rng = np.random.default_rng(0)
    states, returns = [world.initial(rng.standard_normal((paths, 1)))], np.zeros(paths)
    for t in range(world.horizon):
        xi, w = (rng.standard_normal((paths, 1)) @ root for root in (world.L_x, world.L_w))
        action = world.act(states[-1], -GAIN * states[-1], xi)
        returns += world.gamma**t * world.reward(states[-1], action)
        states.append(world.transition(states[-1], action, w))
    returns += world.gamma**world.horizon * world.terminal_reward(states[-1])
    return np.stack(states)[..., 0] ** 2, returns


def of_recipe():
    """[P, scale, cosine, GRPO's kappa] of the recipe's exact mean update at every group size."""
    import torch

    from agents.policies.transformer import Transformer
    from agents.recipes.learners import build_learner
    from envs.token_tasks import combination_lock
    from theory.groups.binary_rewards import alignment, grpo_kappa
    from theory.groups.expected_update import expected_update

    policy, rows = Transformer(3, None, 8, 1, 1, length=3, seed=3, dtype=torch.float64), []
    for group in GROUPS:
        update = expected_update(combination_lock(3, 2), policy, build_learner("signs"), group)
        aligned = alignment(update.mean, update.truth)
        rows.append([float(update.J), aligned.scale, aligned.cosine, float(grpo_kappa(update.J, group))])
    return rows


if __name__ == "__main__":
    answers = {"refused": measure_refused, "added": measure_added}[sys.argv[1]]()
    answers["files"] = [sys.modules[name].__file__ for name in ("envs", "theory", "agents", "figures")]
    print(json.dumps(answers))
