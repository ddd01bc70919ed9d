"""`costate impact` and `costate pretrain` where the folder holds what another program, or another version, left there."""

import os

import pandas as pd
import pytest
import torch

from agents.policies.transformer import Transformer
from figures.harness import code
from figures.impact.checkpoint_files import WRITER
from tests.figures.commands.test_impact import (  # noqa: F401  (fixtures)
    COPY,
    SIZES,
    assert_refused,
    contents,
    folder,
    impact,
    known,
    pretrain,
    run,
    undrawn,
    whole,
)

NETWORK = Transformer(3, None, 8, 1, 1, 4, seed=3)
FOREIGN = {
    "empty": b"",
    "text": b"not a checkpoint\n",
    "a pickle of another program": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x8c\x06system\x93.",
    "a list": [1],
    "an empty dict": {},
    "an empty state": {"state": {}},
    "tokens below 0": {"state": NETWORK.state_dict(), "tokens": -5},
    "another network": {"state": {"weight": torch.zeros(2)}},
}


@pytest.mark.parametrize("form", FOREIGN)
def test_impact_names_a_file_that_it_cannot_read_and_writes_nothing(folder, tmp_path, form, capsys):  # noqa: F811
    path = folder / "update-000004.pt"
    path.write_bytes(FOREIGN[form]) if isinstance(FOREIGN[form], bytes) else torch.save(FOREIGN[form], path)
    before = contents(folder)
    assert_refused(capsys, impact(folder, "--out", tmp_path / "new"), f"checkpoint {path} ")
    assert contents(folder) == before
    assert not (tmp_path / "new").exists()


def test_impact_does_not_wait_for_a_pipe(folder, tmp_path, capsys):  # noqa: F811
    os.mkfifo(folder / "a.pt")
    assert_refused(capsys, impact(folder, "--out", tmp_path / "new"), "a.pt is a pipe, not a file")
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("undrawn")
def test_impact_says_when_other_code_or_libraries_wrote_a_checkpoint(folder, capsys, monkeypatch):  # noqa: F811
    assert impact(folder) == 0
    assert "was written" not in capsys.readouterr().err, "the control: this program wrote them"
    now = code.writer(WRITER)
    monkeypatch.setattr(code, "writer", lambda module: now | {"code": "another", "torch": "another"})
    assert impact(folder) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "was written" in line]
    assert said == [
        "costate: checkpoint update-000000 and 2 more was written with other code, torch; it is judged all the same"
    ]
    path = folder / "update-000004.pt"
    torch.save({name: x for name, x in torch.load(path, weights_only=True).items() if name != "written by"}, path)
    assert impact(folder) == 0
    assert "update-000000 and 1 more" in capsys.readouterr().err, "a user's own file says nothing, and nothing is said"


@pytest.mark.parametrize("kind", ["files of another program", "a folder", "a pipe", "a link to nothing"])
def test_pretrain_removes_no_file_that_it_did_not_write(folder, kind, capsys):  # noqa: F811
    if kind == "files of another program":
        (folder / "model.json").unlink()
    else:
        make = {"a folder": os.mkdir, "a pipe": os.mkfifo, "a link to nothing": lambda p: os.symlink("gone", p)}[kind]
        make(folder / "update-7.pt")
    names = sorted(path.name for path in folder.iterdir())
    assert_refused(capsys, pretrain(folder), f"--out {folder} holds update-")
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'{"heads": true}'])
def test_pretrain_needs_nothing_of_the_damaged_files_that_it_replaces(folder, text):  # noqa: F811
    (folder / "model.json").write_bytes(text)
    for path in folder.glob("update-*.pt"):
        path.write_bytes(b"damaged")
    assert pretrain(folder) == 0
    assert impact(folder) == 0


def test_pretraining_that_diverges_says_where_and_keeps_what_was_before(tmp_path, capsys):
    assert run("pretrain", *COPY, *SIZES, "--rate", 1e300, "--out", tmp_path) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("costate: pretraining diverged after update 0: ")
    assert said.endswith("what was before it is kept: a smaller --rate may help")
    assert pd.read_csv(tmp_path / "pretraining.csv")["updates"].tolist() == [0]
    assert (tmp_path / "pretraining.png").stat().st_size > 5000, "a picture of one point"
    assert impact(tmp_path) == 0, "the checkpoint of before is sound"


USERS = """
import sys
import torch
from torch import nn


class Late(nn.Module):
    \"\"\"Sound when it is tried, and of no use when it is trained.\"\"\"

    def __init__(self, V):
        super().__init__()
        self.embedding, self.out = nn.Embedding(V, 4), nn.Linear(4, V)

    def forward(self, x):
        print("forward")
        if torch.is_grad_enabled() and x.requires_grad:
            FAULT
        return self.out(x.cumsum(1))


def build(world):
    return Late(world.V)
"""


@pytest.fixture
def users(tmp_path, uses_global_rng):
    """A checkpoint of the user's network; the file is written by the test."""
    rng = torch.Generator().manual_seed(0)
    shapes = {"embedding.weight": (3, 4), "out.weight": (3, 4), "out.bias": (3,)}
    torch.save({name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}, tmp_path / "a.pt")
    return tmp_path / "my.py"


@pytest.mark.usefixtures("undrawn")
def test_a_number_that_is_not_finite_is_named_and_not_written(users, capsys):
    """Finite logits whose derivative at this point is infinite: a root of 0."""
    users.write_text(USERS.replace("x.cumsum(1))", "x + (x - x.detach()).abs().sqrt())").replace("FAULT", "pass"))
    assert impact(users.parent, *COPY, "--model", f"{users}:build") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(
        "costate: checkpoint a: policy has logits whose derivatives at embedding are NaN or infinite"
    )
    assert not (users.parent / "impact.csv").exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "fault", ["raise OSError(28, 'disk')", "sys.exit(0)", "1 / 0", "raise KeyboardInterrupt", "pass"]
)
def test_a_users_network_that_fails_while_it_is_measured_is_named(users, fault, capsys):
    users.write_text(USERS.replace("FAULT", fault))
    code = impact(users.parent, *COPY, "--model", f"{users}:build")
    heard = capsys.readouterr()
    assert "forward" not in heard.out
    assert code == {"raise KeyboardInterrupt": 130, "pass": 0}.get(fault, 2)
    if code == 2:
        last = heard.err.strip().splitlines()[-1]
        assert last.startswith(f"costate: --model {users}:build ")
        assert "Traceback" not in heard.err
