"""Claims and training through the face: the very numbers of the commands."""

import matplotlib
import pandas as pd
import pytest
import torch

import costate
from envs.lq_variants import state_scaled_noise
from envs.own_world import system_text
from envs.world import InputError
from figures.cli import main
from figures.commands.training_run import DivergedError
from figures.harness.registry import CLAIM_NAMES


def command(*arguments):
    with pytest.raises(SystemExit) as done:
        main([str(x) for x in arguments])
    return done.value.code


def same(ours, theirs):
    pd.testing.assert_frame_equal(ours.reset_index(drop=True), theirs.reset_index(drop=True), check_exact=True)


@pytest.mark.parametrize("claim", ["error_split", "estimator_variance"])
def test_a_claim_has_the_numbers_of_the_command(claim, tmp_path, capsys):
    assert command("check", claim, "--preset", "tiny", "--seed", 3, "--jobs", 1, "--out", tmp_path) == 0
    run = costate.run_claim(claim, seed=3, preset="tiny", jobs=1)
    same(run.rows, costate.table(tmp_path, claim))
    assert "run_seed" in run.rows
    assert run.frame() is run.rows
    other = costate.run_claim(claim, seed=4, preset="tiny", jobs=1).rows["measured"]
    assert (claim == "error_split") == other.equals(run.rows["measured"])  # the first draws nothing
    assert run.verdict.claim == claim
    assert repr(run).startswith(f"ClaimRun({claim}: {run.verdict.outcome}, {len(run.rows)} rows; ")


def test_fields_may_be_changed_and_settings_chosen(capsys):
    run = costate.run_claim(
        "entropy_knobs", preset="quick", only={"knob": "temperature"}, jobs=1, seeds=1, temperatures=(0.2, 1, 5)
    )
    assert set(run.rows["knob"]) == {"temperature"}
    assert set(run.rows["temperatures"]) == {"0.2,1,5"}
    sweep = run.rows[(run.rows["part"] == "sweep") & (run.rows["world"] == "lock")]
    assert sweep.groupby("costate").size().to_dict() == {"E1 = 0": 3, "hidden readout": 3}
    for bad, told in [({"temperature": 3}, "did you mean temperatures"), ({"seeds": "two"}, "whole number")]:
        with pytest.raises(costate.InputError, match=told):
            costate.run_claim("entropy_knobs", **bad)
    with pytest.raises(costate.InputError, match=r"holds no verdicts.json: run `costate check"):
        costate.table(".", "entropy_knobs")


def test_a_run_draws_itself_and_leaves_the_users_settings(capsys):
    before = dict(matplotlib.rcParams.copy())  # noqa: TID251
    run = costate.run_claim("attention_path", preset="tiny", jobs=1)
    figure = run.figure(caption=False, width=6)
    assert figure.get_figwidth() == 6
    assert len(figure.axes) >= 2
    after = dict(matplotlib.rcParams.copy())  # noqa: TID251
    assert {name for name in after if repr(after[name]) != repr(before[name])} <= {
        "backend"
    }  # chosen when it is first read


def test_a_folder_keeps_finished_points(tmp_path, capsys):
    first = costate.run_claim("attention_path", preset="tiny", jobs=1, out=tmp_path)
    capsys.readouterr()
    again = costate.run_claim("attention_path", preset="tiny", jobs=1, out=tmp_path)
    assert "points" not in capsys.readouterr().err
    same(first.rows, again.rows)


def test_all_claims_are_listed():
    table = costate.claims()
    assert list(table["name"]) == list(CLAIM_NAMES)
    assert set(table["documented"]) == {"holds", "fails"}


def test_training_has_the_numbers_of_the_command(tmp_path, capsys):
    options = ["--steps", 3, "--seeds", 2, "--width", 8, "--group", 4, "--every", 1, "--out", tmp_path]
    assert command("train", "--learner", "rloo", "--world", "TokenCopy", *options) == 0
    (log,) = tmp_path.glob("*/log.csv")
    world = costate.world("TokenCopy")
    run = costate.train(world, costate.rloo(), seeds=2, steps=3, width=8, group=4, every=1, progress=False)
    pd.testing.assert_frame_equal(run.log, pd.read_csv(log), check_dtype=False, rtol=1e-15)
    last = run.log[run.log["step"] == 3]["J"].tolist()
    assert [float(costate.exact(world, policy).J) for policy in run.policies] == pytest.approx(last, abs=1e-12)
    assert repr(run).startswith("TrainingRun(rloo, 3 steps, 2 seeds, J=")
    again = costate.train(world, "rloo", steps=1, policies=[run.policies[0]], group=4, every=1, progress=False)
    assert again.log["J"].iloc[0] == pytest.approx(last[0], abs=1e-12)


def test_a_linear_quadratic_world_is_trained_too():
    climb = costate.recipe("value_gradient")
    run = costate.train("LQScalar", climb, steps=5, every=1, rate=0.05, progress=False)
    J = run.log["J"].tolist()
    assert sorted(J) == J
    assert J[-1] > J[0]


def test_a_run_that_diverges_keeps_its_log():
    with pytest.raises(DivergedError, match="diverged at update") as error:
        costate.train("LQScalar", "value_gradient", steps=9, every=1, rate=1e6, optimiser="sgd", progress=False)
    assert len(error.value.log) >= 1


