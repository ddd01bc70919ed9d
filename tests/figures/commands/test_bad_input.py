"""What is wrong with an option or a file is said in one line, exit code 2, before anything is run or written."""

import json
import os

import pytest
import torch

from envs.linear_quadratic import scalar
from envs.world import InputError
from figures.cli import main
from figures.measures.linear_systems import read_system
from tests.envs.refusals import refused
from theory.continuous.lq_gradients import policy_gradient
from theory.continuous.lyapunov import linear_value
from theory.continuous.riccati import riccati

OWN = {"A": [[0.9]], "B": [[1.0]], "Q": [[1.0]], "R": [[0.5]], "gamma": 0.9, "S_x": [[0.1]]}


def refusal(capsys, tmp_path, *arguments):
    """The one line that a command answers with."""
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--out", str(out)])
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2
    assert len(said) == 1, said
    assert not out.exists(), "nothing is written"
    assert len(said[0]) < 400
    assert said[0].isprintable()
    return said[0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("sweep", "costate_mean", "--set", "samples=0"), "samples"),
        (("sweep", "score_equals_pathwise", "--set", "samples=1"), "samples"),
        (("sweep", "costate_mean", "--set", "margin=nan"), "margin"),
        (("sweep", "costate_mean", "--set", "margin=-1"), "margin"),
        (("sweep", "costate_mean", "--set", "margin=0"), "margin"),
        (("sweep", "costate_mean", "--set", "system=nope"), "system"),
        (("sweep", "score_equals_pathwise", "--set", "system=random_endless"), "system"),
        (("sweep", "costate_recursion", "--set", "system={}"), "system"),
        (("sweep", "costate_mean", "--set", 'system={"A": 1'), "system"),
        (("sweep", "kl_estimators", "--set", "distances=1e400,1"), "distances"),
        (("sweep", "kl_estimators", "--set", "distances=inf,1"), "distances"),
        (("train", "--learner", "grpo", "--world", "TokenCopy", "--option", "clip=NaN"), "clip"),
        (("train", "--learner", "grpo", "--world", "TokenCopy", "--option", "clip=1e999"), "clip"),
        (("train", "--learner", "grpo", "--world", "TokenGarnet", "--set", "seed=-1"), "seed"),
        (("train", "--learner", "dapo", "--world", "TokenGarnet", "--option", "dynamic_sampling=accuracy"), "signals"),
        (
            ("train", "--learner", "dapo", "--world", "TokenCopy", "--option", "dynamic_sampling=often"),
            "dynamic_sampling",
        ),
        (("train", "--learner", "pkpo", "--world", "TokenCopy", "--option", "k=9"), "group"),
        (("train", "--learner", "grpo", "--world", "TokenSumAndStop", "--set", "bonus=NaN"), "bonus"),
        (("train", "--learner", "grpo", "--world", "LQScalar", "--set", "action_noise=-1"), "action_noise"),
        (("check", "bellman_costate", "--seed", "12345678901234567890"), "--seed"),
        (("check", "bellman_costate", "--seed", "-1"), "--seed"),
        (("check", "bellman_costate", "--jobs", "\u0663"), "--jobs"),
        (("check", "bellman_costate", "--jobs", "\u00b2"), "--jobs"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else x,
)
def test_options_that_cannot_be_run_are_refused_before_a_folder_is_made(arguments, named, capsys, tmp_path):
    assert named in refusal(capsys, tmp_path, *arguments)


