"""`costate check` from end to end: one quick run of all claims, looked at from every side."""

import html
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from figures.cli import main
from figures.harness.claim import CLAIM_NAMES, load_claim
from figures.harness.records import Point
from figures.harness.runner import missing, plan, run_missing, run_point


def run(*arguments):
    """The command in this process: exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code


# The study of the impact claims takes as long as all others together: tests/figures/test_impact_claims.py judges them on
# made-up rows, and a small study runs from end to end below.
CHECKED = [name for name in CLAIM_NAMES if not load_claim(name).study]


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Output folder of a quick run of the claims in a process of its own, and what it printed."""
    out = tmp_path_factory.mktemp("check") / "runs"
    command = [sys.executable, "-m", "figures", "check", "--out", str(out), "--jobs", "2", "--seed", "7", *CHECKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)  # an idle machine takes about 190 s
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done


def files(folder: Path):
    return {p: p.stat().st_mtime_ns for p in (folder / "records").rglob("*.json")}


def test_every_claim_comes_out_as_documented(checked):
    out, done = checked
    entries = json.loads((out / "verdicts.json").read_text())
    assert [e["claim"] for e in entries] == list(CHECKED)
    for entry in entries:
        assert entry["outcome"] == entry["expected_outcome"] == load_claim(entry["claim"]).expected_outcome
        assert entry["as_documented"]
        assert entry["claim"] in done.stdout
    assert "about" in done.stderr
    assert all(load_claim(name).runs in done.stderr for name in CHECKED)


def test_verdicts_json_has_the_promised_fields(checked):
    promised = {"claim", "outcome", "expected_outcome", "measured", "target", "standard_error", "samples", "seed", "settings",
                "versions", "revision"}  # fmt: skip
    for entry in json.loads((checked[0] / "verdicts.json").read_text()):
        assert promised <= set(entry)
        assert entry["seed"] == 7
        assert entry["samples"] > 1
        assert any(part["expected_outcome"] == "fails" for part in entry["parts"].values())


def test_every_claim_has_its_pictures_and_the_report_needs_no_network(checked):
    out, _ = checked
    page = html.unescape((out / "report.html").read_text())
    for name in CHECKED:
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / "figures" / f"{name}.svg").read_text()
        assert f'id="{name}"' in page
        assert load_claim(name).statement in page
    assert page.count("<math") == page.count("data:image/svg+xml") == len(CHECKED)
    assert page.count("<h3>") == 8
    assert "is-this-a-bug" in page
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", page)
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)


def test_a_second_run_recomputes_nothing_and_says_so(checked, capsys):
    out, _ = checked
    before = files(out)
    assert run("check", "--out", out, "--jobs", "1", "--seed", "7", "costate_recursion") == 0
    assert files(out) == before
    assert "kept from before" in capsys.readouterr().err
    assert len(json.loads((out / "verdicts.json").read_text())) == len(CHECKED)


def test_one_process_gives_the_same_numbers_as_two(checked, tmp_path):
    out, _ = checked
    points = plan([load_claim("assumption_removed"), load_claim("chaos")], "quick", 7, "cpu")
    for point in points[::5]:
        run_point(point, tmp_path)
        alone, beside = (json.loads(point.path(folder).read_text())["rows"] for folder in (tmp_path, out))
        assert alone == beside


def test_another_seed_gives_other_numbers(tmp_path):
    rows = []
    for seed in (1, 2):
        point = plan([load_claim("assumption_removed")], "quick", seed, "cpu")[-8]
        run_point(point, tmp_path)
        rows.append(json.loads(point.path(tmp_path).read_text())["rows"])
    assert rows[0] != rows[1]


