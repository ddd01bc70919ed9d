"""`costate pretrain --objective`: exact losses by whole documents, the likelihood beside it, going on, refusals."""

import itertools
import json
import shutil

import pandas as pd
import pytest
import torch

from agents.training.pretraining import next_token_loss
from envs.corpus import Corpus
from envs.registry import make_world
from figures.cli import main
from figures.commands import pretrain as command
from figures.drawing.checkpoints import draw_objectives
from figures.impact.checkpoints import Source, read_checkpoints
from theory.tokens.dynamic_programming import best_words

KNOBS = {"modulus": 2, "horizon": 1, "names": "copy"}
COPY = [part for name, value in KNOBS.items() for part in ("--set", f"{name}={value}")]
SIZES = ("--updates", 8, "--checkpoints", 2, "--batch", 8, "--width", 8, "--layers", 1, "--heads", 1)
CORPUS = ("--quality", 0.7, "--noise", 0.2)
WORLD = make_world("TokenSkills", **KNOBS)


def run(out, *options):
    with pytest.raises(SystemExit) as stopped:
        main([str(part) for part in ("pretrain", *COPY, *SIZES, *CORPUS, *options, "--out", out)])
    return stopped.value.code


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    for name in ("draw_pretraining", "draw_objectives"):
        monkeypatch.setattr(command, name, lambda *arguments: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    real, command.draw_objectives = command.draw_objectives, lambda *arguments: None
    try:
        assert run(out, "--objective", "mean", "--group", 4) == 0
    finally:
        command.draw_objectives = real
    return out


def table(folder):
    return pd.read_csv(folder / "pretraining.csv")


def exact_nats(network):
    """The next-token loss of every document, weighed by its chance."""
    corpus, total = Corpus(WORLD, best_words(WORLD), 0.7, 0.2), 0.0
    words = torch.tensor(list(itertools.product(range(WORLD.V), repeat=WORLD.horizon)))
    for prompt, chances in zip(WORLD.prompts, corpus.chances(words), strict=True):
        for word, chance in zip(words, chances, strict=True):
            loss = next_token_loss(network, torch.cat([prompt, word])[None])
            total += float(chance) / len(WORLD.prompts) * float(loss.detach())
    return total


def test_the_exact_loss_is_that_of_all_documents_and_the_likelihood_is_the_plain_run(whole, tmp_path):
    assert run(tmp_path / "plain") == 0
    mine, plain = table(whole), table(tmp_path / "plain")
    assert mine["updates"].tolist() == plain["updates"].tolist() == [0, 4, 8]
    for folder, column in ((whole, "nats"), (tmp_path / "plain", "likelihood nats")):
        kept = read_checkpoints(folder, WORLD, Source())
        assert mine[column].tolist() == pytest.approx([exact_nats(each.policy) for each in kept], rel=1e-10)
    assert mine["likelihood J"].tolist() == pytest.approx(plain["J"].tolist(), rel=1e-12)
    assert abs(mine["nats"][2] - mine["likelihood nats"][2]) > 1e-4
    assert mine["nats"][0] == pytest.approx(mine["likelihood nats"][0], rel=1e-12), "one first draw"
    assert mine["loss"][1:].between(0, 1).all()
    assert json.loads((whole / "model.json").read_text())["objective"] == "mean"
    assert "objective" not in json.loads((tmp_path / "plain" / "model.json").read_text())
    assert not {"nats", "likelihood nats"} & set(plain)


@pytest.mark.parametrize("options", [("--objective", "mean", "--group", 4), ()])
def test_a_run_that_lost_its_end_goes_on_to_the_same_numbers(options, whole, tmp_path):
    out = tmp_path / "run"
    if options:
        shutil.copytree(whole, out)
    else:
        assert run(out) == 0
    before = table(out).to_csv()
    (out / "update-000008.pt").unlink()
    (out / "pretraining.csv").unlink()
    assert run(out, *options, "--resume") == 0
    assert table(out).to_csv() == before
    assert run(out, *options, "--resume") == 0, "a run that has ended is shown again"
    assert table(out).to_csv() == before


def test_thoughts_lengthen_the_network_and_leave_checkpoints_that_impact_reads(tmp_path):
    assert run(tmp_path, "--objective", "rpt", "--group", 2, "--thoughts", 1) == 0
    kept = read_checkpoints(tmp_path, WORLD, Source())
    assert [each.policy.length for each in kept] == [WORLD.longest + 1] * 3
    assert table(tmp_path)["nats"].notna().all()


def resumes(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--group", 4), "--group is for a reward"),
        (("--thoughts", 1), "--thoughts is for a reward"),
        (("--objective", "rpt", "--group", 4, "--resume"), "--objective 'rpt' is not that of the run"),
        (("--objective", "mean", "--group", 5, "--resume"), "--group 5 is not that of the run"),
        (("--objective", "mean", "--group", 4, "--seed", 1, "--resume"), "--seed 1 is not that of the run"),
        (("--resume",), "--group None is not that of the run"),
        (("--objective", "mean", "--group", 10**9), "batch=8 and group=1000000000"),
        (("--objective", "mean", "--thoughts", 30), ""),
    ],
)
def test_bad_requests_are_one_line_and_touch_nothing(options, named, whole, tmp_path, capsys):
    out = resumes(whole, tmp_path)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    assert run(out, *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"costate: {named}")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_there_must_be_a_run_to_go_on_from_and_its_checkpoints_must_be_sound(whole, tmp_path, capsys):
    assert run(tmp_path / "new", "--resume") == 2
    assert "--resume finds no pretraining run" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    out = resumes(whole, tmp_path)
    (out / "update-000008.pt").write_bytes(b"torn")
    assert run(out, "--objective", "mean", "--group", 4, "--resume") == 2
    told = capsys.readouterr().err
    assert "update-000008.pt is damaged" in told
    assert told.strip().endswith("delete it, and the run goes on from the one before")
    kept = torch.load(whole / "update-000008.pt", weights_only=True)
    torch.save({"state": kept["state"], "updates": 8, "tokens": 1}, out / "update-000008.pt")  # as older versions wrote
    assert run(out, "--objective", "mean", "--group", 4, "--resume") == 2
    assert "is damaged" in capsys.readouterr().err


def test_the_picture_shows_both_curves_and_the_corpus_learned(tmp_path, monkeypatch):
    rows = pd.DataFrame({"tokens": [0, 10, 100], "nats": [2.0, 1.5, 3.0], "likelihood nats": [2.0, 1.4, 1.2]})
    rows = rows.assign(J=[0.1, 0.2, 0.3], **{"likelihood J": [0.1, 0.3, 0.5]})
    seen = []
    monkeypatch.setattr("figures.drawing.checkpoints.save", lambda figure, stem: seen.append(figure))
    draw_objectives(rows, "rpt", 1.1, 0.6, "title", tmp_path / "picture")
    left, right = seen[0].axes
    for axis, column, best in ((left, "nats", 1.1), (right, "J", 0.6)):
        curves = {line.get_label(): line.get_ydata().tolist() for line in axis.lines if len(line.get_ydata()) == 3}
        assert curves == {"rpt": rows[column].tolist(), "likelihood": rows[f"likelihood {column}"].tolist()}
        assert [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == "--"] == [best]
