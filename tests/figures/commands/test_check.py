"""`costate check` from end to end: one run of all claims at the preset `tiny`, looked at from every side.

The verdicts of the quick preset are a step of `.ci/run`; here a claim has too few samples for one.
"""

import dataclasses
import html
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import figures.claims.continuous.costate_mean as costate_mean
from figures.cli import main
from figures.drawing.placing import freeze
from figures.harness.judge import Verdict
from figures.harness.records import Point
from figures.harness.registry import CLAIM_NAMES, load_claim
from figures.harness.runner import missing, plan, run_missing, run_point
from figures.harness.verdicts import stored_rows
from figures.report.pictures import Look, drawn
from figures.report.questions import questions
from tests.figures.commands.selections import by_field, by_label, failures
from tests.figures.drawing.readable import unreadable


def run(*arguments):
    """The command in this process: exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code


def check(*arguments):
    """`costate check` at the preset `tiny` and seed 7, in one process."""
    return run("check", "--preset", "tiny", "--seed", "7", "--jobs", "1", *arguments)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Output folder of a tiny run of all claims in a process of its own, and what it printed."""
    out = tmp_path_factory.mktemp("check") / "runs"
    command = [sys.executable, "-m", "figures", "check", "--preset", "tiny", "--out", str(out), "--jobs", "1"]
    done = subprocess.run([*command, "--seed", "7"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done


@pytest.fixture
def copy(checked, tmp_path):
    """A copy of that folder, to be damaged."""
    return Path(shutil.copytree(checked[0], tmp_path / "copy"))


def files(folder: Path):
    return {p: p.stat().st_mtime_ns for p in (folder / "records").rglob("*.json")}


def test_every_claim_is_measured_judged_and_told(checked):
    out, done = checked
    verdicts = [Verdict.from_json(entry) for entry in json.loads((out / "verdicts.json").read_text())]
    assert [verdict.claim for verdict in verdicts] == list(CLAIM_NAMES)
    for verdict in verdicts:
        claim = load_claim(verdict.claim)
        assert verdict.documented == claim.documented
        assert {name: part.documented for name, part in verdict.parts.items()} == {
            part.name: part.documented for part in claim.parts
        }
        without_rows = [name for name, part in verdict.parts.items() if part.result.comparisons == 0]
        assert len(without_rows) <= (verdict.claim == "entropy_knobs"), (verdict.claim, without_rows)  # one knob of two
        assert verdict.run.seed == 7
        assert verdict.claim in done.stdout
    assert re.search(r"claims, \d+ points: (about \d+|how long is not known)", done.stderr)
    assert {*CLAIM_NAMES, "questions", "report"} == set(json.loads((out / "drawing.json").read_text()))
    assert "preset tiny" in done.stdout


def test_equalities_known_to_rounding_hold_also_with_the_fewest_samples(checked):
    """Where a claim's equality carries no standard error, a failure is one of the code and not of the sample."""
    seen = 0
    for entry in json.loads((checked[0] / "verdicts.json").read_text()):
        for name, part in Verdict.from_json(entry).parts.items():
            worst = part.result.worst
            exact = worst and worst["relation"] == "==" and worst["standard_error"] == 0
            if exact and part.role == "claim" and part.documented == "holds":
                seen += 1
                assert part.result.outcome == "holds", (entry["claim"], name, worst)
    assert seen >= 10


def test_verdicts_json_has_the_promised_fields(checked):
    promised = {"claim", "statement", "outcome", "documented", "as_documented", "reason", "measured", "target"}
    promised |= {"standard_error", "samples", "parts", "run"}
    for entry in json.loads((checked[0] / "verdicts.json").read_text()):
        assert promised <= set(entry)
        assert {"seed", "settings", "preset", "device", "records", "versions", "revision"} <= set(entry["run"])
        assert entry["samples"] > 1


def test_every_claim_has_its_pictures_and_the_report_needs_no_network(checked):
    out, _ = checked
    page = html.unescape((out / "report.html").read_text())
    words = re.sub("<[^>]*>", "", page)  # a term may be a link
    for name in CLAIM_NAMES:
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / "figures" / f"{name}.svg").read_text()
        assert f'id="{name}"' in page
        assert load_claim(name).statement in words
    assert page.count("<math") >= page.count("data:image/svg+xml") == len(CLAIM_NAMES)
    assert page.count("<h3>") == len(questions()) > 8
    assert "is-this-a-bug" in page
    links = set(re.findall(r"""\b(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", page))
    beside = {link for link in links if not link.startswith(("#", "%23", "data:"))}
    assert {f"rows/{name}.csv" for name in CLAIM_NAMES} | {f"figures/{name}.svg" for name in CLAIM_NAMES} <= beside
    assert all((out / link).is_file() for link in beside)
    assert len(page.encode()) < 3_000_000


@pytest.mark.parametrize("name", CLAIM_NAMES)
def test_whatever_part_of_a_claim_is_kept_is_judged_and_drawn(checked, name):
    """All values of all fields; of the labels of the rows all values are judged, and every eighth is drawn (seconds)."""
    claim = load_claim(name)
    fields = {field.name for field in dataclasses.fields(claim.settings("tiny")[0])}
    chosen = list(by_field(claim, checked[0], 7))
    assert failures(claim, chosen) == []
    assert failures(claim, by_label(chosen[0][1], fields), drawn=8) == []


def test_a_drawing_that_needs_what_is_not_there_is_found(checked):
    def planted(rows, figure):
        figure.subplots().axhline(rows.loc[rows["system"] == "scalar", "measured"].iloc[0])

    claim = dataclasses.replace(load_claim("costate_mean"), draw=planted)
    found = failures(claim, by_field(claim, checked[0], 7))
    assert [name.split()[0] for name, _ in found] == ["system"] * 3
    assert all("IndexError" in error for _, error in found)


def test_every_row_has_its_setting_in_the_table_of_its_claim(checked):
    for name in CLAIM_NAMES:
        claim = load_claim(name)
        table = pd.read_csv(checked[0] / "rows" / f"{name}.csv")
        fields = {field.name for field in dataclasses.fields(claim.settings("tiny")[0])}
        assert set(table["run_seed"]) == {7}
        assert claim.derive is not None or fields <= set(table.columns), name
    table = pd.read_csv(checked[0] / "rows" / "error_bound.csv")
    assert table[["temperature", "offset", "seed", "site"]].notna().all(axis=None)
    cap, study = (pd.read_csv(checked[0] / "rows" / f"{table}.csv") for table in ("signal_cap", "impact_runs"))
    assert dict(zip(cap["corpus"], cap["quality"], strict=True)) == {"clean": 1.0, "quality 0.5": 0.5}
    assert set(cap["budgets"]) == set(study["budgets"]) == {"1,2"}


def test_rows_are_written_before_anything_is_drawn_and_a_drawing_that_fails_is_one_line(tmp_path, monkeypatch, capsys):
    def broken(rows, figure):
        assert (tmp_path / "rows" / "costate_mean.csv").exists()
        assert (tmp_path / "verdicts.json").exists()
        raise KeyError("world")

    monkeypatch.setattr(costate_mean, "CLAIM", dataclasses.replace(costate_mean.CLAIM, draw=broken))
    assert check("costate_mean", "--out", tmp_path) == 2
    assert "claim costate_mean cannot be drawn from these rows: KeyError('world')" in capsys.readouterr().err
    assert check("bellman_costate", "--out", tmp_path) == 0  # the stored verdict stops no later command
    shown = capsys.readouterr().err
    assert "costate_mean cannot be drawn" in shown
    assert "left out of the report" in shown


def test_a_second_run_recomputes_nothing_and_says_so(checked, capsys):
    out, _ = checked
    before = files(out)
    assert check("costate_recursion", "--out", out) == 0
    assert files(out) == before
    assert "kept from before" in capsys.readouterr().err
    assert len(json.loads((out / "verdicts.json").read_text())) == len(CLAIM_NAMES)


def test_two_processes_give_the_same_numbers_as_one(checked, tmp_path):
    out, _ = checked
    points = plan([load_claim("assumption_removed"), load_claim("chaos")], "tiny", 7, "cpu")
    run_missing(points, points[::2], tmp_path, jobs=2)
    for point in points[::2]:
        alone, beside = (json.loads(point.path(folder).read_text())["rows"] for folder in (tmp_path, out))
        assert alone == beside


def test_another_seed_gives_other_numbers(tmp_path):
    rows = []
    for seed in (1, 2):
        point = plan([load_claim("costate_mean")], "tiny", seed, "cpu")[0]
        run_point(point, tmp_path)
        rows.append(json.loads(point.path(tmp_path).read_text())["rows"])
    assert rows[0] != rows[1]


def test_a_damaged_record_is_named_and_recomputed_to_the_same_numbers(copy, capsys):
    victim = next((copy / "records" / "chaos").glob("*.json"))
    rows = json.loads(victim.read_text())["rows"]
    victim.write_text(victim.read_text()[:-40])
    assert check("chaos", "--out", copy) == 0
    assert str(victim) in capsys.readouterr().err
    assert json.loads(victim.read_text())["rows"] == rows


def test_a_damaged_verdicts_file_is_set_aside_and_named(copy, capsys):
    (copy / "verdicts.json").write_text("[{")
    assert run("report", "--out", copy) == 2
    assert check("bellman_costate", "--out", copy) == 0
    assert "verdicts.damaged" in capsys.readouterr().err
    assert (copy / "verdicts.damaged").read_text() == "[{"


def test_an_older_claim_without_records_is_named_and_does_not_spoil_a_good_check(copy, capsys):
    shutil.rmtree(copy / "records" / "chaos")
    (copy / "figures" / "chaos.svg").unlink()
    assert check("bellman_costate", "--out", copy) == 0
    assert "chaos" in capsys.readouterr().err


def test_plot_and_report_work_from_the_records_alone(copy, checked):
    shutil.rmtree(copy / "figures")
    (copy / "report.html").unlink()
    assert run("plot", "chaos", "--out", copy) == 0
    assert (copy / "figures" / "chaos.png").read_bytes() == (checked[0] / "figures" / "chaos.png").read_bytes()
    for name in CLAIM_NAMES:  # the others' pictures need not be drawn again here
        for kind in ("png", "svg"):
            shutil.copy(checked[0] / "figures" / f"{name}.{kind}", copy / "figures")
    assert run("report", "--out", copy) == 0
    page = (copy / "report.html").read_text()
    assert all(f'id="{name}"' in page for name in CLAIM_NAMES)


def test_the_forecast_of_a_rerun_comes_from_the_seconds_of_the_records(copy, capsys, monkeypatch):
    """A change of the code voids the records and not what they say of the time."""
    monkeypatch.setattr("figures.harness.runner.code_digest", lambda module: "another state of the code")
    monkeypatch.setattr("figures.commands.check.run_missing", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    began = time.perf_counter()
    assert check("--out", copy) == 130
    assert time.perf_counter() - began < 20
    said = capsys.readouterr().err
    assert re.search(r"about \d+ (s|min) with 1 jobs with figures and report\n", said)
    assert "goes on from here" in said


@pytest.mark.parametrize("command", [("check", "chaos"), ("sweep", "chaos")])
def test_another_seed_or_preset_is_refused_before_any_work(copy, command, capsys):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    for other in (("--preset", "tiny", "--seed", "8"), ("--preset", "quick", "--seed", "7")):
        assert run(*command, *other, "--jobs", "1", "--out", copy) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "holds verdicts of seed 7, preset tiny, on cpu" in line
        assert f"--out {copy}-" in line
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_stopped_in_the_middle_it_keeps_what_is_finished_and_goes_on(tmp_path, monkeypatch):
    points = plan([load_claim("assumption_removed")], "tiny", 0, "cpu")[:4]
    done: list[Point] = []

    def interrupted(point, out):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(point)
        return run_point(point, out)

    monkeypatch.setattr("figures.harness.runner.run_point", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_missing(points, missing(points, tmp_path), tmp_path, jobs=1)
    assert len(files(tmp_path)) == 2
    assert missing(points, tmp_path) == points[2:]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("check", "costate_men"), "costate_mean"),
        (("check", "--preset", "quik"), "--preset"),
        (("check", "--jobs", "0"), "--jobs"),
        (("check", "--seed", "-1"), "--seed"),
        (("check", "--seed", "x"), "--seed"),
        (("check", "--out", "/dev/null/x"), "--out"),
        (("check", "--world", "/nowhere.json"), "--world"),
        (("check", "--device", "tpu"), "--device"),
        (("plot", "--out", "nothing_here"), "--out"),
        (("report", "--out", "nothing_here"), "--out"),
        (("plot", "nonsense"), "nonsense"),
        (("chekc",), "chekc"),
        ((), "required"),
    ],
)
def test_bad_usage_is_one_line_exit_2_and_writes_nothing(arguments, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    said = capsys.readouterr().err.strip()
    assert named in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())


def test_cuda_is_refused_where_there_is_none(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run("check", "--device", "cuda", "--out", tmp_path / "x") == 2
    assert "--device cuda" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_list_names_every_claim_and_assumption(capsys):
    assert run("list") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*CLAIM_NAMES, "A1", "A6"))


def test_importing_the_command_loads_nothing_heavy():
    code = "import sys, figures.cli; print([m for m in ('torch', 'matplotlib', 'pandas', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# ---- the verdict itself, on the quick preset of one claim


@pytest.fixture
def undrawn(monkeypatch):
    """No pictures and no report: they come after the verdict, and take most of the time."""
    monkeypatch.setattr("figures.commands.check.draw_and_report", lambda *arguments: None)


@pytest.mark.usefixtures("undrawn")
def test_a_claim_that_holds_is_as_documented_and_an_own_system_is_told_apart(tmp_path, capsys):
    own = tmp_path / "own.json"
    system = {"A": [[0.9]], "B": [[1.0]], "Q": [[1.0]], "R": [[0.5]], "S_x": [[0.1]], "K": [[0.4]], "horizon": 6}
    own.write_text(json.dumps(system))
    assert run("check", "costate_mean", "--world", own, "--out", tmp_path / "r", "--jobs", "1") == 0
    shown = capsys.readouterr().out
    assert "own system alone: total derivative: holds, policy path cut: fails" in shown
    own.write_text(own.read_text().replace("0.4", "0.0"))  # without feedback there is no policy path to cut
    assert run("check", "costate_mean", "--world", own, "--out", tmp_path / "r", "--jobs", "1") == 0
    shown = capsys.readouterr().out
    assert "own system alone: total derivative: holds" in shown
    assert "own system alone: total derivative: holds, policy path cut" not in shown


@pytest.mark.usefixtures("undrawn")
def test_a_control_that_spares_one_system_leaves_the_claim_undecided(tmp_path, monkeypatch, capsys):
    real = costate_mean.ClosedPath

    def blind(policy, path):
        return policy if policy.K.shape[-1] == 2 else real(policy, path)

    monkeypatch.setattr(costate_mean, "ClosedPath", blind)
    assert run("check", "costate_mean", "--out", tmp_path, "--jobs", "1") == 1
    shown = capsys.readouterr().out
    assert "undecided" in shown
    assert "double integrator" in shown


@pytest.mark.usefixtures("undrawn")
def test_a_planted_error_in_the_theory_makes_the_claim_fail_and_the_exit_code_1(tmp_path, monkeypatch, capsys):
    truth = costate_mean.linear_value

    def doubled(world, K, k=None):
        value = truth(world, K, k)
        return type(value)(1.02 * value.P, value.p, value.c)

    monkeypatch.setattr(costate_mean, "linear_value", doubled)
    assert run("check", "costate_mean", "--out", tmp_path, "--jobs", "1") == 1
    assert "NO" in capsys.readouterr().out
    assert json.loads((tmp_path / "verdicts.json").read_text())[0]["outcome"] == "fails"


def test_every_claims_figure_can_be_read_in_a_column_of_a_paper(checked):
    """No text is cut, and none stands on another; `test_own_figures` has the control, where labels are not fitted."""
    out, _ = checked
    look, wrong = Look(width=3.3), {}
    for verdict in (Verdict.from_json(entry) for entry in json.loads((out / "verdicts.json").read_text())):
        claim = load_claim(verdict.claim)
        with look.context():
            figure = drawn(claim, claim.rows_from(stored_rows(verdict, out)), claim.statement, look)
            figure.draw_without_rendering()  # puts the texts of legends in their places
            wrong[claim.name] = unreadable(figure)
            freeze(figure)  # what `costate.draw` does before it hands a figure over
        assert figure.get_figwidth() == pytest.approx(3.3)
        assert figure.get_figheight() < 11.5, claim.name  # inches; a sheet of paper
    assert {name: said for name, said in wrong.items() if said} == {}
