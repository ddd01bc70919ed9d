"""`costate list`, `--version` and `completion`: what they show, in 80 columns, at once."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from agents.recipes.learners import LEARNERS
from envs.registry import WORLDS
from figures.cli import COMMANDS, main
from figures.commands import list_claims
from figures.harness import code
from figures.harness.claim import ASSUMPTIONS
from figures.harness.costs import Costs
from figures.harness.registry import CLAIM_NAMES, load_claims

ROOT = Path(__file__).resolve().parents[3]


def shown(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_the_list_holds_everything_in_80_columns(capsys, tmp_path):
    text = shown(capsys, "list", "--out", tmp_path)
    words = " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    for claim in load_claims([]):
        assert f" {claim.name} {claim.documented} - " in words
        assert claim.statement in words
    assert all(f" {key} {meaning}" in words for key, meaning in ASSUMPTIONS.items())
    for name, entry in WORLDS.items():
        assert f" {name} {entry.description} {', '.join(entry.options)}" in words
    assert all(f" {name} " in words for name in LEARNERS)
    assert f"verdict: none in {tmp_path} yet" in words


@pytest.mark.parametrize("kind", ["claims", "worlds", "learners"])
def test_one_kind_is_listed_alone(capsys, kind, tmp_path):
    words = set(shown(capsys, "list", kind, "--out", tmp_path).split())
    names = {"claims": set(CLAIM_NAMES), "worlds": set(WORLDS), "learners": set(LEARNERS)}
    assert names.pop(kind) <= words
    assert not words & set().union(*names.values())


def test_verdicts_and_costs_come_from_the_folder_and_else_from_the_table(capsys, tmp_path, monkeypatch):
    table = Costs(presets={"quick": {"chaos": 300.0, "costate_mean": 1.0}}, machine="an abacus", date="1642-01-01")
    monkeypatch.setattr(list_claims, "shipped", lambda: table)
    (tmp_path / "a.json").write_text(json.dumps({"seconds": 41.0}))
    verdict = {"claim": "costate_mean", "outcome": "undecided", "as_documented": False}
    run = {"preset": "quick", "records": ["a.json", "a.json"]}
    unseen = {"claim": "error_map", "outcome": "not judged", "as_documented": False}  # nothing there is off
    (tmp_path / "verdicts.json").write_text(json.dumps([{**verdict, "run": run}, unseen]))
    words = " ".join(shown(capsys, "list", "claims", "--out", tmp_path).split())
    assert " costate_mean holds undecided NO 82 s A1 A2 A4 A5 " in words
    assert " error_map fails not judged - A" in words
    assert f"verdict: from {tmp_path} (quick) " in words
    assert " chaos holds - 5 min A1" in words
    assert "an abacus" in words
    (tmp_path / "verdicts.json").write_text("[{")  # damaged: there is none, and nothing is set aside by looking
    words = " ".join(shown(capsys, "list", "claims", "--out", tmp_path).split())
    assert " costate_mean holds - 1 s" in words
    assert (tmp_path / "verdicts.json").read_text() == "[{"


def test_the_list_takes_less_than_a_second_and_loads_no_torch(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "figures", "list", "--out", str(tmp_path)]
    before = os.times()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 0
    seconds = sum(after[2:4]) - sum(before[2:4])  # of this child's own processor time: other programs do not count
    assert seconds < 1.0
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "numpy", "pandas", "gymnasium", "matplotlib"}
    assert "figures.harness.catalogue" in loaded


def test_the_version_is_the_packages_with_the_commit_of_a_checkout(capsys, monkeypatch):
    monkeypatch.setattr(code, "_commit", lambda: "abc123+changes")
    assert shown(capsys, "--version") == f"costate {version('costate-lab')} (abc123+changes)\n"
    monkeypatch.setattr(code, "_commit", lambda: "")
    assert shown(capsys, "--version") == f"costate {version('costate-lab')}\n"


def test_a_package_in_another_repository_has_no_commit_of_its_own(tmp_path, monkeypatch):
    """A virtual environment often lies in the user's own repository."""
    git = ("git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    assert code._commit().removesuffix("+changes").isalnum()
    monkeypatch.setattr(code, "ROOT", tmp_path / "site-packages")
    (tmp_path / "site-packages").mkdir()
    assert code._commit() == ""


# ---- completion


@pytest.fixture(scope="module")
def bash_script():
    bash = shutil.which("bash")
    assert bash, "bash is needed for this test"
    command = [sys.executable, "-m", "figures", "completion", "bash"]
    return bash, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_options_and_names(capsys, shell):
    script = shown(capsys, "completion", shell)
    for word in (*COMMANDS, *CLAIM_NAMES, *LEARNERS, *WORLDS, "tiny"):
        assert word in script
    assert all(option in script for option in ("--preset", "--learner") if shell != "tcsh")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("ch",), {"check"}),
        (("check", "costate_m"), {"costate_mean"}),
        (("check", "--preset", ""), {"tiny", "quick", "full"}),
        (("train", "--learner", "grp"), {"grpo"}),
        (("train", "--world", "TokenP"), {"TokenParity"}),
        (("list", ""), {"claims", "worlds", "learners"}),
        (("check", "--see"), {"--seed"}),
        (("check", "--prest"), set()),
    ],
)
def test_bash_completes_what_is_typed(bash_script, typed, offered):
    bash, script = bash_script
    ask = f"COMP_WORDS=(costate {' '.join(repr(w) for w in typed)}); COMP_CWORD={len(typed)}; COMP_LINE=x; COMP_POINT=1"
    function = script.split(" -F ")[-1].split()[0]
    done = subprocess.run(
        [bash, "-c", f'{script}\n{ask}\n{function}\necho "${{COMPREPLY[@]}}"'], capture_output=True, text=True
    )
    assert set(done.stdout.split()) == offered, done.stderr