def test_what_cannot_be_trained_is_refused_in_one_line():
    world = costate.world("TokenCopy")
    for call, told in [
        (lambda: costate.train(world, costate.grpo(), stpes=3), "did you mean"),
        (lambda: costate.train(world, "grop"), "did you mean"),
        (lambda: costate.train(world, 3), "recipe must be a learner"),
        (lambda: costate.train(world, costate.grpo(), seeds=2, policies=[None]), "one for each of the 2 seeds"),
        (lambda: costate.train(world, costate.grpo(), steps=0), "steps must be a whole number"),
    ]:
        with pytest.raises(costate.InputError, match=told):
            call()


def test_the_first_seed_is_that_of_the_command_and_the_others_follow(tmp_path, capsys):
    options = ["--steps", 2, "--seeds", 1, "--width", 8, "--group", 4, "--every", 1, "--seed", 6, "--out", tmp_path]
    assert command("train", "--learner", "rloo", "--world", "TokenCopy", *options) == 0
    (log,) = tmp_path.glob("*/log.csv")
    small = {"steps": 2, "width": 8, "group": 4, "every": 1, "progress": False}
    one, two = (
        costate.train("TokenCopy", "rloo", seeds=seeds, first_seed=first, **small).log
        for seeds, first in ((1, 6), (2, 5))
    )
    pd.testing.assert_frame_equal(one, pd.read_csv(log), check_dtype=False, rtol=1e-15)
    assert sorted(set(two["seed"])) == [5, 6]
    later = two[two["seed"] == 6]["J"].tolist()
    assert later == pytest.approx(one["J"].tolist(), abs=1e-12)
    assert two[two["seed"] == 5]["J"].tolist() != pytest.approx(later, abs=1e-6)


def test_a_run_tells_its_last_return_and_leaves_the_number_of_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run = costate.train("LQScalar", "value_gradient", steps=5, every=1, rate=0.05, progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    J = run.log["J"].tolist()
    assert repr(run).endswith(f", 5 steps, 1 seeds, J={J[-1]:.4g} in the end)")
    assert f"{J[0]:.4g}" != f"{J[-1]:.4g}"


def test_a_world_without_exact_answers_is_trained_and_says_why_nothing_exact_is_known():
    table = torch.rand(2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known = costate.train(costate.TokenMDP.from_rewards(table), "rloo", steps=1, width=8, group=2, progress=False)
    assert known.reason == ""
    large = costate.world("TokenParity", V=2, horizon=24)
    run = costate.train(large, "rloo", steps=1, width=8, layers=1, group=2, prompts=1, progress=False)
    assert run.reason
    assert "nothing exact" in repr(run)
    with pytest.raises(costate.InputError, match="needs exact answers, and there are none"):
        costate.train(large, "value_gradient", steps=1, width=8, progress=False)


def test_a_world_that_is_none_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(InputError, match=r"^world 'pairty' is unknown; did you mean parity"):
        costate.run_claim("bellman_costate", preset="tiny", world="pairty", out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_users_own_world_is_taken_as_the_command_takes_it(tmp_path):
    (tmp_path / "my.json").write_text('{"V": 2, "horizon": 2, "rewards": [0.0, 1.0, 0.5, 0.25]}')
    run = costate.run_claim("bellman_costate", preset="tiny", world=str(tmp_path / "my.json"), jobs=1)
    assert len(run.rows)
    assert run.rows["world"].str.contains("my.json").all()


def test_a_system_is_taken_as_an_object_and_a_token_world_is_asked_for_as_a_file(tmp_path):
    matrices = {"A": [[0.9, 2.0], [0.0, 0.8]], "B": [[0.0], [1.0]], "Q": [[1.0, 0.0], [0.0, 1.0]], "R": [[0.1]]}
    system = costate.LinearQuadratic(**matrices, S_x=[[0.04]], horizon=4)
    (tmp_path / "my.json").write_text(system_text(system))  # with all defaults: noise is drawn by what is written
    given, read, other = (
        costate.run_claim("costate_mean", preset="tiny", jobs=1, system=s, only={"system": "scalar"}).rows["measured"]
        for s in (system, str(tmp_path / "my.json"), "double_integrator")
    )
    assert given.tolist() == read.tolist()
    assert given.tolist() != other.tolist()
    world = costate.TokenMDP.from_rewards([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(
        InputError, match=r"^world must be a name or a file here.*world='my_world.py:build'; got a TokenMDP$"
    ):
        costate.run_claim("error_split", preset="tiny", world=world, out=tmp_path / "runs")
    with pytest.raises(InputError, match=r"^system must be a name or a file here.*; got a StateScaledNoise$"):
        costate.run_claim("costate_mean", preset="tiny", system=state_scaled_noise(horizon=3), out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_preset_that_is_none_and_several_values_of_one_field():
    with pytest.raises(costate.InputError, match="preset 'quikc' is unknown; did you mean quick"):
        costate.run_claim("entropy_knobs", preset="quikc")
    both, one = (
        costate.run_claim("costate_recursion", preset="quick", jobs=1, only={"system": kept})
        for kept in (["scalar", "random_finite"], "scalar")
    )
    assert set(both.rows["system"]) == {"scalar", "random finite"}
    assert set(one.rows["system"]) == {"scalar"}
    assert one.verdict.subset
