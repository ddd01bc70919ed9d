"""`costate pretrain` and `costate impact` from end to end: files, numbers by a second road, the choice, and bad usage."""

import json
import shutil

import pandas as pd
import pytest
import torch

from agents.policies.transformer import Transformer
from agents.recipes.learners import grpo
from agents.sampling.token_rewards import token_returns
from agents.training.noise import noise_of
from agents.training.pretraining import next_token_loss
from agents.training.settings import TrainingSettings
from agents.training.token_task import TokenTask
from agents.training.trainer import Trainer
from envs.corpus import Corpus
from envs.skills import skills
from envs.token_tasks import sum_and_stop
from figures.cli import main
from figures.impact.checkpoints import Source, read_checkpoints
from figures.impact.numbers import PREDICTORS, Definitions, describe_policy
from theory.tokens.dynamic_programming import best_words

COPY = ("--world", "TokenSkills", "--set", "modulus=2", "--set", "horizon=1", "--set", "names=copy")
STOP = ("--world", "TokenSumAndStop", "--set", "modulus=2", "--set", "horizon=2")
SIZES = ("--updates", 8, "--checkpoints", 2, "--batch", 8, "--width", 8, "--heads", 1, "--layers", 1)
WORLD = skills(2, 1, "copy")  # three tokens
GRID = [0, 4, 8]
CRITERION = "snr x best_of"
USER = """
import torch
from torch import nn


class Recurrent(nn.Module):
    def __init__(self, V):
        super().__init__()
        self.tokens = nn.Embedding(V, 6)
        self.gru = nn.GRU(6, 6, batch_first=True)
        self.out = nn.Linear(6, V)

    def forward(self, x):
        return self.out(self.gru(x)[0])


def build(world):
    return Recurrent(world.V)
"""


def run(*arguments):
    """The command in this process: exit code."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    return stopped.value.code


def pretrain(out, *options, world=COPY):
    return run("pretrain", *world, *SIZES, *options, "--out", out)


def impact(folder, *options):
    return run("impact", "--checkpoints", folder, *options)


def read(path):
    return pd.read_csv(path)


def contents(folder):
    """Every file's bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def undrawn(monkeypatch):
    """No pictures: they are looked at once, and take most of the time."""
    monkeypatch.setattr("figures.commands.pretrain.draw_pretraining", lambda *arguments: None)
    monkeypatch.setattr("figures.commands.impact.draw_impact", lambda *arguments: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run, drawn."""
    out = tmp_path_factory.mktemp("whole")
    assert pretrain(out) == 0
    return out


@pytest.fixture(scope="module")
def known(whole):
    """What is known of its checkpoints."""
    return [describe_policy(WORLD, checkpoint.policy) for checkpoint in loaded(whole)]


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of the run without its picture."""
    shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("*.png", "*.svg"))
    return tmp_path / "run"


def loaded(folder, world=WORLD, **source):
    return read_checkpoints(folder, world, Source(**source))


def assert_same(row, truth):
    assert {name: row[name] for name in truth} == pytest.approx(truth, rel=1e-12, abs=1e-15)


def exact_return(world, network):
    """The mean over prompts of all words' chances, by the network on whole contexts, times their returns."""
    words = torch.cartesian_prod(*[torch.arange(world.V)] * world.horizon).reshape(-1, world.horizon)
    total, length = 0.0, world.prompts.shape[1]
    with torch.no_grad():
        for i, prompt in enumerate(world.prompts):
            x = network.embed(torch.cat([prompt.expand(len(words), -1), words[:, :-1]], 1))
            log_pi = torch.log_softmax(network(x), -1)[:, length - 1 :]
            p = log_pi.gather(-1, words[..., None])[..., 0].sum(-1).exp()
            R = token_returns(world, torch.full((len(words),), i), words)
            total += float(world.weights[i] * (p @ R))
    return total