def test_a_damaged_record_is_named_and_recomputed_to_the_same_numbers(checked, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(checked[0], copy)
    victim = next((copy / "records" / "chaos").glob("*.json"))
    rows = json.loads(victim.read_text())["rows"]
    victim.write_text(victim.read_text()[:-40])
    assert run("check", "chaos", "--out", copy, "--jobs", "1", "--seed", "7") == 0
    assert str(victim) in capsys.readouterr().err
    assert json.loads(victim.read_text())["rows"] == rows


def test_a_damaged_verdicts_file_is_set_aside_and_named(checked, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(checked[0], copy)
    (copy / "verdicts.json").write_text("[{")
    assert run("report", "--out", copy) == 2
    assert run("check", "bellman_costate", "--out", copy, "--jobs", "1", "--seed", "7") == 0
    assert "verdicts.damaged" in capsys.readouterr().err
    assert (copy / "verdicts.damaged").read_text() == "[{"


def test_an_older_claim_without_records_is_named_and_does_not_spoil_a_good_check(checked, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(checked[0], copy)
    shutil.rmtree(copy / "records" / "chaos")
    (copy / "figures" / "chaos.svg").unlink()
    assert run("check", "bellman_costate", "--out", copy, "--jobs", "1", "--seed", "7") == 0
    assert "chaos" in capsys.readouterr().err


def test_a_control_that_spares_one_system_leaves_the_claim_undecided(tmp_path, monkeypatch, capsys):
    import figures.claims.continuous.costate_mean as module

    real = module.ClosedPath

    def blind(policy, path):
        return policy if policy.K.shape[-1] == 2 else real(policy, path)

    monkeypatch.setattr(module, "ClosedPath", blind)
    assert run("check", "costate_mean", "--out", tmp_path, "--jobs", "1") == 1
    shown = capsys.readouterr().out
    assert "undecided" in shown
    assert "double integrator" in shown


def test_an_own_system_is_judged_with_the_others_and_told_apart(tmp_path, capsys):
    own = tmp_path / "own.json"
    own.write_text(
        json.dumps({"A": [[0.9]], "B": [[1.0]], "Q": [[1.0]], "R": [[0.5]], "S_x": [[0.1]], "K": [[0.4]], "horizon": 6})
    )
    assert (
        run("check", "costate_mean", "costate_recursion", "--world", own, "--out", tmp_path / "r", "--jobs", "1") == 0
    )
    shown = capsys.readouterr().out
    assert "own system alone: total derivative: holds, policy path cut: fails" in shown
    own.write_text(own.read_text().replace("0.4", "0.0"))  # without feedback there is no policy path to cut
    assert run("check", "costate_mean", "--world", own, "--out", tmp_path / "r", "--jobs", "1") == 1
    assert "own system" in capsys.readouterr().out


def test_stopped_in_the_middle_it_keeps_what_is_finished_and_goes_on(tmp_path, monkeypatch):
    points = plan([load_claim("assumption_removed")], "quick", 0, "cpu")[:4]
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


def test_plot_and_report_work_from_the_records_alone(checked, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(checked[0], copy)
    shutil.rmtree(copy / "figures")
    (copy / "report.html").unlink()
    assert run("plot", "chaos", "--out", copy) == 0
    same = (copy / "figures" / "chaos.png").read_bytes() == (checked[0] / "figures" / "chaos.png").read_bytes()
    assert same
    assert run("report", "--out", copy) == 0
    page = (copy / "report.html").read_text()
    assert all(f'id="{name}"' in page for name in CHECKED)


def test_a_planted_error_in_the_theory_makes_the_claim_fail_and_the_exit_code_1(tmp_path, monkeypatch, capsys):
    import figures.claims.continuous.costate_mean as module

    truth = module.linear_value

    def doubled(world, K):
        value = truth(world, K)
        return type(value)(1.02 * value.P, value.q, value.c)

    monkeypatch.setattr(module, "linear_value", doubled)
    assert run("check", "costate_mean", "--out", tmp_path, "--jobs", "1") == 1
    shown = capsys.readouterr().out
    assert "NO" in shown
    assert json.loads((tmp_path / "verdicts.json").read_text())[0]["outcome"] == "fails"


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


def test_importing_figures_loads_nothing_heavy():
    code = "import sys, figures.cli; print([m for m in ('torch', 'matplotlib', 'pandas', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_forecast_is_said_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("figures.harness.runner.run_missing", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    began = time.perf_counter()
    assert run("check", "--preset", "full", "--out", tmp_path) == 130
    assert time.perf_counter() - began < 20
    said = capsys.readouterr().err
    assert re.search(r"about \d+ (s|min) with \d+ jobs", said)
    assert "goes on from here" in said


SMALL = ("seeds=2", "updates=8", "checkpoints=3", "budgets=1,2", "rows=8", "groups=2,4", "sgd=True", "modulus=2",
         "horizon=1", "names=copy", "width=8")  # fmt: skip


def test_claims_on_a_study_run_it_once_from_end_to_end(tmp_path, capsys):
    changes = [part for change in SMALL for part in ("--set", change)]
    sweep = ("--preset", "quick", "--jobs", "1", "--out", tmp_path, *changes)
    assert run("sweep", "impact_product", *sweep) == 0
    before = files(tmp_path)
    assert {path.parent.name for path in before} == {"impact_runs"}
    assert len(before) == 4
    assert run("sweep", "signal_cap", *sweep) == 0
    assert files(tmp_path) == before
    told = capsys.readouterr()
    assert "(4 kept from before)" in told.err
    assert (tmp_path / "figures" / "impact_product.png").read_bytes().startswith(b"\x89PNG")
    page = html.unescape((tmp_path / "report.html").read_text())
    assert load_claim("impact_product").advice in page
    assert (tmp_path / "impact_product.csv").read_text().count("checkpoint,") > 10