LONG = "x" * 5000 + "\n\x1b[2J\u202e" + "y"
ARRAY = str(list(range(3000)))
TRAIN = ("train", "--learner", "grpo", "--world", "TokenCopy")
PRETRAIN = ("pretrain", "--world", "TokenSkills")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "bellman_costate", "--world", LONG),
        ("check", "bellman_costate", "--preset", LONG),
        ("check", "bellman_costate", "--jobs", "1000000000000"),
        ("sweep", "bellman_costate", "--only", LONG),
        ("sweep", "bellman_costate", "--only", f"world={LONG}"),
        ("sweep", "bellman_costate", "--set", f"temperature={ARRAY}"),
        (*TRAIN, "--set", LONG),
        (*TRAIN, "--set", f"{LONG}=1"),
        (*TRAIN, "--set", f"V={ARRAY}"),
        (*TRAIN, "--option", f"clip={LONG}"),
        (*TRAIN, "--option", f"{LONG}={ARRAY}"),
        (*TRAIN, "--kl-loss", f"k3:{LONG}"),
        (*TRAIN, "--kl-loss", f"{LONG}:1"),
        (*TRAIN, "--width", "9" * 5000),
        (*TRAIN, "--width", "1000000000"),
        (*TRAIN, "--prompts", "1000000000000"),
        (*TRAIN[:-1], LONG),
        (*PRETRAIN, "--set", f"names={LONG}"),
        (*PRETRAIN, "--quality", LONG),
        ("impact", "--checkpoints", LONG),
        ("impact", "--checkpoints", ".", "--model", f"{LONG}.py:{LONG}"),
    ],
    ids=lambda x: " ".join(part[:20] for part in x if part.isprintable()),
)
def test_what_is_echoed_is_short_and_printable_and_nothing_is_written(arguments, capsys, tmp_path):
    assert refusal(capsys, tmp_path, *arguments).startswith("costate: ")


def text(**changes):
    return json.dumps({**OWN, **changes})


FILES = {
    "a row vector for m_0": (text(m_0=[[1.0]]), "m_0"),
    "a batch of systems": (text(A=[[[0.9]], [[0.8]]]), "A"),
    "a horizon of a million": (text(horizon=1_000_000), "horizon=1000000"),
    "a number of 400 digits": (text().replace("0.9]]", "9" * 400 + "]]"), "no number"),
    "a number of 5000 digits": (text().replace("0.9]]", "9" * 5000 + "]]"), "JSON"),
    "a hundred thousand brackets": ("[" * 100_000, "nested"),
    "NaN": (text(gamma=float("nan")), "NaN"),
    "Infinity": (text(S_x=[[float("inf")]]), "Infinity"),
    "1e400": (text().replace("0.9]]", "1e400]]"), "A"),
    "text in a matrix": (text(A=[["x"]]), "A"),
    "no matrix": (text(A=None), "A"),
    "a gain of another shape": (text(K=[[1.0, 2.0]]), "K"),
    "a gain that is none": (text(K="much"), "K"),
    "a gain of 1e300": (text(K=[[1e300]]), "K"),
    "an unknown field": (text(C=1), "field 'C'"),
    "a list": ("[1, 2]", "object"),
    "half of it": (text()[:-5], "JSON"),
}


@pytest.mark.parametrize("name", FILES)
def test_world_files_with_a_fault_are_refused_in_one_line(name, tmp_path, capsys):
    written, named = FILES[name]
    path = tmp_path / "own.json"
    path.write_text(written)
    assert named in refusal(capsys, tmp_path, "check", "costate_mean", "--world", str(path))


def test_a_world_file_that_is_no_file_is_refused_and_does_not_hang(tmp_path, capsys):
    os.mkfifo(tmp_path / "own.json")
    for path, named in ((tmp_path / "own.json", "is a pipe"), ("/dev/zero", "is a device"), (tmp_path, "is a folder")):
        assert named in refusal(capsys, tmp_path, "check", "costate_mean", "--world", str(path))


def test_a_file_that_is_no_text_is_refused_and_a_byte_order_mark_is_taken(tmp_path):
    path = tmp_path / "own.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="UTF-8"):
        read_system(path)
    path.write_bytes(b"\xef\xbb\xbf" + text().encode())
    marked = read_system(path)
    path.write_text(text())
    assert read_system(path) == marked


def test_a_horizon_beyond_the_budget_is_refused_at_once_and_a_long_one_is_not():
    for f in (riccati, lambda world: linear_value(world, torch.tensor([[0.3]], dtype=torch.float64))):
        with refused("horizon=1000000"):
            f(scalar(horizon=10**6))
    world = scalar(horizon=2000, gamma=0.99)
    K = riccati(world).K
    assert K.shape == (2000, 1, 1)
    assert float(policy_gradient(world, K).abs().max()) < 1e-9, "the long recursion is the optimum's"