def test_pretraining_leaves_checkpoints_numbers_and_a_picture(whole):
    names = {f"update-{done:06d}.pt" for done in GRID}
    assert {p.name for p in whole.iterdir()} == {
        *names,
        "model.json",
        "pretraining.csv",
        "pretraining.png",
        "pretraining.svg",
    }
    assert (whole / "pretraining.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (whole / "pretraining.svg").read_text()
    model = json.loads((whole / "model.json").read_text())
    assert model == {
        "world": "TokenSkills",
        "world_options": {"horizon": 1, "modulus": 2, "names": "copy"},
        "seed": 0,
        "quality": 1.0,
        "noise": 0.0,
        "coverage": 1.0,
        "updates": 8,
        "checkpoints": 2,
        "batch": 8,
        "width": 8,
        "layers": 1,
        "heads": 1,
        "rate": 0.005,
    }


def test_its_rows_are_the_numbers_of_the_checkpoints_that_it_leaves(whole, known):
    table, checkpoints = read(whole / "pretraining.csv"), loaded(whole)
    assert table["updates"].tolist() == GRID
    assert table["tokens"].tolist() == [done * 8 * 4 for done in GRID]  # eight documents of three and one tokens
    assert [checkpoint.tokens for checkpoint in checkpoints] == table["tokens"].tolist()
    assert [checkpoint.name for checkpoint in checkpoints] == [f"update-{done:06d}" for done in GRID]
    for row, numbers, checkpoint in zip(table.to_dict("records"), known, checkpoints, strict=True):
        assert_same(row, numbers)
        assert row["J"] == pytest.approx(exact_return(WORLD, checkpoint.policy), rel=1e-12)
    assert table["J"].nunique() == len(GRID)


def test_it_is_a_plain_loop_over_documents_of_that_corpus(tmp_path, capsys, undrawn):
    """Network, documents and optimiser by hand, every knob away from its default."""
    knobs = {"quality": 0.6, "noise": 0.2, "coverage": 0.5, "rate": 0.02, "seed": 3, "layers": 2, "heads": 2}
    assert pretrain(tmp_path, *(part for name, value in knobs.items() for part in (f"--{name}", value))) == 0
    corpus = Corpus(WORLD, best_words(WORLD), 0.6, 0.2, 0.5)
    network, rng = Transformer(3, None, 8, 2, 2, 4, seed=3), noise_of("documents", 3)
    optimiser, checkpoints, losses = torch.optim.Adam(network.parameters(), lr=0.02), loaded(tmp_path), []
    table = read(tmp_path / "pretraining.csv").set_index("updates")
    for done in range(9):
        if done in GRID:
            kept = checkpoints[GRID.index(done)].policy
            for p, q in zip(kept.parameters(), network.parameters(), strict=True):
                torch.testing.assert_close(p, q.detach(), rtol=1e-9, atol=1e-12, check_dtype=True)
            if losses:
                assert table["loss"][done] == pytest.approx(sum(losses) / len(losses), rel=1e-9)
            losses = []
        optimiser.zero_grad()
        loss = next_token_loss(network, corpus.draw(8, rng))
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    printed = capsys.readouterr().out
    assert f"3 checkpoints, pretraining.csv and pretraining.png are in {tmp_path}" in printed
    assert f"{table['J'][8]:.4f}" in printed
    assert f"{table['skill 2'][8]:.4f}" in printed


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(whole, tmp_path, undrawn):
    assert pretrain(tmp_path / "same") == 0
    assert pretrain(tmp_path / "other", "--seed", 1) == 0
    assert (tmp_path / "same" / "pretraining.csv").read_bytes() == (whole / "pretraining.csv").read_bytes()
    assert (tmp_path / "same" / "model.json").read_bytes() == (whole / "model.json").read_bytes()
    one, other = read(whole / "pretraining.csv"), read(tmp_path / "other" / "pretraining.csv")
    assert bool((one["J"] - other["J"]).abs().gt(1e-4).all())


def test_again_with_other_sizes_leaves_no_old_checkpoints(folder, undrawn):
    assert pretrain(folder, "--updates", 5, "--width", 4) == 0
    names = [path.stem for path in sorted(folder.glob("*.pt"))]
    assert names == ["update-000000", "update-000004", "update-000005"]
    assert read(folder / "pretraining.csv")["updates"].tolist() == [0, 4, 5]
    assert json.loads((folder / "model.json").read_text())["width"] == 4
    assert loaded(folder)[0].policy.width == 4


def test_impact_prints_a_row_a_checkpoint_names_one_and_draws(folder, known, capsys):
    before = contents(folder)
    assert impact(folder) == 0
    lines = capsys.readouterr().out.splitlines()
    table = read(folder / "impact.csv")
    assert {name: body for name, body in contents(folder).items() if not name.startswith("impact")} == before
    assert (folder / "impact.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "impact.svg").read_text()
    assert set(PREDICTORS) <= set(table)
    assert "gain" not in table
    for row, numbers, checkpoint in zip(table.to_dict("records"), known, loaded(folder), strict=True):
        assert (row["checkpoint"], row["tokens"]) == (checkpoint.name, checkpoint.tokens)
        assert_same(row, numbers)
    assert table["predicted"].tolist() == pytest.approx((table[CRITERION] / table[CRITERION].max()).tolist())
    for line, row in zip(lines[1:4], table.to_dict("records"), strict=True):
        assert line.split()[:2] == [row["checkpoint"], str(row["tokens"])]
        shown = [row[name] for name in ("J", "H", "pass_at_k", "costate", "snr", "best_of", "power", "predicted")]
        assert line.split()[2:] == [f"{x:.4f}" for x in shown]
    assert_advice(lines[4:], table)
    assert lines[-1] == f"impact.csv (all {len(table.columns)} columns) and impact.png are in {folder}"


def best(table, name):
    return table["checkpoint"][max(range(len(table)), key=lambda i: table[name][i])]


def assert_advice(lines, table):
    """The named one has the largest criterion; the others agree or name their own."""
    assert lines[0] == f"start RL from: {best(table, CRITERION)} ({'largest ' + PREDICTORS[CRITERION]})"
    for line, name in zip(lines[1:3], ("power", "costate x rest"), strict=True):
        same = best(table, name) == best(table, CRITERION)
        assert line.strip() == f"{PREDICTORS[name]} {'agrees' if same else 'would take ' + best(table, name)}"


def test_the_advice_is_the_best_row_wherever_it_is(folder, tmp_path, capsys, undrawn):
    """Checkpoints of different sharpness, so that criteria differ; none of the files holds its tokens."""
    shutil.rmtree(folder)
    folder.mkdir()
    for i, share in enumerate((0.2, 8.0, 1.0)):
        network = Transformer(3, None, 8, 1, 1, 4, seed=i)
        state = {name: x * (share if name.startswith("head") else 1.0) for name, x in network.state_dict().items()}
        torch.save(state, folder / f"step-{i + 9}.pt")
    assert impact(folder, *COPY, "--heads", 1) == 0
    table, lines = read(folder / "impact.csv"), capsys.readouterr().out.splitlines()
    assert table["checkpoint"].tolist() == ["step-9", "step-10", "step-11"]
    assert "tokens" not in table
    assert "tokens" not in lines[0]
    assert_advice(lines[4:], table)
    assert len({best(table, name) for name in (CRITERION, "power", "costate x rest")}) > 1


def test_definitions_reach_the_numbers(folder, known, undrawn):
    assert impact(folder, "--k", 3, "--eps", 0.1, "--alpha", 2.5) == 0
    rows = read(folder / "impact.csv").to_dict("records")
    for row, default, checkpoint in zip(rows, known, loaded(folder), strict=True):
        assert_same(row, describe_policy(WORLD, checkpoint.policy, Definitions(k=3, eps=0.1, alpha=2.5)))
        assert row["best_of"] != pytest.approx(default["best_of"], rel=1e-3)


def trained_gain(world, policy, seed=0, updates=2, group=8, rows=64, rate=0.001):
    """GRPO from this checkpoint alone, and J before and after by enumeration."""
    settings = TrainingSettings(updates, rows // group, group, rate=rate, optimiser="adam")
    trainer = Trainer(TokenTask(world), grpo(), [policy], [seed], settings)
    for _ in range(updates):
        trainer.step()
    return exact_return(world, trainer.policies[0]) - exact_return(world, policy)


@pytest.mark.parametrize("settings", [{}, {"seed": 4, "group": 2, "rows": 16, "rate": 0.02}], ids=["default", "other"])
def test_a_budget_measures_the_gain_of_that_many_updates(folder, capsys, undrawn, settings):
    before = contents(folder)
    assert impact(folder, "--budget", 2, *(part for name, x in settings.items() for part in (f"--{name}", x))) == 0
    table = read(folder / "impact.csv")
    truth = [trained_gain(WORLD, checkpoint.policy, **settings) for checkpoint in loaded(folder)]
    assert table["gain"].tolist() == pytest.approx(truth, rel=1e-9, abs=1e-9)
    assert (table["J_after"] - table["J"]).tolist() == pytest.approx(truth, abs=1e-9)
    assert min(abs(gain) for gain in truth) > 1e-5
    assert contents(folder).items() >= before.items()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-1] == "gain"
    assert [line.split()[-1] for line in lines[1:4]] == [f"{gain:.4f}" for gain in truth]
    named = truth[table["checkpoint"].tolist().index(best(table, CRITERION))]
    most = f"measured: {best(table, 'gain')} gained most, {max(truth):.4f}; the one named gained {named:.4f}"
    assert lines[7].strip() == most


def test_the_world_named_overrides_the_files(folder, undrawn):
    """First a keyword alone, then another world of three tokens altogether."""
    assert impact(folder, "--set", "sparse=false", "--set", "gamma=0.5") == 0
    dense = skills(2, 1, "copy", sparse=False, gamma=0.5)
    for row, checkpoint in zip(read(folder / "impact.csv").to_dict("records"), loaded(folder), strict=True):
        assert_same(row, describe_policy(dense, checkpoint.policy))
    assert impact(folder, *STOP) == 0
    stop = sum_and_stop(2, 2)
    for row, checkpoint in zip(read(folder / "impact.csv").to_dict("records"), loaded(folder), strict=True):
        assert_same(row, describe_policy(stop, checkpoint.policy))


def test_another_world_takes_no_keywords_from_the_file(folder, undrawn):
    """TokenParity has no `names` and no `modulus`: its own defaults, except for what the command sets."""
    assert impact(folder, "--world", "TokenParity", "--set", "V=3", "--set", "horizon=2") == 0
    assert len(read(folder / "impact.csv")) == len(GRID)


def test_results_go_elsewhere_and_the_checkpoints_folder_stays_as_it_is(folder, tmp_path, capsys, undrawn):
    before, out = contents(folder), tmp_path / "deep" / "results"
    assert impact(folder, "--out", out) == 0
    assert contents(folder) == before
    assert {path.name for path in out.iterdir()} == {"impact.csv"}  # its picture is not drawn here
    assert f"are in {out}" in capsys.readouterr().out


@pytest.mark.parametrize("site", [None, "gru"])
def test_a_users_network_is_judged_and_trained(tmp_path, uses_global_rng, undrawn, site):
    file, checkpoints = tmp_path / "user.py", tmp_path / "run"
    file.write_text(USER)
    checkpoints.mkdir()
    scope, rng = {"__name__": "user_by_hand"}, torch.Generator().manual_seed(2)
    exec(USER, scope)
    for name in ("ep1", "ep2"):
        network = scope["build"](WORLD)
        state = {key: torch.randn(x.shape, generator=rng) for key, x in network.state_dict().items()}
        torch.save({"model_state_dict": state, "epoch": 1}, checkpoints / f"{name}.pt")
    source = ("--model", f"{file}:build", "--embedding", "tokens.weight", *(("--site", site) if site else ()))
    assert impact(checkpoints, *COPY, *source, "--budget", 2, "--rate", 0.01) == 0
    table = read(checkpoints / "impact.csv")
    own = loaded(checkpoints, build=f"{file}:build", embedding="tokens.weight", site=site)
    assert table["checkpoint"].tolist() == ["ep1", "ep2"]
    for row, checkpoint in zip(table.to_dict("records"), own, strict=True):
        assert_same(row, describe_policy(WORLD, checkpoint.policy, Definitions(site="layer1" if site else "embedding")))
        assert row["J"] == pytest.approx(exact_return(WORLD, checkpoint.policy), rel=1e-12)
        assert row["gain"] == pytest.approx(trained_gain(WORLD, checkpoint.policy, rate=0.01), rel=1e-9, abs=1e-9)


def test_an_end_token_from_end_to_end(tmp_path, capsys, undrawn):
    stop = sum_and_stop(2, 2)
    assert pretrain(tmp_path, world=STOP) == 0
    assert impact(tmp_path, "--budget", 2) == 0
    before, after = read(tmp_path / "pretraining.csv"), read(tmp_path / "impact.csv")
    rows = zip(before.to_dict("records"), after.to_dict("records"), loaded(tmp_path, stop), strict=True)
    for earlier, row, checkpoint in rows:
        truth = describe_policy(stop, checkpoint.policy)
        assert_same(earlier, truth)
        assert_same(row, truth)
        assert row["J"] == pytest.approx(exact_return(stop, checkpoint.policy), rel=1e-12)
        assert row["gain"] == pytest.approx(trained_gain(stop, checkpoint.policy), rel=1e-9, abs=1e-9)
    assert_advice(capsys.readouterr().out.splitlines()[-6:], after)


def test_where_there_is_no_signal_it_says_so(folder, capsys, undrawn):
    """A network that emits the first token with certainty, whatever it reads."""
    state = torch.load(folder / "update-000008.pt", weights_only=True)["state"]
    for path in folder.glob("*.pt"):
        path.unlink()
    state["head.weight"].zero_()
    torch.save(state, folder / "mute.pt")
    assert impact(folder) == 0
    assert "no checkpoint has a signal and a headroom" in capsys.readouterr().out
    assert read(folder / "impact.csv")["predicted"].tolist() == [0.0]


def assert_refused(capsys, code, named):
    assert code == 2
    message = capsys.readouterr().err.strip()
    assert named in message
    assert message.startswith("costate: ")
    assert "\n" not in message
    assert "Traceback" not in message


BAD_PRETRAINING = {
    "a linear-quadratic world": (("--world", "LQScalar"), "--world LQScalar"),
    "an unknown world": (("--world", "TokenSkill"), "TokenSkills"),
    "a world of chance": (("--world", "TokenGarnet"), "world must be deterministic"),
    "no such keyword": ((*COPY, "--set", "modulo=3"), "modulo"),
    "no value": ((*COPY, "--set", "modulus"), "--set modulus"),
    "no such skill": (("--world", "TokenSkills", "--set", "names=copi"), "copy"),
    "too much quality": ((*COPY, "--quality", 1.5), "quality"),
    "too little noise": ((*COPY, "--noise", -0.1), "noise"),
    "no number for coverage": ((*COPY, "--coverage", "nan"), "coverage"),
    "no updates": ((*COPY, "--updates", 0), "--updates"),
    "no checkpoints": ((*COPY, "--checkpoints", 0), "--checkpoints"),
    "no documents": ((*COPY, "--batch", 0), "--batch"),
    "no width": ((*COPY, "--width", 0), "--width"),
    "heads that do not fit": ((*COPY, "--heads", 3), "heads"),
    "a rate of 0": ((*COPY, "--rate", 0), "rate"),
    "a rate without end": ((*COPY, "--rate", "inf"), "rate"),
    "too large": (("--world", "TokenSkills", "--set", "horizon=12"), "horizon=12"),
    "a seed below 0": ((*COPY, "--seed", -1), "--seed"),
    "documents for which there is no memory": ((*COPY, "--batch", 10**12), "batch=1000000000000"),
    "a width for which there is no memory": ((*COPY, "--width", 10**6), "width=1000000"),
    "checkpoints without end": ((*COPY, "--updates", 10**9, "--checkpoints", 10**9), "checkpoints"),
    "digits of another script": ((*COPY, "--updates", "\u0663"), "--updates"),
    "nowhere to write": ((*COPY, "--out", "/dev/null/x"), "--out"),
}


@pytest.mark.parametrize("case", BAD_PRETRAINING)
def test_bad_pretraining_is_one_line_exit_2_and_touches_nothing(case, folder, tmp_path, capsys):
    options, named = BAD_PRETRAINING[case]
    before = contents(folder)
    for out in (folder, tmp_path / "new"):
        assert_refused(capsys, run("pretrain", *SIZES, "--out", out, *options), named)
    assert contents(folder) == before
    assert not (tmp_path / "new").exists()


BAD_IMPACT = {
    "no budget": (("--budget", 0), "--budget"),
    "a budget below 0": (("--budget", -1), "--budget"),
    "k of 1": (("--k", 1), "k must"),
    "no ball": (("--eps", 0), "eps must"),
    "no number for the ball": (("--eps", "nan"), "eps must"),
    "no power": (("--alpha", 1), "alpha must"),
    "another vocabulary": (("--set", "modulus=3"), "vocabulary"),
    "a longer answer": (("--set", "horizon=3"), "reads 4 tokens"),
    "a linear-quadratic world": (("--world", "LQScalar"), "--world LQScalar"),
    "an unknown world": (("--world", "TokenSkill"), "TokenSkills"),
    "no such keyword": (("--set", "modulo=3"), "modulo"),
    "no value": (("--set", "modulus"), "--set modulus"),
    "heads that do not fit": (("--heads", 3), "heads"),
    "no heads": (("--heads", 0), "heads"),
    "a model without a colon": (("--model", "user"), "--model user"),
    "a group that does not divide": (("--budget", 2, "--group", 7), "group"),
    "a group of 1": (("--budget", 2, "--group", 1), "group"),
    "no rows": (("--budget", 2, "--rows", 0), "--rows"),
    "a rate of 0": (("--budget", 2, "--rate", 0), "rate"),
    "no number for the rate": (("--budget", 2, "--rate", "nan"), "rate"),
    "no whole number": (("--budget", 1.5), "--budget"),
    "a ball below rounding": (("--eps", "1e-300"), "eps must"),
    "a power beyond floats": (("--alpha", "1e308"), "alpha <="),
    "rows for which there is no memory": (("--budget", 2, "--rows", 8 * 10**12), "group=8 make rows"),
    "a rate that is none, before RL is asked for": (("--rate", "nan"), "rate"),
    "digits of another script": (("--budget", "\u0663"), "--budget"),
}


@pytest.mark.parametrize("case", BAD_IMPACT)
def test_bad_impact_is_one_line_exit_2_and_touches_nothing(case, folder, tmp_path, capsys):
    options, named = BAD_IMPACT[case]
    before = contents(folder)
    assert_refused(capsys, impact(folder, *options), named)
    assert_refused(capsys, impact(folder, *options, "--out", tmp_path / "new"), named)
    assert contents(folder) == before
    assert not (tmp_path / "new").exists()


def test_folders_without_checkpoints_or_world_are_refused(folder, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    for place in (empty, tmp_path / "missing"):
        for world in ((), COPY):
            assert_refused(capsys, impact(place, *world, "--out", tmp_path / "new"), f"--checkpoints {place}")
    (folder / "model.json").unlink()
    before = contents(folder)
    assert_refused(capsys, impact(folder, "--out", tmp_path / "new"), "--world")
    assert_refused(capsys, impact(folder, *COPY, "--out", tmp_path / "new"), "--heads")
    (folder / "model.json").write_text("{")
    assert_refused(capsys, impact(folder, "--out", tmp_path / "new"), "model.json is damaged")
    assert_refused(capsys, impact(folder, *COPY, "--heads", 1, "--out", tmp_path / "new"), "model.json is damaged")
    (folder / "model.json").unlink()
    assert contents(folder) == before
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "missing").exists()
    assert not list(empty.iterdir())


@pytest.mark.parametrize("junk", [b"", b"\x80\x04\x95junk", b"junk"])
def test_a_damaged_checkpoint_is_one_line_and_names_the_file(folder, capsys, junk):
    (folder / "update-000004.pt").write_bytes(junk)
    before = contents(folder)
    assert_refused(capsys, impact(folder), f"checkpoint {folder / 'update-000004.pt'}")
    assert contents(folder) == before


def test_results_that_cannot_be_written_are_refused_before_any_work(folder, capsys):
    assert_refused(capsys, impact(folder, "--out", "/dev/null/x"), "--out /dev/null/x")


def test_the_folder_of_checkpoints_must_be_named(capsys):
    assert_refused(capsys, run("impact", *COPY), "--checkpoints")
    assert_refused(capsys, run("pretrain", *COPY), "--out")


def test_a_site_is_honoured_and_what_has_no_place_is_refused(folder, known, capsys, undrawn):
    assert impact(folder, "--site", "embedding") == 0
    at_embedding = read(folder / "impact.csv")["costate"].tolist()
    assert at_embedding != pytest.approx([numbers["costate"] for numbers in known], rel=1e-3)
    at_site = [describe_policy(WORLD, one.policy, Definitions(site="embedding"))["costate"] for one in loaded(folder)]
    assert at_embedding == pytest.approx(at_site, rel=1e-12)
    capsys.readouterr()
    for options, named in (
        (("--site", "blocks.7"), "--site"),
        (("--embedding", "x"), "--embedding"),
        (("--alpha", "inf"), "alpha"),
    ):
        assert impact(folder, *options) == 2
        assert capsys.readouterr().err.strip().startswith(f"costate: {named}")
    (path,) = sorted(folder.glob("*.pt"))[:1]
    state = torch.load(path, weights_only=True)
    state["state"]["head.weight"][0, 0] = float("nan")
    torch.save(state, path)
    assert impact(folder) == 2
    assert "NaN or infinity in head.weight" in capsys.readouterr().err
