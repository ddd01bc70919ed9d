"""Choosing and changing the settings of a claim, and the sweep command that uses it."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pandas as pd
import pytest

from envs.world import InputError
from figures.cli import main
from figures.harness.selection import select, text_of
from theory.tokens.dynamic_programming import tables


@dataclass(frozen=True)
class Setting:
    world: str
    tau: float
    seeds: int
    trained: bool
    alphas: tuple[float, ...]
    nested: tuple[tuple[float, ...], ...] = ((1.0,),)
    worlds: tuple[str, ...] = ("a (1,2)", "b")
    ratio: float | None = None


SETTINGS = [Setting(world, tau, 2, False, (0.5, 1.0)) for world in ("a (1,2)", "b") for tau in (0.5, 1.0)]


def test_nothing_asked_is_everything():
    assert select(SETTINGS, [], []) == SETTINGS


@pytest.mark.parametrize(
    ("only", "kept"),
    [
        (["world=b"], [2, 3]),
        (["world=a (1,2)", "tau=1"], [1]),
        (["world=b", "world=a (1,2)"], [0, 1, 2, 3]),
        (["alphas=0.5,1", "tau=0.5"], [0, 2]),
        (["trained=False"], [0, 1, 2, 3]),
    ],
)
def test_only_keeps_what_has_the_value(only, kept):
    assert select(SETTINGS, only, []) == [SETTINGS[i] for i in kept]


def test_set_changes_every_setting_and_keeps_each_once():
    chosen = select(SETTINGS, ["world=b"], ["tau=0.25", "seeds=7", "trained=True", "alphas=0.1,0.2,0.3"])
    assert chosen == [Setting("b", 0.25, 7, True, (0.1, 0.2, 0.3))]
    assert isinstance(chosen[0].seeds, int)


def test_a_field_that_is_set_several_times_is_a_grid():
    chosen = select(SETTINGS, ["world=b", "tau=1"], ["tau=0.25", "seeds=7", "seeds=8", "tau=4"])
    assert [(setting.tau, setting.seeds) for setting in chosen] == [(0.25, 7), (0.25, 8), (4.0, 7), (4.0, 8)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("worlds=b,a (1,2),c (3,4)", ("b", "a (1,2)", "c (3,4)")),
        ("alphas=", ()),
        ("ratio=0.5", 0.5),
        ("ratio=None", None),
    ],
)
def test_values_are_read_by_the_type_of_their_field(text, value):
    (chosen,) = select(SETTINGS[:1], [], [text])
    assert getattr(chosen, text.partition("=")[0]) == value


@pytest.mark.parametrize(
    ("value", "text"), [((0.2, 1.0), "0.2,1"), ([1 / 1024], "0.0009765625"), (1e-5, "1e-05"), ((), "")]
)
def test_a_value_is_shown_with_all_of_its_digits_and_no_more(value, text):
    assert text_of(value) == text


@pytest.mark.parametrize(
    ("only", "changes", "told"),
    [
        (["word=b"], [], "--only word=b: field 'word' is unknown; did you mean world"),
        (["world"], [], "--only world: give FIELD=VALUE"),
        (["world=c"], [], r"--only world=c: world 'c' is unknown; did you mean a \(1,2\) or b"),
        ([], ["nothing=1"], "--set nothing=1: field 'nothing' is unknown; did you mean"),
        ([], ["seeds=1.5"], "--set seeds=1.5: must be a whole number"),
        ([], ["alphas=1,x"], "--set alphas=1,x: must be a finite number"),
        ([], ["tau=nan"], "--set tau=nan: must be a finite number"),
        ([], ["tau=-inf"], "--set tau=-inf: must be a finite number"),
        ([], ["tau=1e400"], "--set tau=1e400: must be a finite number"),
        ([], ["alphas=1,inf"], "--set alphas=1,inf: must be a finite number"),
        ([], ["trained=yes"], "must be True or False"),
        ([], ["ratio=x"], "must be a finite number"),
        ([], ["nested=1"], "cannot be set from the command line"),
    ],
)
def test_what_cannot_be_chosen_is_named(only, changes, told):
    with pytest.raises(InputError, match=told):
        select(SETTINGS, only, changes)


def test_values_that_exist_but_never_together_are_refused():
    mixed = [*SETTINGS[:1], Setting("b", 9.0, 2, False, (1.0,))]
    with pytest.raises(InputError, match="no setting has all of these together"):
        select(mixed, ["world=b", "tau=0.5"], [])


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code


def test_a_sweep_leaves_verdict_csv_and_a_figure_for_each_world(tmp_path):
    changes = ("--set", "alphas=0.5,1", "--set", "random=3", "--set", "world=lock (2,3)")
    command = ("sweep", "error_map", "--preset", "tiny", *changes)
    assert run(*command, "--out", tmp_path, "--jobs", "1") == 0
    rows = pd.read_csv(tmp_path / "rows" / "error_map.csv")
    assert set(rows["alpha"]) == {0.5, 1.0}
    assert set(rows["world"]) == {"lock (2,3)"}
    (entry,) = json.loads((tmp_path / "verdicts.json").read_text())
    assert entry["run"]["settings"][0]["random"] == 3
    assert {p.name for p in (tmp_path / "figures").glob("*.png")} == {"error_map.png", "error_map-lock_2_3.png"}


def test_a_sweep_resumes_and_judges_the_parts_that_are_left(tmp_path, capsys):
    chosen = ("--only", "world=one choice", "--set", "sharpness=2")
    command = ("sweep", "bellman_costate", "--preset", "quick", *chosen, "--out", tmp_path)
    assert run(*command, "--jobs", "1") == 0
    records = {p: p.stat().st_mtime_ns for p in (tmp_path / "records").rglob("*.json")}
    capsys.readouterr()
    assert run(*command) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "records").rglob("*.json")} == records
    shown = capsys.readouterr()
    assert "kept from before" in shown.err
    assert "nothing to run" in shown.err
    (entry,) = json.loads((tmp_path / "verdicts.json").read_text())
    assert set(entry["parts"]) == {"costate = Bellman value", "costate = autograd in the belief"}


@pytest.mark.parametrize(
    ("claim", "kept", "outcome", "code"),
    [
        ("grpo_arcsine", "world=any", "holds", 0),
        ("bellman_costate", "world=one choice", "not judged", 0),  # nothing follows the only step: no control
        ("bellman_costate", "world=lock", "holds", 0),
    ],
)
def test_the_exit_code_of_a_sweep_follows_its_verdict(claim, kept, outcome, code, tmp_path, capsys):
    command = ("sweep", claim, "--preset", "quick", "--only", kept, "--out", tmp_path, "--jobs", "1")
    assert run(*command) == code
    (entry,) = json.loads((tmp_path / "verdicts.json").read_text())
    assert (entry["outcome"], entry["subset"]) == (outcome, True)
    assert ("not judged on this subset" in capsys.readouterr().out) == (outcome == "not judged")
    assert run("plot", "--out", tmp_path) == 0  # the stored verdict stops no later command
    assert run("report", "--out", tmp_path) == 0
    assert run(*command) == code


def test_a_sweep_that_contradicts_what_is_documented_is_exit_code_1(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "figures.claims.tokens.bellman_costate.tables", lambda *given: SimpleNamespace(V=tables(*given).V + 1)
    )
    command = ("sweep", "bellman_costate", "--only", "world=lock", "--out", tmp_path, "--jobs", "1")
    assert run(*command, "--preset", "quick") == 1
    (entry,) = json.loads((tmp_path / "verdicts.json").read_text())
    assert (entry["outcome"], entry["subset"]) == ("fails", True)


def test_the_knobs_of_a_claim_are_swept(tmp_path):
    knobs = ("--set", "temperatures=0.2,1,5", "--set", "worlds=lock,stop (2,4)", "--set", "knob=temperature")
    assert run("sweep", "entropy_knobs", "--preset", "tiny", *knobs, "--out", tmp_path, "--jobs", "1") == 0
    rows = pd.read_csv(tmp_path / "rows" / "entropy_knobs.csv")
    assert set(rows["temperatures"]) == {"0.2,1,5"}
    assert set(rows["world"].dropna()) == {"lock", "stop (2,4)"}
    assert (rows[rows["part"] == "sweep"].groupby(["world", "seed", "costate"]).size() == 3).all()
    assert set(rows.loc[rows["costate"] == "hidden readout", "world"]) == {"lock"}  # the other world has an end token


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("sweep", "error_mpa"), "error_map"),
        (("sweep", "error_map", "--only", "world=x"), "world 'x' is unknown; did you mean"),
        (("sweep", "error_map", "--set", "seeds=x"), "whole number"),
        (
            ("sweep", "error_map", "--set", "world=foo", "--preset", "quick", "--jobs", "1"),
            "world 'foo' is unknown; did you mean",
        ),
        (("sweep", "error_map", "--set", "alphas=0,1"), "alphas must rise and lie in (0, 1]"),
        (("sweep", "error_map", "--set", "random=0"), "random must be a whole number >= 1; got 0"),
        (("sweep", "error_map", "--set", "families=x"), "families must be among temperature, offset, trained"),
        (("sweep", "relaxed_costates", "--set", "samples=0"), "samples must be a whole number >= 2; got 0"),
        (("sweep", "entropy_knobs", "--set", "knob=x"), "knob must be one of temperature, offset"),
        (("sweep", "entropy_knobs", "--set", "offsets=1"), "offsets must be at least two numbers"),
        (("sweep", "large_vocabulary", "--set", "policies=x"), "policies must be among"),
        (("sweep", "batch_split", "--set", "rows=3"), "rows must be an even number >= 4"),
        (("sweep", "transformer_in_lq", "--set", "samples=1"), "samples must be a whole number >= 2; got 1"),
        (("sweep", "attention_costate_biased", "--set", "reward=x"), "reward must be one of dense, terminal, readout"),
        (("sweep",), "CLAIM"),
    ],
)
def test_a_bad_sweep_is_one_line_and_exit_code_2(arguments, named, tmp_path, capsys):
    assert run(*arguments, *(("--out", tmp_path / "o") if len(arguments) > 1 else ())) == 2
    shown = capsys.readouterr().err
    assert named in shown
    assert named in shown.strip().splitlines()[-1]  # after the forecast, if it came to that
    assert len(shown.strip().splitlines()) <= 2
    assert "Traceback" not in shown
    assert not list((tmp_path / "o").rglob("*.json"))
